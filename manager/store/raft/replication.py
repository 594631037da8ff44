"""How the leader sends its log and its snapshot, and how snapshots are made and taken over.

All in short turns: entries go out in bounded batches within a bounded backlog,
snapshots are encoded, sent and restored piece by piece, and files are synced in
a thread (`offload`). The library's own versions of these are not used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from pysyncobj.node import Node

from shoal.manager.store.raft.guard import Guard
from shoal.manager.store.raft.library import Message, now, replaces
from shoal.manager.store.raft.nouns import Entry, Members, RaftTiming, StateMachine
from shoal.manager.store.raft.snapshot import Header, Outgoing, Receiver, Snapshots, Writer

log = logging.getLogger(__name__)

BATCH_BYTES = 1 << 20
"""A message with entries is closed at this size; one entry more may be in it (a command has at most as much)."""
BACKLOG_BYTES = 8 << 20
"""Where more than this waits in a link, nothing is added."""
WINDOW_BYTES = 2 << 20
"""Of a snapshot, sent and not yet acknowledged."""
LOSSES = 20
"""Rejections after which a follower is known to have lost entries: two seconds of heartbeats."""
ENTRY_BYTES = 16
TRAILING_BYTES = 4 << 20


class Network(Protocol):
    """What carries messages, by member id."""

    def send(self, to: str, message: Message) -> bool:
        """Whether there is a link. It may be lost all the same."""
        ...

    def backlog(self, to: str) -> int:
        """Bytes that wait in the link."""
        ...

    def adopt(self, members: Members) -> None:
        """The address book changed."""
        ...


class Offload(Protocol):
    """Runs blocking work elsewhere, in order, then calls `done` on the loop with its error or None."""

    def __call__(self, work: Callable[[], None], done: Callable[[Exception | None], None]) -> None: ...


class Replication(Guard):
    """Sending and snapshots. The constructor of `Consensus` sets the attributes."""

    machine: StateMachine
    snapshots: Snapshots
    timing: RaftTiming
    network: Network
    offload: Offload
    snapshot_index = 0
    round = 0  # number of the newest round of messages to all; answers echo it
    _writer: Writer | None = None
    _committing = False
    _receiver: Receiver | None = None
    _transfers: dict[Node, Outgoing]
    _compact_now = False
    batch_bytes = BATCH_BYTES
    _probing: set[Node]  # followers that rejected, and have accepted nothing since
    _forgot: dict[Node, int]  # how often they rejected what they had acknowledged, since they accepted something

    # --- sending ---

    @replaces("sendAppendEntries")
    def send_entries(self) -> None:
        """Send every linked follower what it lacks, a heartbeat if nothing."""
        self.heartbeat_due = now() + float(self.conf.appendEntriesPeriod)
        self.round += 1
        for node in self.others & self.linked:
            if self.next_index[node] > self.log[0][1]:
                self._close_transfer(node)
                self._send_log(node)
            else:
                self._send_snapshot(node, probe=True)

    def _send_log(self, node: Node) -> None:
        """At least one message, for it is the heartbeat too; entries while there is room in the link.

        After a rejection it carries none until the follower has accepted where they go: each of the messages that
        were under way is rejected too, and must not have the whole log sent again.
        """
        room = 0 if node in self._probing else BACKLOG_BYTES - self.network.backlog(node.id)
        more = True
        while more:
            start = self.next_index[node]
            previous = self.log.entry(start - 1)
            assert previous is not None
            entries = self._batch(start) if room > 0 else []
            room -= sum(len(entry[0]) for entry in entries) + ENTRY_BYTES
            self.next_index[node] = start + len(entries)
            more = room > 0 and self.next_index[node] <= self.log[-1][1]
            self.outgoing(node, {
                "type": "append_entries", "term": self.term, "commit_index": self.commit_index, "round": self.round,
                "prevLogIdx": previous[1], "prevLogTerm": previous[2], "entries": entries,
            })

    def _batch(self, start: int) -> list[Entry]:
        entries, size = [], 0
        for position in range(start - self.log[0][1], len(self.log)):
            entry = self.log[position]
            entries.append(entry)
            size += len(entry[0]) + ENTRY_BYTES
            if size >= self.batch_bytes:
                break
        return entries

    def note_answer(self, node: Node, message: Message) -> None:
        tried = self.next_index[node]
        super().note_answer(node, message)
        if message["success"]:
            self._probing.discard(node)
            self._forgot.pop(node, None)
        elif message["reset"]:
            self._probing.add(node)
            if message["next_node_idx"] <= self.match_index[node]:
                self._note_loss(node)
            if self.next_index[node] >= tried:
                return  # nothing else to try; the next heartbeat asks again
        behind = self.log[0][1] < self.next_index[node] <= self.log[-1][1]
        if behind and node in self.linked and self.network.backlog(node.id) < BACKLOG_BYTES // 2:
            self._send_log(node)

    def _note_loss(self, node: Node) -> None:
        """It rejects what it acknowledged. Once or twice, messages overtook each other; again and again, it lost it."""
        self._forgot[node] = times = self._forgot.get(node, 0) + 1
        if times == LOSSES:
            log.error("member lacks entries that it had acknowledged: its folder was restored from a copy, or its disk "
                      "loses what was synced. Remove it from the cluster, delete its folder and join again "
                      "member=%s", node.id)

    # --- sending a snapshot ---

    def _send_snapshot(self, node: Node, *, probe: bool) -> None:
        """The next pieces. A probe asks the follower how far it is: it is our heartbeat meanwhile."""
        transfer = self._transfer(node)
        if transfer is None:
            self.outgoing(node, {"type": "append_entries", "term": self.term, "commit_index": self.commit_index,
                                 "round": self.round})
            return
        sent = False
        while transfer.sent < transfer.size and transfer.sent - transfer.acked < WINDOW_BYTES:
            self._send_piece(node, transfer, *transfer.read())
            sent = True
        if probe and not sent:
            self._send_piece(node, transfer, transfer.sent, b"")

    def _send_piece(self, node: Node, transfer: Outgoing, offset: int, data: bytes) -> None:
        self.outgoing(node, {
            "type": "install_snapshot", "term": self.term, "commit_index": self.commit_index, "round": self.round,
            "snapshot": transfer.identity, "size": transfer.size, "offset": offset, "data": data,
            "attempt": transfer.attempt,
        })

    def _transfer(self, node: Node) -> Outgoing | None:
        transfer = self._transfers.get(node)
        if transfer is not None and transfer.identity[0] < self.log[0][1]:  # the log was cut further meanwhile
            self._close_transfer(node)
            transfer = None
        if transfer is None:
            try:
                transfer = self._transfers[node] = self.snapshots.open()
            except OSError as error:
                log.error("snapshot cannot be sent member=%s error=%s", node.id, error)
        return transfer

    def _close_transfer(self, node: Node) -> None:
        transfer = self._transfers.pop(node, None)
        if transfer is not None:
            transfer.close()

    def on_snapshot_answer(self, node: Node, message: Message) -> None:
        """How far the follower is; lost pieces are sent again from there."""
        if message["term"] > self.term:
            self.step_down(message["term"])
            return
        if message["term"] != self.term or not self.is_leading() or node not in self.match_index:
            return
        self.answered_at[node] = now()
        self.confirmed[node] = max(self.confirmed.get(node, 0), message["round"])
        transfer = self._transfers.get(node)
        about = (tuple(message["snapshot"]), message["attempt"])
        if transfer is None or about != (transfer.identity, transfer.attempt):
            return
        transfer.acked = message["received"]
        if transfer.acked != message["expected"]:
            transfer.sent, transfer.attempt = transfer.acked, transfer.attempt + 1
        self._send_snapshot(node, probe=False)

    # --- taking over a snapshot ---

    def on_install_snapshot(self, node: Node, message: Message) -> None:
        if not self._accept_leader(node, message):
            return
        self.follow(node, message, self.commit_index)
        if message["snapshot"][0] <= self.commit_index:  # never one that is older than what is committed here
            self._drop_receiver()
            self.answer(node, self.commit_index + 1, success=True)
            return
        receiver = self._receiver_for(message)
        if receiver is None:
            return
        if message["offset"] == receiver.received and message["data"] and not receiver.installing:
            self._take_piece(receiver, message["data"])
        self.outgoing(node, {
            "type": "snapshot_answer", "term": self.term, "round": self._round, "snapshot": message["snapshot"],
            "attempt": message["attempt"], "received": receiver.received,
            "expected": message["offset"] + len(message["data"]),
        })

    def _receiver_for(self, message: Message) -> Receiver | None:
        identity = tuple(message["snapshot"])
        if self._receiver is not None and self._receiver.identity != identity:
            if self._receiver.installing:
                return None
            self._drop_receiver()
        if self._receiver is None:
            try:
                self._receiver = Receiver(self.snapshots, (identity[0], identity[1]), message["size"],
                                          self.machine.restoring())
            except OSError as error:
                self.on_fatal(f"a snapshot from the leader cannot be stored: {error}")
        return self._receiver

    def _take_piece(self, receiver: Receiver, data: bytes) -> None:
        try:
            whole = receiver.take(data)
        except OSError as error:
            self.on_fatal(f"a snapshot from the leader cannot be stored: {error}")
            return
        except ValueError as error:  # its own file is damaged, or it speaks a newer schema
            log.error("snapshot from the leader is not understood error=%s", error)
            self._drop_receiver()
            return
        if whole:
            receiver.installing = True
            self._abandon_writer()
            self.offload(receiver.commit, lambda error: self._received(receiver, error))

    def _drop_receiver(self) -> None:
        if self._receiver is not None and not self._receiver.installing:
            self._receiver.abandon()
            self._receiver = None

    def _received(self, receiver: Receiver, error: Exception | None) -> None:
        """The snapshot is durable: swap the state, then the journal."""
        self._receiver = None
        if error is not None:
            self.on_fatal(f"a snapshot from the leader cannot be stored: {error}")
            return
        header = receiver.header
        self.snapshot_index = header.index
        if header.index <= self.commit_index and self.log.entry(header.index) is not None:
            return
        self.machine.install(receiver.state)
        self.align_journal(header.last, header.members)
        log.info("snapshot installed index=%d", header.index)
        if self.leader is not None and not self.is_leading():
            self._round = 0
            self.answer(self.leader, header.index + 1, success=True)

    def align_journal(self, last: Entry, members: Members) -> None:
        """Make the log follow the snapshot: keep what lies behind its last entry, where it is the same entry."""
        known = self.log.entry(last[1])
        if known is None or known[2] != last[2]:
            self.log.restart(last, members)
        self.last_applied = max(self.last_applied, last[1])
        self.commit_index = max(self.commit_index, last[1])
        self.log.setRaftCommitIndex(self.commit_index)

    # --- making a snapshot ---

    @replaces("tryLogCompaction")
    def compact(self) -> None:
        """One turn of the snapshot under way, or begin one when it is due."""
        if self._writer is None:
            if self._compaction_due():
                self._begin_snapshot()
            return
        if self._committing:
            return
        until = now() + self.timing.step_s
        try:
            while not self._writer.encoded and now() < until:
                self._writer.step()
        except OSError as error:
            log.error("snapshot failed, trying again later error=%s", error)
            self._abandon_writer()
            return
        if self._writer.encoded:
            self._committing = True
            writer = self._writer
            self.offload(writer.commit, lambda error: self._compacted(writer, error))

    @property
    def compacting(self) -> bool:
        """Whether the next turn has encoding to do."""
        return self._writer is not None and not self._committing

    def request_compaction(self) -> None:
        self._compact_now = True

    def _compaction_due(self) -> bool:
        if self._receiver is not None or self.last_applied <= max(self.snapshot_index, self.log[0][1]):
            return False
        return (self._compact_now or self.last_applied - self.snapshot_index > self.timing.compact_entries
                or self.log.bytes > self.timing.compact_bytes)

    def _begin_snapshot(self) -> None:
        self._compact_now = False
        last = self.log.entry(self.last_applied)
        assert last is not None
        header = Header(last, self.log.configurations.at(last[1]))
        try:
            self._writer = Writer(self.snapshots, header, self.machine.snapshot())
        except OSError as error:
            log.error("snapshot cannot be begun error=%s", error)

    def _abandon_writer(self) -> None:
        if self._writer is not None and not self._committing:
            self._writer.abandon()
            self._writer = None

    def _compacted(self, writer: Writer, error: Exception | None) -> None:
        """The snapshot is durable: only now is the journal cut."""
        self._writer, self._committing = None, False
        if error is not None:
            log.error("snapshot failed, trying again later error=%s", error)
            return
        self.snapshot_index = max(self.snapshot_index, writer.header.index)
        self.cut_journal(writer.header.index)

    def cut_journal(self, snapshot_index: int) -> None:
        """Drop what the snapshot holds, but for a few entries that slow followers may still want."""
        position = snapshot_index - self.log[0][1]
        size = 0
        for _ in range(self.timing.trailing_entries):
            if position <= 0:
                return
            size += len(self.log[position][0])
            if size > TRAILING_BYTES:
                break
            position -= 1
        if position > 0:
            self.log.deleteEntriesTo(position)
