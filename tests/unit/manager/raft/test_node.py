"""The asyncio face: what it refuses, what it announces, and how it ends."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.manager.store.raft import (
    MAX_COMMAND_BYTES,
    CommandTooLarge,
    Member,
    MembershipConflict,
    NotLeader,
    OutcomeUnknown,
    RaftNode,
    RaftTiming,
    Role,
)
from tests.integration.raft.trio import free_address, until
from tests.unit.manager.raft.group import POISON
from tests.unit.manager.raft.mended import Values

TIMING = RaftTiming(election_min_s=0.1, election_max_s=0.2, heartbeat_s=0.03, tick_s=0.01, propose_timeout_s=15.0)


class Lone:
    """The only member of its cluster, or one whose other members never answer."""

    def __init__(self, folder, others=(), **options):
        self.me = Member("n1.a", free_address())
        self.machine, self.told = Values(), []
        self.node = RaftNode(
            me=self.me, members=[self.me, *others], machine=self.machine, directory=folder, tls=None, timing=TIMING,
            on_ready=lambda term: self.told.append(("ready", term)), on_role=lambda role: self.told.append(role),
            on_members=lambda members: self.told.append(members), **options,
        )

    async def __aenter__(self):
        await self.node.start()
        return self

    async def __aexit__(self, *_):
        await self.node.stop()


async def test_a_founder_leads_and_says_when_it_is_ready(tmp_path):
    async with Lone(tmp_path) as lone:
        await lone.node.wait_for(lambda: lone.node.is_ready)
        await until(lambda: ("ready", lone.node.term) in lone.told)
        assert Role.LEADER in lone.told and (lone.me,) in lone.told
        assert await lone.node.propose(b"x") == b"x"
        await lone.node.read_barrier()
        assert lone.machine.values == [b"x"]


async def test_what_was_written_is_there_after_a_restart(tmp_path):
    async with Lone(tmp_path) as lone:
        await lone.node.wait_for(lambda: lone.node.is_ready)
        await asyncio.gather(*(lone.node.propose(b"%d" % n) for n in range(100)))
        syncs = lone.node.stats()["syncs"]
    assert syncs < 50, "proposals of one pass of the loop share a sync"
    async with Lone(tmp_path) as again:
        await again.node.wait_for(lambda: again.node.is_ready)
        assert again.machine.values == [b"%d" % n for n in range(100)]


async def test_a_command_that_is_too_large_is_refused_at_the_door(tmp_path):
    async with Lone(tmp_path) as lone:
        await lone.node.wait_for(lambda: lone.node.is_ready)
        with pytest.raises(CommandTooLarge, match=f"has {MAX_COMMAND_BYTES + 1} bytes, {MAX_COMMAND_BYTES} are"):
            await lone.node.propose(b"x" * (MAX_COMMAND_BYTES + 1))
        assert await lone.node.propose(b"x" * MAX_COMMAND_BYTES)


async def test_a_command_that_cannot_be_applied_is_answered_and_harms_nothing(tmp_path):
    async with Lone(tmp_path) as lone:
        await lone.node.wait_for(lambda: lone.node.is_ready)
        assert "a poisoned command" in (await lone.node.propose(POISON)).error
        assert await lone.node.propose(b"after") == b"after"


async def test_without_a_majority_nothing_is_promised(tmp_path):
    async with Lone(tmp_path, [Member("n2.a", free_address()), Member("n3.a", free_address())]) as lone:
        for call in (lone.node.propose(b"x"), lone.node.read_barrier(), lone.node.add_member(lone.me),
                     lone.node.transfer_leadership()):
            with pytest.raises(NotLeader, match="there is no leader just now; try again"):
                await call


async def test_what_had_not_begun_at_the_stop_is_answered_at_once(tmp_path):
    async with Lone(tmp_path) as lone:
        await lone.node.wait_for(lambda: lone.node.is_ready)
        proposing = asyncio.create_task(lone.node.propose(b"x"))
        await asyncio.sleep(0)
        await lone.node.stop()
        async with asyncio.timeout(TIMING.propose_timeout_s / 2):
            with pytest.raises((NotLeader, OutcomeUnknown)):
                await proposing
        with pytest.raises(OutcomeUnknown, match="not running"):
            await lone.node.propose(b"y")


async def test_the_office_cannot_be_handed_to_nobody(tmp_path):
    async with Lone(tmp_path) as lone:
        await lone.node.wait_for(lambda: lone.node.is_ready)
        with pytest.raises(MembershipConflict, match="no other manager is linked and up to date"):
            await lone.node.transfer_leadership()
        assert await lone.node.propose(b"goes on") == b"goes on"


DYING = """
import asyncio, errno, logging, pathlib, sys
from shoal.manager.store.raft import RaftNode
from shoal.manager.store.raft.disk import Disk
from tests.unit.manager.raft.test_node import TIMING, Member, Values, free_address

class Broken(Disk):
    broken = False

    def sync(self, fd):
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(fd)

async def main():
    me, disk = Member("n1.a", free_address()), Broken()
    node = RaftNode(me=me, members=[me], machine=Values(), directory=pathlib.Path(sys.argv[1]), tls=None,
                    timing=TIMING, disk=disk)
    await node.start()
    await node.wait_for(lambda: node.is_ready)
    disk.broken = True
    await node.propose(b"x")
    print("acknowledged")

asyncio.run(main())
"""


def test_an_error_of_the_disk_ends_the_process_before_anything_is_acknowledged(tmp_path):
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path)], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parents[4], timeout=60)
    assert (done.returncode, done.stdout) == (70, ""), done.stderr
    assert "cannot be written: [Errno 5] Input/output error. Make room or mend the disk" in done.stderr


async def test_a_port_that_is_taken_is_an_error_at_once(tmp_path):
    async with Lone(tmp_path / "1") as lone:
        other = Lone(tmp_path / "2", listen=lone.me.address)
        with pytest.raises(OSError, match="in use"):
            await other.node.start()
        await other.node.stop()
