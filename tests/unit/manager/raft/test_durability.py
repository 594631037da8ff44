"""What was acknowledged survives: faults 3, 5, 7 and 10, and death at every step of the disk."""

import itertools
import os
import random
import subprocess
import sys

import pytest

from shoal.manager.store.raft import CorruptStorage, Member
from shoal.manager.store.raft.journal import Journal
from tests.property.raft.disk import ForgetfulDisk
from tests.unit.manager.raft.disks import Died, DyingDisk, FullDisk, SyncingDisk
from tests.unit.manager.raft.group import HAPPENED
from tests.unit.manager.raft.kinds import on_both
from tests.unit.manager.raft.mended import Mended
from tests.unit.manager.raft.stock import as_shipped

ME = Member("A", "host-A:2378")


@on_both
def test_fault_3_death_between_snapshot_and_journal_loses_nothing(kind):
    """B and C hold writes that they acknowledged and do not know to be committed. Both write a snapshot, both die
    before they cut their journals, and the leader is gone for good."""
    with kind() as group:
        group.elect("A")
        for n in range(20):
            group.write("A", b"%d" % n)
        group.run(20)
        receipts = [group.write("A", b"late %d" % n) for n in range(10)]
        group.tick("A")
        group.deliver()
        group.tick("BC")
        group.deliver()
        group.tick("A")
        group.waiting.clear()
        assert all(receipt.outcome == HAPPENED for receipt in receipts)
        group.kill("A")
        for name in "BC":
            group.compact(name)
            while not group.snapshot(name).exists():
                group.tick(name, seconds=0.001)
            group.kill(name)
            group.start(name)
        group.run(3, "BC")
        group.elect("B", "BC")
        assert (len(group.values("B")) == 30) is group.mended


@on_both
def test_fault_5_nothing_is_acknowledged_before_it_is_synced(kind, monkeypatch):
    syncs = []
    monkeypatch.setattr(os, "fsync", syncs.append)
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    with kind("A", disk=SyncingDisk) if kind is Mended else kind("A") as group:
        group.elect("A")
        if not group.mended:
            monkeypatch.setattr(group.library.journal.ResizableFile, "flush", syncs.append)  # a mapped file's way
        syncs.clear()
        receipt = group.write("A", b"x")
        assert group.until(lambda: receipt.outcome == HAPPENED)
        assert bool(syncs) is group.mended


class Watchful(Mended):
    """Nothing may be sent while the journal has something that is not synced."""

    def send(self, source, target, message):
        assert not self.nodes[source].log.dirty
        return super().send(source, target, message)


def test_nothing_is_sent_before_the_journal_is_synced():
    with Watchful() as group:
        group.elect("A")
        for n in range(20):
            group.write("A", b"%d" % n)
            group.run(2)


def test_acknowledged_writes_survive_a_power_cut_of_all():
    with Mended() as group:
        group.elect("A")
        receipts = [group.write("A", b"%d" % n) for n in range(20)]
        assert group.until(lambda: all(receipt.outcome == HAPPENED for receipt in receipts))
        for name in "ABC":
            group.power_cut(name)
        for name in "ABC":
            group.start(name)
        group.run(3)
        group.elect("B")
        assert group.values("B") == [b"%d" % n for n in range(20)]


def test_a_vote_survives_a_power_cut():
    """Else one member could vote twice in a term."""
    with Mended() as group:
        group.elect("A")
        term = group.term("B")
        group.power_cut("B")
        group.start("B")
        assert group.term("B") == term
        assert group.nodes["B"].log.getVotedForNodeId() == "A"


def test_a_member_whose_folder_was_restored_from_a_copy_is_named(caplog):
    """It cannot be helped without risk to what was acknowledged: the operator is told, and the others go on."""
    with Mended() as group:
        group.elect("A")
        group.write("A", b"old")
        group.run(20)
        group.kill("B")
        copy = (group.home("B") / "journal").read_bytes()
        group.start("B")
        for n in range(20):
            group.write("A", b"%d" % n)
            group.run(3)
        group.cut("AB")
        group.kill("B")
        (group.home("B") / "journal").write_bytes(copy)
        group.start("B")
        group.heal()
        group.run(600)
        assert caplog.text.count("member lacks entries that it had acknowledged") == 1
        assert "join again member=B" in caplog.text
        receipt = group.write("A", b"goes on")
        assert group.until(lambda: receipt.outcome == HAPPENED)


# --- the journal ---


def entries(count):
    return [(b"\x00%d" % n, n, 1) for n in range(1, count + 1)]


def journal(folder, disk=None, **options):
    made = Journal(folder / "journal", "A", [ME], disk=disk, **options)
    if not len(made):
        made.add(b"\x01", 0, 0)
    return made


def filled(folder, disk=None, count=20):
    made = journal(folder, disk)
    for entry in entries(count):
        made.add(*entry)
        made.sync()
    return made


def test_fault_7_as_shipped_death_while_the_journal_is_cut_loses_what_is_kept(tmp_path):
    with as_shipped() as library:
        stock = library.journal.FileJournal(str(tmp_path / "journal"))
        for entry in entries(100):
            stock.add(*entry)
        left = iter(range(10))

        def add_until_death(*entry, add=stock.add):
            if next(left, None) is None:
                raise Died
            add(*entry)

        stock.add = add_until_death
        with pytest.raises(Died):
            stock.deleteEntriesTo(50)
        assert len(library.journal.FileJournal(str(tmp_path / "journal"))) == 10


@pytest.mark.parametrize("power", [pytest.param(False, id="killed"), pytest.param(True, id="power cut")])
def test_fault_7_death_at_any_step_of_cutting_the_journal_loses_nothing(tmp_path, power):
    for at in itertools.count(1):
        folder = tmp_path / str(at)
        folder.mkdir()
        disk = DyingDisk()
        cut = filled(folder, disk)
        disk.steps, disk.at = 0, at
        try:
            cut.deleteEntriesTo(10)
            break
        except Died:
            _stop(disk, folder, power)
        kept = journal(folder).entries
        assert kept[-10:] == entries(20)[-10:], f"died at step {at}"
    assert at > 4, "create, write, sync and rename were died at"


def test_a_new_journal_is_in_place_before_its_folder_is_synced(tmp_path):
    class Recording(ForgetfulDisk):
        seen = ()

        def sync(self, fd):
            super().sync(fd)
            self.seen += (("sync", (tmp_path / "journal.new").exists()),)

        def sync_folder(self, folder):
            self.seen += (("sync folder", (tmp_path / "journal.new").exists()),)

    disk = Recording()
    cut = filled(tmp_path, disk)
    disk.seen = ()
    cut.deleteEntriesTo(10)
    assert disk.seen == (("sync", True), ("sync folder", False))


def _stop(disk, folder, power):
    if power:
        disk.power_cut(folder, random.Random(1))
    else:
        disk.close_all()


def test_fault_10_as_shipped_damage_goes_unnoticed(tmp_path):
    with as_shipped() as library:
        path = tmp_path / "journal"
        stock = library.journal.FileJournal(str(path))
        for entry in entries(20):
            stock.add(*entry)
        _damage(path, path.read_bytes().index(b"\x0010"))
        assert library.journal.FileJournal(str(path))[9] != entries(20)[9]


def test_fault_10_damage_in_the_middle_stops_the_node_with_advice(tmp_path):
    filled(tmp_path)
    path = tmp_path / "journal"
    _damage(path, path.read_bytes().index(b"\x0010"))
    with pytest.raises(CorruptStorage, match=r"no torn write.*Do not cut it.*join again"):
        journal(tmp_path)


def _damage(path, at):
    data = bytearray(path.read_bytes())
    data[at + 1] ^= 0x40
    path.write_bytes(data)


def test_fault_10_a_tail_that_is_torn_anywhere_is_cut_with_a_warning(tmp_path, caplog):
    filled(tmp_path, count=5)
    path = tmp_path / "journal"
    whole = path.read_bytes()
    last = Journal(path, "A", [ME])
    last.add(b"\x006 the last", 6, 1)
    last.sync()
    full = path.read_bytes()
    for size in range(len(whole) + 1, len(full)):
        path.write_bytes(full[:size])
        caplog.clear()
        reopened = journal(tmp_path)
        assert reopened.entries[1:] == entries(5)
        assert "torn tail, cut" in caplog.text
        reopened._destroy()
        assert path.read_bytes()[: len(whole)] == whole
    path.write_bytes(full)
    assert len(journal(tmp_path)) == 7


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_fault_10_as_shipped_a_full_disk_is_a_bus_error(tmp_path):
    program = ("import pysyncobj.journal as j\n"
               f"journal = j.FileJournal({str(tmp_path / 'small' / 'journal')!r})\n"
               "for n in range(1000): journal.add(b'x' * 1000, n, 1)")
    (tmp_path / "small").mkdir()
    script = f"mount -t tmpfs -o size=64k none {tmp_path}/small && exec {sys.executable} -c \"$0\""
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, program], capture_output=True, check=False)
    assert done.returncode == -7, done.stderr  # SIGBUS


def test_fault_10_a_full_disk_stops_the_member_before_it_answers():
    """It says why, and sends nothing that it could not store."""

    class Stopping(Mended):
        def _fatal(self, reason):
            raise SystemExit(reason)

    with Stopping(disk=FullDisk) as group:
        group.elect("A")
        group.run(20)
        group.disks["B"].full = True
        receipt = group.write("A", b"x")
        group.tick("A")
        group.deliver(lambda source, target, message: target == "B")
        group.waiting.clear()
        with pytest.raises(SystemExit, match=r"cannot be written: .*No space left on device.*Make room"):
            group.tick("B")
        assert group.waiting == []
        group.kill("B")
        group.start("B")
        assert group.until(lambda: receipt.outcome == HAPPENED and group.values("B") == [b"x"])


def test_another_members_journal_is_refused(tmp_path):
    filled(tmp_path)._destroy()
    with pytest.raises(CorruptStorage, match="belongs to member A, this is B"):
        Journal(tmp_path / "journal", "B", [ME])


# --- snapshot and journal together ---


@pytest.mark.parametrize("power", [pytest.param(False, id="killed"), pytest.param(True, id="power cut")])
def test_death_at_any_step_of_a_compaction_loses_nothing(power):
    for at in itertools.count(1):
        with Mended("A", disk=DyingDisk) as group:
            group.elect("A")
            for n in range(30):
                group.write("A", b"%d" % n)
                group.run(1)
            disk = group.disks["A"]
            disk.steps, disk.at = 0, at
            group.compact("A")
            died = _run_until_death(group, "A", 20)
            assert died or group.log("A")[0][0] > 20, "it was compacted"
            (group.power_cut if power else group.kill)("A")
            group.start("A")
            group.elect("A")
            assert group.values("A") == [b"%d" % n for n in range(30)], f"died at step {at}"
        if not died:
            break
    assert at > 8, "snapshot: create, writes, sync, rename; journal: create, write, sync, rename"


def _run_until_death(group, name, steps):
    try:
        for _ in range(steps):
            group.tick(name)
            group.deliver()
    except Died:
        return True
    return False


@pytest.mark.parametrize("power", [pytest.param(False, id="killed"), pytest.param(True, id="power cut")])
def test_death_at_any_step_of_taking_over_a_snapshot_harms_nothing(power):
    for at in itertools.count(1):
        with Mended("AB", disk=DyingDisk) as group:
            group.elect("A")
            for n in range(5):
                group.write("A", b"%d" % n)
            group.run(20)
            group.start("C")
            joined = group.add("A", "C")
            assert group.until(lambda joined=joined: joined.outcome == HAPPENED and len(group.values("C")) == 5)
            group.kill("C")
            for n in range(5, 30):
                group.write("A", b"%d" % n)
                group.run(1)
            group.compact("A")
            group.run(10)
            group.start("C")
            assert group.log("A")[0][0] > group.log("C")[-1][0], "C needs the snapshot"
            disk = group.disks["C"]
            disk.steps, disk.at = 0, at
            died = _run_until_death(group, "ABC", 60)
            (group.power_cut if power else group.kill)("C")
            group.start("C")
            assert group.until(lambda: group.values("C") == [b"%d" % n for n in range(30)]), f"died at step {at}"
        if not died:
            break
    assert at > 6


def test_a_damaged_snapshot_stops_the_node_with_advice():
    with Mended("A") as group:
        group.elect("A")
        for n in range(30):
            group.write("A", b"%d" % n)
            group.run(1)
        group.compact("A")
        group.run(10)
        group.kill("A")
        path = group.snapshot("A")
        whole = path.read_bytes()
        for damaged, message in [(whole[:-3], "cut short"), (whole[:40] + b"?" + whole[41:], "damaged"),
                                 (b"", "cut short")]:
            path.write_bytes(damaged)
            with pytest.raises(CorruptStorage, match=f"{message}.*remove this manager.*join again"):
                group.start("A")
        path.unlink()
        with pytest.raises(CorruptStorage, match="is missing, and the journal begins at entry"):
            group.start("A")
        path.write_bytes(whole)
        group.start("A")
        group.elect("A")
        assert len(group.values("A")) == 30
