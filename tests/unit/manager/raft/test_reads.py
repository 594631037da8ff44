"""Linearizable reads: a read sees every write that was acknowledged before it, or does not succeed."""

from tests.unit.manager.raft.group import HAPPENED, REFUSED
from tests.unit.manager.raft.mended import Mended


def test_a_read_sees_every_acknowledged_write():
    with Mended() as group:
        group.elect("A")
        for n in range(20):
            receipt = group.write("A", b"%d" % n)
            assert group.until(lambda receipt=receipt: receipt.outcome == HAPPENED)
            read = group.read("A")
            assert read.outcome is None, "a majority is asked first"
            assert group.until(lambda read=read: read.outcome == HAPPENED)
            assert group.values("A")[-1] == b"%d" % n


def test_a_deposed_leader_answers_no_read():
    """It does not know yet that it is out: B leads and has acknowledged more."""
    with Mended() as group:
        group.elect("A")
        group.split("A", "BC")
        group.elect("B", "BC")
        receipt = group.write("B", b"newer")
        assert group.until(lambda: receipt.outcome == HAPPENED, names="BC")
        assert group.leads("A"), "its clock stood still"
        read = group.read("A")
        group.run(30, "A")
        assert read.outcome is None
        group.heal()
        group.run(100)
        assert read.outcome == REFUSED


def test_answers_to_earlier_messages_confirm_no_read():
    """What a follower said before the read began proves nothing about now."""
    with Mended() as group:
        group.elect("A")
        group.tick("A", seconds=0.2)  # a heartbeat goes out
        group.deliver(lambda source, target, message: target != "A")
        early = [each for each in group.waiting if each[2] == "A"]
        group.tick("BC")
        early += [each for each in group.waiting if each[2] == "A" and each not in early]
        read = group.read("A")
        group.waiting = early
        group.deliver()
        group.nodes["A"]._finish_reads()
        assert read.outcome is None
        assert group.until(lambda: read.outcome == HAPPENED)


def test_a_new_leader_reads_nothing_before_its_own_first_entry():
    with Mended() as group:
        group.elect("A")
        receipt = group.write("A", b"acknowledged")
        assert group.until(lambda: receipt.outcome == HAPPENED)
        group.split("A", "BC")  # B and C may not know that it is committed
        group.candidate("B")
        while not group.leads("B"):
            group.tick("BC")
            group.deliver(lambda source, target, message: message["type"] != "append_entries")
        read = group.read("B")
        assert group.until(lambda: read.outcome == HAPPENED, names="BC")
        assert group.values("B") == [b"acknowledged"]


def test_a_follower_says_whom_to_ask():
    with Mended() as group:
        group.elect("A")
        refused = []
        group.nodes["B"].read(lambda _, error: refused.append(error.leader_id))
        assert refused == ["A"]


def test_a_single_member_reads_at_once():
    with Mended("A") as group:
        group.elect("A")
        read = group.read("A")
        group.tick()
        assert read.outcome == HAPPENED
