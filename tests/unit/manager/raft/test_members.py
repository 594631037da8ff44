"""One change of members at a time, and an id for each join: fault 2."""

import pytest

from shoal.manager.store.raft import Member, MembershipConflict
from shoal.manager.store.raft.membership import (
    Configurations,
    encode_members,
    with_address,
    with_member,
    without_member,
)
from tests.unit.manager.raft.group import HAPPENED, REFUSED
from tests.unit.manager.raft.kinds import on_both
from tests.unit.manager.raft.mended import Mended


@on_both
def test_fault_2_changes_of_members_are_made_one_at_a_time(kind):
    """A leader in a minority is asked for several changes: as shipped it becomes a majority of its own."""
    with kind() as group:
        group.elect("A")
        group.split("A", "BC")
        for new in "DE":
            group.add("A", new)
            group.tick("A")
        for gone in "BCDE":
            group.remove("A", gone)
            group.tick("A")
        alone = group.write("A", b"of a minority")
        group.run(5, "A")
        group.elect("B", "BC")
        group.write("B", b"of the majority")
        group.run(20, "BC")
        assert group.values("B") == [b"of the majority"]
        assert (alone.outcome != HAPPENED and group.values("A") == []) is group.mended


def test_a_change_counts_from_the_moment_it_is_appended():
    with Mended() as group:
        group.elect("A")
        group.cut("AB", "AC")
        first = group.add("A", "D")
        second = group.remove("A", "B")
        group.tick("A")
        assert group.members("A") == "ABCD"
        assert (first.outcome, second.outcome) == (None, REFUSED)
        assert group.nodes["A"].majority() == 3


def test_a_change_that_is_overwritten_holds_no_more():
    with Mended() as group:
        group.elect("A")
        group.cut("AB", "AC")
        group.add("A", "D")
        group.run(300, "A")
        assert group.members("A") == "ABCD"
        group.elect("B", "BC")
        group.heal()
        group.run(50)
        assert group.members("A") == group.members("B") == "ABC"


def test_no_change_before_the_leader_is_ready():
    with Mended() as group:
        group.elect("A")
        group.split("A", "BC")
        group.candidate("B")
        while not group.leads("B"):
            group.tick("BC")
            group.deliver(lambda source, target, message: message["type"] != "append_entries")
        assert group.add("B", "D").outcome == REFUSED


def test_a_removed_member_is_told_and_never_campaigns_again():
    with Mended() as group:
        group.elect("A")
        group.run(20)
        receipt = group.remove("A", "C")
        assert group.until(lambda: receipt.outcome == HAPPENED and group.nodes["C"].removed)
        group.cut("AC", "BC")
        term = group.term("C")
        group.run(500, "C")
        assert group.term("C") == term
        assert group.members("A") == "AB"


def test_a_joiner_gets_all_and_votes():
    with Mended() as group:
        group.elect("A")
        for n in range(30):
            group.write("A", b"%d" % n)
        group.run(20)
        group.start("D")
        receipt = group.add("A", "D")
        assert group.until(lambda: receipt.outcome == HAPPENED and group.values("D") == group.values("A"))
        group.kill("B")
        receipt = group.write("A", b"three of four")
        assert group.until(lambda: receipt.outcome == HAPPENED)


def test_a_manager_that_is_not_in_the_configuration_has_no_vote():
    with Mended() as group:
        group.run(1)
        group.candidate("A")
        group.cut("AB", "AC")
        group.start("X")
        group.nodes["A"].others  # noqa: B018 - B and C alone
        for _ in range(10):
            group.hand("X", "A", {"type": "pre_vote_answer", "term": 0, "asked": 1, "granted": True})
            group.hand("X", "A", {"type": "response_vote", "term": group.term("A")})
            group.tick("A")
        assert not group.leads("A")


ONE, TWO = Member("n1.a", "10.0.0.1:2378"), Member("n2.a", "10.0.0.2:2378")


@pytest.mark.parametrize(("change", "message"), [
    pytest.param(lambda: with_member((ONE, TWO), Member("n2.a", "10.0.0.3:1")), "needs a fresh id", id="taken id"),
    pytest.param(lambda: with_member((ONE, TWO), Member("n2.b", TWO.address)), "has the address", id="taken address"),
    pytest.param(lambda: without_member((ONE, TWO), "n3.a"), "not a member", id="nobody to remove"),
    pytest.param(lambda: without_member((ONE,), "n1.a"), "last member", id="nobody would be left"),
    pytest.param(lambda: with_address((ONE,), TWO), "not a member", id="nobody to move"),
])
def test_contradictory_changes_are_refused(change, message):
    with pytest.raises(MembershipConflict, match=message):
        change()


def test_a_node_that_comes_again_is_another_member():
    again = Member("n2.b", TWO.address)
    members = with_member(without_member((ONE, TWO), TWO.id), again)
    assert members == (ONE, again)


def test_the_latest_configuration_in_the_log_holds():
    held = Configurations(0, (ONE,))
    assert held.appended((encode_members((ONE, TWO)), 5, 1))
    assert not held.appended((b"\0command", 6, 1))
    assert held.latest == (5, (ONE, TWO))
    assert held.at(4) == (ONE,)
    assert held.truncated(5)
    assert held.latest == (0, (ONE,))
