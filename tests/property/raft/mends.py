"""The mends by name, and how the world behaves without one of them: as the library does.

Tests alone use this. Each entry subclasses the production class at the hook
where the mend lives, and puts back what was there before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pysyncobj import SyncObj

from shoal.manager.store.raft import frames
from shoal.manager.store.raft.consensus import Consensus
from shoal.manager.store.raft.guard import Guard
from shoal.manager.store.raft.journal import Journal
from shoal.manager.store.raft.nouns import KIND_COMMAND


class Mends:
    """All on."""

    consensus: type[Consensus] = Consensus
    journal: type[Journal] = Journal


def without(name: str) -> Mends:
    """All but one."""
    mends = Mends()
    change = OFF[name]
    if issubclass(change, Journal):
        mends.journal = change
    else:
        mends.consensus = change
    return mends


class NoClamp(Consensus):
    """1: a snapshot's heartbeat moves the commit index over entries that nobody compared."""

    def commit_limit(self, leaders: int, verified: int) -> int:
        return leaders


class ManyChanges(Consensus):
    """2: changes of members are not one at a time."""

    def change_allowed(self) -> bool:
        return self.is_ready()


class CutFirst(Consensus):
    """3: the journal is cut before the snapshot is durable."""

    def compact(self) -> None:
        super().compact()
        if self._committing and self._writer is not None:
            position = self._writer.header.index - self.log[0][1]
            if position > 0:
                self.log.deleteEntriesTo(position)


class NoHints(Consensus):
    """4: a late rejection undoes an acknowledgement, and hints jump."""

    def note_answer(self, node: Any, message: dict[str, Any]) -> None:
        following = message["next_node_idx"]
        if message["reset"]:
            self.next_index[node] = following
        if message["success"] and self.match_index[node] < following - 1:
            self.match_index[node], self.next_index[node] = following - 1, following

    def next_hint(self, previous: int) -> int:
        last = self.log[-1][1]
        return last + 1 if previous > last else previous


class NoSync(Journal):
    """5: nothing is synced."""

    def sync(self) -> None:
        disk_sync, self._disk.sync = self._disk.sync, lambda fd: None  # type: ignore[method-assign]
        try:
            super().sync()
        finally:
            self._disk.sync = disk_sync  # type: ignore[method-assign]


class NoTrim(Consensus):
    """6: entries that match are truncated and appended again."""

    def _compare(self, node: Any, message: dict[str, Any]) -> None:
        self.pass_on(node, message)


class InPlace(Journal):
    """7: compaction rewrites the journal where it stands."""

    def rewrite(self) -> None:
        self._disk.close(self._fd)
        self._fd = self._disk.create(self._path)
        first = self.entries[0][1] if self.entries else 0
        base = [(m.id, m.address) for m in self.configurations.at(first)]
        self._pending[:] = [(0, 1, self._owner), (1, first, base), (2, self.term, self.vote), (3, self.commit),
                            *((4, *entry) for entry in self.entries)]
        frame = self._frame(self._pending)
        self._disk.write(self._fd, frame)  # and no sync
        self._pending.clear()
        self.bytes = len(frame)


class StockSizes(Consensus):
    """8: the library's batches of 64 KiB, and its way to split what is larger."""

    def send_entries(self) -> None:
        self.round += 1
        self._asked_round = self.round
        self.conf.appendEntriesBatchSizeBytes = 65536
        for node in self.others & self.linked:
            if self.next_index[node] <= self.log[0][1]:
                self._send_snapshot(node, probe=True)
        behind = {node for node in self.linked if node in self.others and self.next_index[node] <= self.log[0][1]}
        self.linked -= behind
        SyncObj._SyncObj__sendAppendEntries(self)
        self.linked |= behind

    def note_answer(self, node: Any, message: dict[str, Any]) -> None:
        Guard.note_answer(self, node, message)

    def outgoing(self, node: Any, message: dict[str, Any]) -> bool:
        if message["type"] == "append_entries":
            message = {**message, "round": self.round}
        return super().outgoing(node, message)

    def _compare(self, node: Any, message: dict[str, Any]) -> None:
        if "transmission" in message:
            self.pass_on(node, message)
        else:
            super()._compare(node, message)


class PartialApply(Consensus):
    """9: what apply raises goes up."""

    def apply_entry(self, command: bytes, index: int) -> Any:
        return self.machine.apply(index, command[1:]) if command[:1] == KIND_COMMAND else None


class NoChecksum(Journal):
    """10: records are believed."""

    def _read(self, data: bytes) -> int:
        at = 0
        while at + frames.HEAD_BYTES <= len(data):
            end = at + frames.HEAD_BYTES + int.from_bytes(data[at + 4 : at + 8], "little")
            self._replay(data[at + frames.HEAD_BYTES : end])
            at = min(end, len(data))
        return at


class AnyAnswer(Consensus):
    """11: answers of earlier terms count."""

    def is_current(self, term: int) -> bool:
        return True


class Clinging(Consensus):
    """12: a leader without a majority goes on for 30 s, and votes are given while a leader is heard."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.conf.leaderFallbackTimeout = 30.0

    def sticks_to_leader(self) -> bool:
        return False


class NoPreVote(Consensus):
    """A node that is cut off raises its term again and again."""

    def before_election(self) -> None:
        pass

    def begins_election(self) -> bool:
        return bool(self.linked)


class ReadAtOnce(Consensus):
    """A read is answered without asking a majority."""

    def read_round(self) -> int:
        return 0


OFF: dict[str, type[Consensus] | type[Journal]] = {
    "commit-clamp": NoClamp,
    "one-change": ManyChanges,
    "snapshot-first": CutFirst,
    "monotone-hints": NoHints,
    "sync": NoSync,
    "trim": NoTrim,
    "atomic-rewrite": InPlace,
    "sizes": StockSizes,
    "total-apply": PartialApply,
    "checksums": NoChecksum,
    "answer-terms": AnyAnswer,
    "stepping-down": Clinging,
    "pre-vote": NoPreVote,
    "read-index": ReadAtOnce,
}
"""The thirteenth, pickle, has no hook: its codec is installed at import. See the unit tests."""

Scenario = Callable[["Mends"], None]
