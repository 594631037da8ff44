"""Elections and office: fault 12, pre-vote, the leader that is ready, and handing the office over."""

import pytest

from shoal.manager.store.raft import MembershipConflict
from shoal.manager.store.raft.library import CANDIDATE
from tests.unit.manager.raft.group import HAPPENED, UNKNOWN
from tests.unit.manager.raft.kinds import on_both
from tests.unit.manager.raft.mended import Mended


@on_both
def test_fault_12_a_leader_without_a_majority_leaves_office(kind):
    with kind() as group:
        group.elect("A")
        group.split("A", "BC")
        group.run(300, "A")  # three seconds, election timeouts are under one and a half
        assert (not group.leads("A")) is group.mended


@on_both
def test_fault_12_no_vote_while_a_leader_is_heard(kind):
    """C raised its term while it was cut off. It comes back, and asks everybody for votes."""
    with kind() as group:
        group.elect("A")
        group.cut("AC", "BC")
        group.run(30)
        term, last = group.term("A"), group.log("A")[-1]
        group.heal()
        group.tick()
        for target in "AB":
            group.hand("C", target, {"type": "request_vote", "term": term + 5, "last_log_index": last[0] + 10,
                                     "last_log_term": last[1]})
        group.run(3)
        assert (group.leads("A") and group.term("A") == term) is group.mended


@on_both
def test_a_member_that_was_cut_off_returns_without_an_election(kind):
    """Pre-vote: what a lonely member cannot win it does not begin."""
    with kind() as group:
        group.elect("A")
        term = group.term("A")
        group.run(400, only=lambda source, target, _: None if "C" in (source, target) else True)  # all is lost
        lonely = group.term("C")
        group.run(100)
        undisturbed = group.leads("A") and group.term("A") == term and lonely == term
        assert undisturbed is group.mended


def test_time_that_passes_within_a_turn_begins_no_election():
    """Found by the fuzzer: our look at the deadline came a microsecond before the library's, which then campaigned."""
    with Mended() as group:
        group.elect("A")
        group.cut("AC", "BC")
        term = group.term("C")
        for microseconds in range(60):
            group.poke("C", "raftElectionDeadline", group.now + 0.01 + microseconds * 1e-6)
            group.tick("C")
            assert group.term("C") == term


def test_pre_votes_are_void_once_a_leader_is_heard():
    """Found by the fuzzer: C kept its majority of yeses, and raised its term when it was alone much later."""
    with Mended() as group:
        group.elect("A")
        term = group.term("C")
        group.tick("A", seconds=0.2)
        late = [each[3] for each in group.waiting if each[2] == "C" and each[3]["type"] == "append_entries"]
        group.waiting.clear()
        group.poke("C", "raftElectionDeadline", 0.0)
        group.tick("C")
        group.hand("B", "C", {"type": "pre_vote_answer", "term": term, "asked": term + 1, "granted": True})
        group.hand("A", "C", late[0])
        group.cut("AC", "BC")
        group.run(500, "C")
        assert group.term("C") == term


def test_pre_votes_that_came_before_the_office_are_void_after_it():
    """Found by the fuzzer: yeses for the next term arrived before the votes for this one did, and lay about."""
    with Mended() as group:
        group.run(1)
        group.candidate("C")
        while group.peek("C", "raftState") != CANDIDATE:
            group.run(1, only=lambda source, target, message: message["type"] != "response_vote")
        term = group.term("C")
        group.nodes["C"].ask_pre_votes()  # its patience ends once more
        group.hand("B", "C", {"type": "pre_vote_answer", "term": term, "asked": term + 1, "granted": True})
        group.hand("B", "C", {"type": "response_vote", "term": term})
        assert group.leads("C")
        group.split("A", "B", "C")
        group.run(500, "C")
        assert not group.leads("C")
        assert group.term("C") == term


def test_a_pre_vote_of_whom_we_do_not_reach_any_more_is_none():
    """Found by the fuzzer: with a late yes it made a majority of which one was out of reach."""
    with Mended("ABCDE") as group:
        group.elect("A")
        term = group.term("E")
        group.split("ABCD", "E")
        group.run(100, "E")
        group.heal()
        group.tick("E")
        group.poke("E", "raftElectionDeadline", 0.0)
        group.tick("E", seconds=0.0)
        yes = {"type": "pre_vote_answer", "term": term, "asked": term + 1, "granted": True}
        group.hand("A", "E", yes)
        group.cut("AE")
        group.tick("E", seconds=0.0)
        group.hand("B", "E", yes)
        assert not group.nodes["E"].may_campaign()
        group.hand("C", "E", yes)
        assert group.nodes["E"].may_campaign()


def test_a_pre_vote_is_refused_by_who_has_more_and_by_who_hears_a_leader():
    with Mended() as group:
        group.elect("A")
        question = {"type": "pre_vote", "term": group.term("B") + 1, "last_log_index": 99, "last_log_term": 99}
        answers = []

        def ask(**changed):
            group.hand("C", "B", {**question, **changed})
            group.nodes["B"].flush()
            answers.append([m["granted"] for _, s, t, m in group.waiting if m["type"] == "pre_vote_answer"].pop())
            group.waiting.clear()

        ask()
        group.cut("AB")
        group.run(50, "B")
        ask()
        ask(last_log_index=0, last_log_term=0)
        ask(term=group.term("B"))
        assert answers == [False, True, False, False]


def test_a_leader_is_ready_once_its_own_first_entry_is_applied():
    """Before that it does not know what was acknowledged under the last one."""
    with Mended() as group:
        group.elect("A")
        group.write("A", b"acknowledged")
        group.run(20)
        group.split("A", "BC")
        group.candidate("B")
        for _ in range(500):
            if group.leads("B"):
                break
            group.tick("BC")
            group.deliver(lambda source, target, message: message["type"] != "append_entries")  # held
        assert group.leads("B")
        assert not group.nodes["B"].is_ready()
        assert group.until(group.nodes["B"].is_ready, names="BC")
        assert group.values("B") == [b"acknowledged"]


def test_leadership_is_handed_over_at_once_although_a_leader_is_heard():
    with Mended() as group:
        group.elect("A")
        group.run(20)
        term = group.term("A")
        group.nodes["A"].transfer("B")
        assert group.until(lambda: group.leads("B"), seconds=0.2), "no election timeout is waited for"
        assert group.term("B") == term + 1
        assert group.until(lambda: not group.leads("A"), seconds=0.2)
        receipt = group.write("B", b"after")
        assert group.until(lambda: receipt.outcome == HAPPENED)


def test_leadership_is_not_handed_to_who_lacks_entries():
    with Mended() as group:
        group.elect("A")
        group.cut("AB")
        group.write("A", b"B lacks it")
        group.run(20)
        with pytest.raises(MembershipConflict, match="B is not linked and up to date"):
            group.nodes["A"].transfer("B")
        assert group.leads("A")


def test_what_was_under_way_when_the_office_was_lost_is_unknown_not_failed():
    with Mended() as group:
        group.elect("A")
        group.split("A", "BC")
        receipt = group.write("A", b"perhaps")
        group.run(300, "A")
        assert receipt.outcome == UNKNOWN
