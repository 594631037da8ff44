"""A manager's Raft node: `Consensus` on an event loop, over TLS, with asyncio's manners.

Messages and proposals each ask for a turn; those of one pass of the event loop
share it, and with it one write to disk and one round of messages.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from shoal.api.errors import Overloaded
from shoal.manager.store.raft import frames, membership
from shoal.manager.store.raft.consensus import Consensus, Done
from shoal.manager.store.raft.disk import Disk
from shoal.manager.store.raft.journal import Journal, exit_process
from shoal.manager.store.raft.library import now
from shoal.manager.store.raft.nouns import (
    KIND_COMMAND,
    MAX_COMMAND_BYTES,
    CommandTooLarge,
    Member,
    Members,
    OutcomeUnknown,
    RaftTiming,
    Role,
    StateMachine,
    TlsContexts,
)
from shoal.manager.store.raft.recovery import JOURNAL_NAME
from shoal.manager.store.raft.snapshot import Snapshots
from shoal.manager.store.raft.transport import Transport

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 20_000
"""Proposals that wait for their result; one more is refused."""


def _ignore(_: object) -> None:
    """The default of every callback."""


class _Seen(NamedTuple):
    """What the callbacks were last told."""

    role: Role = Role.FOLLOWER
    leader_id: str | None = None
    ready_in: int | None = None  # the term
    members: Members = ()
    removed: bool = False


class RaftNode:
    """One voter, or one that waits to be added.

    Everything runs on the event loop of `start`; callbacks are called there,
    after the turn in which something changed.
    """

    def __init__(
        self,
        *,
        me: Member,
        members: Sequence[Member],
        machine: StateMachine,
        directory: Path,
        tls: TlsContexts | None,
        timing: RaftTiming | None = None,
        listen: str | None = None,
        on_role: Callable[[Role], None] = _ignore,
        on_leader: Callable[[str | None], None] = _ignore,
        on_ready: Callable[[int], None] = _ignore,
        on_members: Callable[[Members], None] = _ignore,
        on_removed: Callable[[], None] = lambda: None,
        fatal: Callable[[str], Any] = exit_process,
        seal: frames.Seal = frames.PLAIN,
        disk: Disk | None = None,
    ) -> None:
        """`members` counts for an empty directory only: [me] founds a cluster; the present members, without me,
        make a joiner that waits until the leader has added it.

        `on_ready(term)`: leader, and everything ever acknowledged is applied here.
        `tls` None is for tests: nobody is verified.
        """
        self.me, self._founders, self._machine, self._directory = me, tuple(members), machine, directory
        self._timing, self._fatal, self._seal, self._disk = timing or RaftTiming(), fatal, seal, disk
        self._on_role, self._on_leader, self._on_ready = on_role, on_leader, on_ready
        self._on_members, self._on_removed = on_members, on_removed
        self._transport = Transport(me, tls, on_message=self._receive, on_link=self._link, listen=listen)
        self._consensus: Consensus | None = None
        self._disk_thread = ThreadPoolExecutor(1, thread_name_prefix="raft-disk")
        self._turn_asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight = 0
        self._seen = _Seen()
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self.longest_turn_s = 0.0

    # --- life ---

    async def start(self) -> None:
        """Read the disk, listen, take part. Raises CorruptStorage, OSError."""
        self._loop = asyncio.get_running_loop()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = Journal(self._directory / JOURNAL_NAME, self.me.id, self._founders, disk=self._disk,
                          seal=self._seal, fatal=self._fatal)
        self._consensus = Consensus(
            me=self.me.id, network=self._transport, journal=journal,
            snapshots=Snapshots(self._directory, disk=self._disk, seal=self._seal),
            machine=self._machine, timing=self._timing, offload=self._offload, fatal=self._fatal,
        )
        await self._transport.start()
        if [m.id for m in self.members] == [self.me.id]:
            self._consensus.election_at = now()  # alone there is nobody to wait for
        self._on_timer()

    async def stop(self) -> None:
        """Leave the network and close the files. What is under way gets OutcomeUnknown. Twice does no harm."""
        consensus, self._consensus = self._consensus, None
        if self._timer is not None:
            self._timer.cancel()
        await self._transport.stop()
        if consensus is not None:
            await asyncio.get_running_loop().run_in_executor(self._disk_thread, lambda: None)  # what was begun there
            consensus.abort_waiting(OutcomeUnknown("this manager stops; repeat with the same request id"))
            consensus.close()
        for _, future in self._conditions:
            future.cancel()
        self._disk_thread.shutdown(wait=False)

    def _on_timer(self) -> None:
        self._timer = self._loop.call_later(self._timing.tick_s, self._on_timer)
        self._turn()

    def _ask_turn(self) -> None:
        if not self._turn_asked:
            self._turn_asked = True
            self._loop.call_soon(self._asked_turn)

    def _asked_turn(self) -> None:
        self._turn_asked = False
        self._turn()

    def _turn(self) -> None:
        if self._consensus is None:
            return
        began = self._loop.time()
        try:
            self._consensus.tick()
            if self._consensus.busy:
                self._ask_turn()
        except Exception as error:  # a bug here must not leave a member that half works
            log.critical("raft turn failed", exc_info=True)
            self._fatal(f"raft turn failed: {error!r}")
        self.longest_turn_s = max(self.longest_turn_s, self._loop.time() - began)
        self._announce()

    def _offload(self, work: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        future = self._loop.run_in_executor(self._disk_thread, work)

        def finished(finished: asyncio.Future[None]) -> None:
            if self._consensus is not None and not finished.cancelled():
                error = finished.exception()
                done(error if isinstance(error, Exception) else None)
                self._ask_turn()

        future.add_done_callback(finished)

    def _receive(self, peer: str, message: dict[str, Any]) -> None:
        if self._consensus is not None:
            self._consensus.deliver(peer, message)
            self._ask_turn()

    def _link(self, peer: str, up: bool) -> None:
        if self._consensus is not None:
            (self._consensus.link_up if up else self._consensus.link_down)(peer)
            self._ask_turn()

    def _announce(self) -> None:
        """Tell whoever wants to know what this turn changed."""
        was = self._seen
        now = self._seen = _Seen(self.role, self.leader_id, self.term if self.is_ready else None, self.members,
                                 self.is_removed)
        if now.role != was.role:
            self._on_role(now.role)
        if now.leader_id != was.leader_id:
            self._on_leader(now.leader_id)
        if now.members != was.members:
            self._on_members(now.members)
        if now.ready_in not in (None, was.ready_in):
            self._on_ready(self.term)
        if now.removed and not was.removed:
            self._on_removed()
        for condition, future in [pair for pair in self._conditions if pair[0]()]:
            self._conditions.remove((condition, future))
            if not future.done():
                future.set_result(None)

    # --- writes and reads ---

    async def propose(self, command: bytes) -> Any:
        """Append a command; returns apply's result once it is committed and applied here.

        Raises NotLeader (nothing happened), CommandTooLarge, Overloaded, and
        OutcomeUnknown (leader lost or too slow): repeat with the same request id.
        """
        if len(command) > MAX_COMMAND_BYTES:
            raise CommandTooLarge(f"the command has {len(command)} bytes, {MAX_COMMAND_BYTES} are allowed: split it")
        if self._in_flight >= MAX_IN_FLIGHT:
            raise Overloaded(f"{MAX_IN_FLIGHT} commands wait already; try again")
        self._in_flight += 1
        try:
            return await self._call(lambda done: self._running.propose(KIND_COMMAND + command, done))
        finally:
            self._in_flight -= 1

    async def read_barrier(self) -> None:
        """Afterwards the local state has every write that was acknowledged before the call. Raises NotLeader,
        OutcomeUnknown (no majority answers)."""
        await self._call(self._running.read)

    async def _call(self, begin: Callable[[Done], None]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: Exception | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        begin(done)
        self._ask_turn()
        try:
            async with asyncio.timeout(self._timing.propose_timeout_s):
                return await future
        except TimeoutError as error:
            raise OutcomeUnknown(f"no answer of a majority in {self._timing.propose_timeout_s} s; "
                                 "repeat with the same request id") from error

    # --- members ---

    async def add_member(self, member: Member) -> None:
        """Make it a voter. Raises NotLeader, MembershipConflict, OutcomeUnknown."""
        await self._change(lambda members: membership.with_member(members, member))

    async def remove_member(self, member_id: str) -> None:
        """Take its vote, and tell it. Not the leader itself: transfer first. Raises as `add_member`."""
        await self._change(lambda members: membership.without_member(members, member_id))

    async def update_address(self, member: Member) -> None:
        """The same member at another address. Raises as `add_member`."""
        await self._change(lambda members: membership.with_address(members, member))

    async def _change(self, change: Callable[[Members], Members]) -> None:
        await self._call(lambda done: self._running.change_members(change, done))

    async def transfer_leadership(self, to: str | None = None) -> None:
        """Hand the office to a follower and wait until we are out of it. Commands wait meanwhile.

        Raises NotLeader, MembershipConflict (nobody is able), OutcomeUnknown (it did not take over).
        """
        node, limit_s = self._running, 2 * self._timing.election_max_s
        if not node.is_leading():
            raise node.not_leader()
        node.holding = True
        try:
            async with asyncio.timeout(limit_s):
                await self.wait_for(lambda: not node.is_leading() or node.able_successors(to) != [])
                if node.is_leading():
                    node.transfer(to)
                    await self.wait_for(lambda: not node.is_leading())
        except TimeoutError as error:
            if not node.able_successors(to):
                raise node.no_successor(to) from error
            raise OutcomeUnknown(f"leadership was not taken over in {limit_s} s") from error
        finally:
            node.holding = False
            self._ask_turn()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until a condition on this node holds; it is looked at after each turn."""
        if condition():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._conditions.append((condition, future))
        try:
            await future
        finally:
            if (condition, future) in self._conditions:
                self._conditions.remove((condition, future))

    # --- what is ---

    @property
    def _running(self) -> Consensus:
        if self._consensus is None:
            raise OutcomeUnknown("this manager's Raft node is not running")
        return self._consensus

    @property
    def timing(self) -> RaftTiming:
        return self._timing

    @property
    def role(self) -> Role:
        return Role(self._consensus.state) if self._consensus else Role.FOLLOWER

    @property
    def is_leader(self) -> bool:
        return self.role is Role.LEADER

    @property
    def is_ready(self) -> bool:
        """Leader with its no-op applied."""
        return self._consensus is not None and self._consensus.is_ready()

    @property
    def is_removed(self) -> bool:
        """Told by the cluster that it is no member any more."""
        return self._consensus is not None and self._consensus.removed

    @property
    def leader_id(self) -> str | None:
        leader = self._consensus.leader if self._consensus else None
        return str(leader.id) if leader is not None else None

    @property
    def term(self) -> int:
        return self._consensus.term if self._consensus else 0

    @property
    def commit_index(self) -> int:
        return self._consensus.commit_index if self._consensus else 0

    @property
    def applied_index(self) -> int:
        return self._consensus.last_applied if self._consensus else 0

    @property
    def members(self) -> Members:
        """The latest configuration in the log."""
        return self._consensus.members if self._consensus else self._founders

    def silence_s(self, member_id: str) -> float:
        """For how long this leader has not heard of a member; infinite where it cannot know."""
        if self._consensus is None or not self.is_leader:
            return math.inf
        heard = (at for node, at in self._consensus.answered_at.items() if node.id == member_id)
        return now() - next(heard, -math.inf)

    def compact(self) -> None:
        """Make a snapshot soon, due or not."""
        self._running.request_compaction()
        self._ask_turn()

    def stats(self) -> dict[str, Any]:
        """Figures for operators and tests."""
        node = self._running
        return {
            "id": self.me.id, "role": self.role.name.lower(), "leader": self.leader_id, "ready": self.is_ready,
            "term": self.term, "commit_index": self.commit_index, "applied_index": self.applied_index,
            "first_index": node.log[0][1], "last_index": node.log[-1][1], "snapshot_index": node.snapshot_index,
            "journal_bytes": node.log.bytes, "syncs": node.log.syncs, "in_flight": self._in_flight,
            "longest_turn_s": self.longest_turn_s,
            "members": {m.id: m.address for m in self.members},
            "linked": sorted(n.id for n in node.linked),
        }
