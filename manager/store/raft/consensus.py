"""One member of the group: the library's node with every mend, and what we ask of it.

No I/O of its own beyond journal and snapshots, and no asyncio: the network, the
clock and the thread for slow work are given, so that a simulation drives the
very code that runs in production. `RaftNode` is its asyncio side.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
from pysyncobj.node import Node

from shoal.manager.store.raft import membership
from shoal.manager.store.raft.journal import Journal
from shoal.manager.store.raft.library import LEADER, Message, Peer, as_nodes, now, replaces
from shoal.manager.store.raft.nouns import (
    KIND_COMMAND,
    CorruptStorage,
    Member,
    Members,
    MembershipConflict,
    NotLeader,
    OutcomeUnknown,
    RaftTiming,
    StateMachine,
)
from shoal.manager.store.raft.replication import Network, Offload, Replication
from shoal.manager.store.raft.snapshot import Snapshots

log = logging.getLogger(__name__)

Done = Callable[[Any, Exception | None], None]
"""Called once with (result, None) or (None, error)."""

TURN_BYTES = 4 << 20
"""Commands appended in one turn."""
FAREWELLS = 20
"""Heartbeats for which a removed member is still told so."""


class Failed(msgspec.Struct, frozen=True):
    """The result of a command whose apply raised, which it must not. Alike on every member."""

    error: str


class _Read(msgspec.Struct):
    index: int  # applied up to here before the answer
    round: int  # a majority must answer this round of messages or a later one
    done: Done


class Consensus(Replication):
    """See the module. Call `tick` often, `receive` for each message, `linked`/`unlinked` for each link."""

    def __init__(
        self,
        *,
        me: str,
        network: Network,
        journal: Journal,
        snapshots: Snapshots,
        machine: StateMachine,
        timing: RaftTiming,
        offload: Offload,
        fatal: Callable[[str], Any],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """Read what is on disk, and restore the machine. Raises CorruptStorage and OSError."""
        self.network, self.snapshots, self.machine, self.timing = network, snapshots, machine, timing
        self.offload, self._fatal, self._on_change = offload, fatal, on_change
        self._transfers, self._probing, self._forgot = {}, set(), {}
        self._outbox: list[tuple[str, Message]] = []
        self._queue: deque[tuple[bytes, Done]] = deque()
        self._waiting: dict[int, tuple[int, Done]] = {}
        self._reads: list[_Read] = []
        self._asked_round = 0
        self._leaving: dict[str, tuple[Member, int]] = {}
        self._change_queued = False
        self._told = (0, 0)  # (last entry, commit index) that followers were sent
        super().__init__(Peer(me), as_nodes(journal.configurations.latest[1], me), journal, timing)
        self._load()
        journal.on_configuration = self._adopt
        self._adopt()

    def _load(self) -> None:
        found = self.snapshots.read()
        first = self.log[0][1]
        if found is None:
            if first > 1:
                raise CorruptStorage(f"{self.snapshots.path} is missing, and the journal begins at entry {first}: "
                                     "remove this manager from the cluster, delete its folder and join again")
            return
        header, chunks = found
        if first > header.index:
            raise CorruptStorage(f"{self.snapshots.path} ends at entry {header.index}, the journal begins at {first}: "
                                 "remove this manager from the cluster, delete its folder and join again")
        self.machine.restore(chunks)
        self.snapshot_index = header.index
        self.align_journal(header.last, header.members)

    # --- turns ---

    holding = False  # commands wait in the queue while leadership is handed over

    def tick(self) -> None:
        """One turn: elections, commits, applies, appends; then one sync and all that is to be sent."""
        self.before_election()
        self.doTick(0)
        if self.is_leading():
            self._tell_followers()
        self._finish_reads()
        self.flush()
        self._on_change()

    def _tell_followers(self) -> None:
        """Group commit: all that this turn appended, committed and was asked, in one round."""
        news = (self.log[-1][1], self.commit_index)
        if news != self._told or any(read.round > self._asked_round for read in self._reads):
            self.send_entries()
        self._told = news

    def flush(self) -> None:
        """Make the journal durable, then send. The order is the point."""
        self.log.sync()
        outbox, self._outbox = self._outbox, []
        for to, message in outbox:
            self.network.send(to, message)

    @property
    def busy(self) -> bool:
        """Whether another turn is wanted at once."""
        if self.commit_index > self.last_applied or (self._queue and not self.holding) or self.compacting:
            return True
        return bool(self.is_leading() and not self.others and self.commit_index < self.log[-1][1])

    def send_entries(self) -> None:
        super().send_entries()
        self._asked_round = self.round
        self._say_farewell()

    def outgoing(self, node: Node, message: Message) -> bool:
        """Into the outbox; it leaves when the journal is durable."""
        kind = message["type"]
        if kind == "next_node_idx":
            message = {**message, "term": self.term, "round": self._round}
        elif kind == "request_vote" and self.marks_transfer():
            message = {**message, "transfer": True}
        self._outbox.append((node.id, message))
        return True

    # --- links and messages, called by the network ---

    _handlers = {  # noqa: RUF012 - a table
        **Replication._handlers,
        "install_snapshot": "on_install_snapshot",
        "snapshot_answer": "on_snapshot_answer",
        "removed": "on_removed",
    }

    def link_up(self, peer: str) -> None:
        self.linked.add(Peer(peer))

    def link_down(self, peer: str) -> None:
        self.linked.discard(Peer(peer))
        self._granted = self._granted - {peer}  # a yes of whom we do not reach any more

    def deliver(self, peer: str, message: Message) -> None:
        """One message of a verified manager. Raises KeyError, TypeError or ValueError where it is malformed."""
        self.receive(Peer(peer), message)

    def on_fatal(self, reason: str) -> None:
        self._fatal(reason)

    # --- commands ---

    def propose(self, command: bytes, done: Done) -> None:
        """Append on the next turn. `done` gets apply's result, NotLeader (nothing happened) or OutcomeUnknown."""
        if not self.is_leading():
            done(None, self.not_leader())
            return
        self._queue.append((command, done))

    def not_leader(self) -> NotLeader:
        return NotLeader(self.leader.id if self.leader is not None and not self.is_leading() else None)

    @replaces("_checkCommandsToApply")
    def append_proposals(self) -> None:
        """Move the queue into the log, within a turn's bound. Nothing is ever forwarded."""
        size = 0
        while self._queue and size < TURN_BYTES and not (self.holding and self.is_leading()):
            command, done = self._queue.popleft()
            if not self.is_leading():
                done(None, self.not_leader())
                continue
            index = self.log[-1][1] + 1
            self.log.add(command, index, self.term)
            self._waiting[index] = (self.term, done)
            size += len(command)

    @replaces("applyLogEntries")
    def apply_committed(self) -> bool:
        """Apply for one turn's time. False: the library need not send for it."""
        until = now() + self.timing.step_s
        while self.last_applied < self.commit_index:
            entry = self.log.entry(self.last_applied + 1)
            assert entry is not None
            command, index, term = entry
            result = self.apply_entry(command, index)
            self.last_applied = index
            waiting = self._waiting.pop(index, None)
            if waiting is not None:
                self._report(waiting, term, result)
            if index % 16 == 0 and now() > until:
                break
        return False

    def _report(self, waiting: tuple[int, Done], term: int, result: Any) -> None:
        proposed_in, done = waiting
        if proposed_in == term:
            done(result, None)
        else:
            done(None, self.not_leader())  # another entry took its place, so it never happens

    def apply_entry(self, command: bytes, index: int) -> Any:
        """Apply is total. What it raises all the same is its result, alike on every member: the log goes on."""
        if command[:1] != KIND_COMMAND:
            return None
        try:
            return self.machine.apply(index, command[1:])
        except Exception as error:
            log.exception("apply raised, which it must not index=%d", index)
            return Failed(repr(error))

    def _on_state(self, old: int, new: int) -> None:
        """Out of office: what is under way has an unknown outcome."""
        if new == LEADER:
            self.confirmed, self._probing, self._forgot = {}, set(), {}
            self._asking = None  # pre-votes for the next term may have come meanwhile
            self._told = (0, 0)
        if old == LEADER:
            for node in list(self._transfers):
                self._close_transfer(node)
            self._leaving.clear()
            self.abort_waiting(OutcomeUnknown("the leader lost its office; repeat with the same request id"))

    def abort_waiting(self, error: OutcomeUnknown) -> None:
        """Answer everybody who waits for a commit with this, for a read with NotLeader."""
        waiting, self._waiting = self._waiting, {}
        reads, self._reads = self._reads, []
        for _, done in waiting.values():
            done(None, error)
        for read in reads:
            read.done(None, self.not_leader())

    # --- reads ---

    def read(self, done: Done) -> None:
        """ReadIndex: once a majority has confirmed us after this call, and what was committed then is applied."""
        if not self.is_leading():
            done(None, self.not_leader())
            return
        index = max(self.commit_index, self.noop_index or 0)  # before its no-op a leader knows not what is committed
        self._reads.append(_Read(index=index, round=self.read_round(), done=done))

    def read_round(self) -> int:
        """The first round of messages that is sent after now."""
        return self.round + 1

    def _finish_reads(self) -> None:
        if not self._reads:
            return
        confirmed = self.confirmed_round()
        reads, self._reads = self._reads, []
        for read in reads:
            if read.round <= confirmed and read.index <= self.last_applied:
                read.done(None, None)
            else:
                self._reads.append(read)

    def confirmed_round(self) -> int:
        """The newest round that a majority has answered."""
        answers = sorted((self.confirmed.get(node, 0) for node in self.others), reverse=True)
        needed = self.majority() - 1
        return answers[needed - 1] if needed else self.round + 1

    # --- office ---

    def is_ready(self) -> bool:
        """Leader, and its no-op is applied: the machine has all that was ever acknowledged."""
        return bool(self.is_leading() and self.noop_index is not None and self.last_applied >= self.noop_index)

    def able_successors(self, to: str | None) -> list[Node]:
        """Followers that have the whole log; only `to` where it is given."""
        return [node for node in self.others & self.linked
                if self.match_index.get(node, 0) == self.log[-1][1] and to in (None, node.id)]

    def no_successor(self, to: str | None) -> MembershipConflict:
        who = f"{to} is not" if to else "no other manager is"
        return MembershipConflict(f"{who} linked and up to date")

    def transfer(self, to: str | None) -> None:
        """Ask a follower that has everything to take over. Raises NotLeader, MembershipConflict (there is none)."""
        if not self.is_leading():
            raise self.not_leader()
        able = self.able_successors(to)
        if not able:
            raise self.no_successor(to)
        node = max(able, key=lambda node: (self.answered_at.get(node, 0.0), node.id))
        self.outgoing(node, {"type": "timeout_now", "term": self.term})
        self.flush()

    # --- members ---

    @property
    def members(self) -> Members:
        return self.log.configurations.latest[1]

    def change_members(self, change: Callable[[Members], Members], done: Done) -> None:
        """Propose a configuration, one change at a time. Refusals come through `done`."""
        if not self.is_leading():
            done(None, self.not_leader())
            return
        if not self.change_allowed():
            done(None, MembershipConflict("another change of members is under way, or the leader is new; try again"))
            return
        try:
            members = change(self.members)
            if all(m.id != self.selfNode.id for m in members):
                raise MembershipConflict("the leader cannot remove itself; transfer leadership first")
        except MembershipConflict as error:
            done(None, error)
            return
        self._change_queued = True

        def finished(result: Any, error: Exception | None) -> None:
            self._change_queued = False
            done(result, error)

        self.propose(membership.encode_members(members), finished)

    def change_allowed(self) -> bool:
        """One at a time: counted from the moment the entry is appended; and never before the leader's no-op."""
        return (self.is_ready() and not self._change_queued
                and self.log.configurations.latest[0] <= self.commit_index)

    def _adopt(self) -> None:
        """The latest configuration in the log changed: count, send and dial by it from now on."""
        members = self.members
        wanted = as_nodes(members, self.selfNode.id)
        known = {m.id: m for m in self._known}
        for node in self.others - wanted:
            self.next_index.pop(node, None)
            self.match_index.pop(node, None)
            self._close_transfer(node)
            if self.is_leading() and node.id in known:
                self._leaving[node.id] = (known[node.id], FAREWELLS)
        for node in wanted:
            self._leaving.pop(node.id, None)
            if node not in self.match_index:
                self.next_index[node], self.match_index[node] = self.log[-1][1] + 1, 0
                self.answered_at[node] = now()
        self.others = wanted
        self._known = members
        self._publish_addresses()

    _known: Members = ()

    def _publish_addresses(self) -> None:
        self.network.adopt((*self.members, *(member for member, _ in self._leaving.values())))

    def _say_farewell(self) -> None:
        """Tell members whose removal is committed that they are out: nobody else will."""
        if not self._leaving or self.log.configurations.latest[0] > self.commit_index:
            return
        for peer, (member, left) in list(self._leaving.items()):
            self.outgoing(Peer(peer), {"type": "removed", "term": self.term})
            if left > 1:
                self._leaving[peer] = (member, left - 1)
            else:
                del self._leaving[peer]
                self._publish_addresses()

    def on_removed(self, node: Node, message: Message) -> None:
        """We are no member any more: never campaign again."""
        if message["term"] >= self.term and not self.is_leading() and not self.removed:
            self.removed = True
            log.warning("this manager was removed from the cluster member=%s", self.selfNode.id)

    def close(self) -> None:
        """Sync and close what is open. What was not appended yet never happens."""
        queue, self._queue = self._queue, deque()
        for _, done in queue:
            done(None, NotLeader())
        for node in list(self._transfers):
            self._close_transfer(node)
        self._abandon_writer()
        self._drop_receiver()
        self.destroy_library()
