"""Force a new cluster: one survivor becomes the only member, with all that it holds."""

import pytest

from shoal.api.errors import NotFound
from shoal.manager.store.raft import CorruptStorage, force_new_cluster
from tests.unit.manager.raft.group import HAPPENED
from tests.unit.manager.raft.mended import Mended, member


def lose_the_majority(group, snapshot):
    """Ten writes, a fourth member, ten writes; then A, C and D are gone for good, and B is stopped."""
    group.elect("A")
    for n in range(10):
        group.write("A", b"%d" % n)
    group.run(20)
    group.start("D")
    joined = group.add("A", "D")
    assert group.until(lambda: joined.outcome == HAPPENED)
    for n in range(10, 20):
        group.write("A", b"%d" % n)
    group.run(30)
    if snapshot:
        group.compact("B")
        group.run(10)
        assert group.log("B")[0][0] > 10
    for name in "ABCD":
        group.kill(name)


@pytest.mark.parametrize("snapshot", [pytest.param(False, id="from the journal"), pytest.param(True, id="a snapshot")])
def test_the_survivor_leads_alone_and_has_everything(snapshot):
    with Mended() as group:
        lose_the_majority(group, snapshot)
        assert force_new_cluster(group.home("B"), member("B")) >= 1
        group.start("B")
        assert group.members("B") == "B"
        group.elect("B")
        assert group.values("B") == [b"%d" % n for n in range(20)]
        receipt = group.write("B", b"alone")
        assert group.until(lambda: receipt.outcome == HAPPENED)
        group.kill("B")
        group.start("B")
        assert group.members("B") == "B"
        group.start("E")
        joined = group.add("B", "E")
        group.elect("B")
        joined = group.add("B", "E")
        assert group.until(lambda: joined.outcome == HAPPENED and group.values("E") == group.values("B"))


def test_an_old_member_that_returns_cannot_lead_it():
    with Mended() as group:
        lose_the_majority(group, snapshot=False)
        force_new_cluster(group.home("B"), member("B"))
        group.start("B")
        group.elect("B")
        group.start("A")
        term = group.term("A")
        group.candidate("A")
        group.run(200)
        assert group.leads("B") and group.members("B") == "B"
        assert group.term("B") > term


def test_it_may_be_repeated():
    with Mended() as group:
        lose_the_majority(group, snapshot=True)
        first = force_new_cluster(group.home("B"), member("B"))
        assert force_new_cluster(group.home("B"), member("B")) == first
        group.start("B")
        group.elect("B")
        assert len(group.values("B")) == 20


def test_its_address_may_be_another():
    with Mended() as group:
        lose_the_majority(group, snapshot=False)
        moved = member("B").__class__("B", "elsewhere:2378")
        force_new_cluster(group.home("B"), moved)
        group.start("B")
        assert group.nodes["B"].members == (moved,)


def test_nothing_to_recover_from_is_said(tmp_path):
    with pytest.raises(NotFound, match=r"no journal in .*: there is nothing to recover from"):
        force_new_cluster(tmp_path, member("B"))


def test_another_members_folder_is_refused():
    with Mended() as group:
        lose_the_majority(group, snapshot=False)
        with pytest.raises(CorruptStorage, match="belongs to member C, this is B"):
            force_new_cluster(group.home("C"), member("B"))
