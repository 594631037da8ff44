"""The write-ahead log: entries, term and vote of one member, safe against power cuts.

One `sync` writes one frame that holds all records since the last, then calls
fdatasync: nothing may be sent before it returns. A frame is written only after
the one before it was synced, so a torn write can be the last frame alone; a bad
frame with a good one behind it is damage, and the node does not start.

It has the methods that the Raft library calls on its journal (their names are
the library's). Crash-only: after an I/O error `fatal` is called and must not return.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, overload

import msgpack  # type: ignore[import-untyped]

from shoal.manager.store.raft import frames
from shoal.manager.store.raft.disk import Disk
from shoal.manager.store.raft.membership import Configurations
from shoal.manager.store.raft.nouns import CorruptStorage, Entry, Member, Members

log = logging.getLogger(__name__)

SCHEMA = 1
REWRITE_STEP = 128
"""Records in one frame of a rewritten journal: at most 128 MiB, well under a frame's limit."""

OWNER, BASE, HARD, COMMIT, ENTRY, TRUNCATE, CLEAR = range(7)


def exit_process(reason: str) -> NoReturn:
    """Stop at once, acknowledging nothing more. The supervisor starts us again."""
    log.critical("raft stops this process: %s", reason)
    logging.shutdown()
    os._exit(70)


class Journal:
    """See the module. `entries` is never empty once the library has started."""

    def __init__(
        self,
        path: Path,
        owner: str,
        founders: Iterable[Member],
        *,
        disk: Disk | None = None,
        seal: frames.Seal = frames.PLAIN,
        fatal: Callable[[str], Any] = exit_process,
    ) -> None:
        """Read `path`, or found it: `owner` is the id of this member, `founders` hold until the log says otherwise.

        Raises CorruptStorage (damaged, or another member's) and OSError.
        """
        self._path, self._owner, self._seal, self._fatal = path, owner, seal, fatal
        self._disk = disk or Disk()
        self.entries: list[Entry] = []
        self.configurations = Configurations(0, tuple(founders))
        self.on_configuration: Callable[[], None] = lambda: None
        self.term, self.commit = 0, 1
        self.vote: str | None = None
        self.syncs = 0
        self.bytes = 0  # of the file
        self._pending: list[tuple[Any, ...]] = []
        self._commit_written = 1
        self._fd = self._open()

    # --- reading ---

    def _open(self) -> int:
        data = self._path.read_bytes() if self._path.exists() else b""
        self.bytes = self._read(data)
        if self.bytes == 0:
            self._pending.append((OWNER, SCHEMA, self._owner))
            self._pending.append(self._base_record())
        fd = self._disk.open_at(self._path, self.bytes)
        self._disk.sync_folder(self._path.parent)
        return fd

    def _read(self, data: bytes) -> int:
        """Replay; the number of good bytes."""
        reader, reason = frames.Reader(self._seal), "the record is cut short"
        try:
            for payload in reader.feed(data):
                self._replay(payload)
        except frames.BadFrame as error:
            reason = str(error)
        good = reader.consumed
        if good == len(data):
            return good
        if frames.frame_follows(data, good, self._seal):
            raise CorruptStorage(
                f"journal {self._path}: bad record at byte {good} ({reason}) with good ones behind it, so this is no "
                "torn write: the disk has damaged it. Do not cut it. Remove this manager from the cluster, delete "
                f"{self._path.parent} and join again; where no other manager is left, restore a copy of the folder"
            )
        log.warning("journal has a torn tail, cut path=%s at=%d bytes=%d", self._path, good, len(data) - good)
        return good

    def _replay(self, payload: bytes) -> None:
        for record in msgpack.Unpacker(_Bytes(payload), use_list=False, raw=False, max_buffer_size=0):
            kind, *values = record
            if kind == OWNER:
                self._check_owner(*values)
            elif kind == BASE:
                self.configurations = Configurations(values[0], tuple(Member(*pair) for pair in values[1]))
            elif kind == HARD:
                self.term, self.vote = values
            elif kind == COMMIT:
                self.commit = self._commit_written = values[0]
            elif kind == ENTRY:
                self._append((values[0], values[1], values[2]))
            elif kind == TRUNCATE:
                self._truncate(values[0])
            elif kind == CLEAR:
                self.entries.clear()

    def _check_owner(self, schema: int, owner: str) -> None:
        if schema > SCHEMA:
            raise CorruptStorage(f"journal {self._path} is of schema {schema}; this version reads up to {SCHEMA}")
        if owner != self._owner:
            raise CorruptStorage(f"journal {self._path} belongs to member {owner}, this is {self._owner}: "
                                 "give each member a folder of its own")

    # --- writing ---

    @property
    def dirty(self) -> bool:
        """Whether `sync` has something to do."""
        return bool(self._pending)

    def sync(self) -> None:
        """Make all that was recorded durable. Does not return after an I/O error."""
        if not self._pending:
            return
        frame = self._frame(self._pending)
        try:
            self._disk.write(self._fd, frame)
            self._disk.sync(self._fd)
        except OSError as error:
            self._stop(error)
        self._pending.clear()
        self.bytes += len(frame)
        self.syncs += 1

    def _stop(self, error: OSError) -> NoReturn:
        reason = f"journal {self._path} cannot be written: {error}. Make room or mend the disk, then start again"
        self._fatal(reason)
        raise SystemExit(reason)

    def _frame(self, records: Iterable[tuple[Any, ...]]) -> bytes:
        pack = msgpack.Packer(use_bin_type=True).pack
        return frames.pack(b"".join(map(pack, records)), self._seal)

    def _base_record(self) -> tuple[Any, ...]:
        index, members = self.configurations.latest
        return (BASE, index, [(m.id, m.address) for m in members])

    def rewrite(self) -> None:
        """Replace the file by one that holds just what is true now: a new file, synced, then renamed."""
        new = self._path.with_suffix(".new")
        first = self.entries[0][1] if self.entries else 0
        base = [(m.id, m.address) for m in self.configurations.at(first)]
        records: list[tuple[Any, ...]] = [(OWNER, SCHEMA, self._owner), (BASE, first, base),
                                          (HARD, self.term, self.vote), (COMMIT, self.commit)]
        records += [(ENTRY, *entry) for entry in self.entries]
        size = 0
        try:
            fd = self._disk.create(new)
            for start in range(0, len(records), REWRITE_STEP):
                frame = self._frame(records[start : start + REWRITE_STEP])
                self._disk.write(fd, frame)
                size += len(frame)
            self._disk.sync(fd)
            self._disk.rename(new, self._path)
        except OSError as error:
            self._stop(error)
        self._disk.close(self._fd)
        self._fd, self.bytes, self._commit_written = fd, size, self.commit
        self._pending.clear()

    def restart(self, last: Entry, members: Members) -> None:
        """Begin anew behind a snapshot whose last entry is `last`. Durable when it returns."""
        self.entries = [last]
        self.configurations = Configurations(last[1], members)
        self.commit = max(self.commit, last[1])
        self.rewrite()
        self.on_configuration()

    # --- entries ---

    def entry(self, index: int) -> Entry | None:
        """By index of the log; None where it is not here."""
        position = index - self.entries[0][1]
        return self.entries[position] if 0 <= position < len(self.entries) else None

    def _append(self, entry: Entry) -> bool:
        self.entries.append(entry)
        return self.configurations.appended(entry)

    def _truncate(self, position: int) -> bool:
        if position >= len(self.entries):
            return False
        first_gone = self.entries[position][1]
        del self.entries[position:]
        return self.configurations.truncated(first_gone)

    # --- the names below are the library's ---

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._pending.append((ENTRY, command, idx, term))
        if self._append((command, idx, term)):
            self.on_configuration()

    def clear(self) -> None:
        self.entries.clear()
        self._pending.append((CLEAR,))

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803
        self._pending.append((TRUNCATE, entryFrom))
        if self._truncate(entryFrom):
            self.on_configuration()

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803
        """Drop what a durable snapshot holds: entry number `entryTo` becomes the first."""
        del self.entries[:entryTo]
        if self.entries:
            self.configurations.trimmed(self.entries[0][1])
        self.rewrite()

    @overload
    def __getitem__(self, position: int) -> Entry: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Entry]: ...
    def __getitem__(self, position: int | slice) -> Entry | Sequence[Entry]:
        return self.entries[position]

    def __len__(self) -> int:
        return len(self.entries)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        self.commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        return min(self.commit, self.entries[-1][1]) if self.entries else 1

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        self.term, self.vote = term, votedForNodeId
        self._pending.append((HARD, term, votedForNodeId))

    def getCurrentTerm(self) -> int:  # noqa: N802
        return self.term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        return self.vote

    def onOneSecondTimer(self) -> None:  # noqa: N802
        """The commit index is only a head start after a restart: now and then will do."""
        if self.commit != self._commit_written:
            self._commit_written = self.commit
            self._pending.append((COMMIT, self.commit))

    def _destroy(self) -> None:
        self.sync()
        self._disk.close(self._fd)


class _Bytes:
    """A payload as the file that the unpacker wants: no copy of it, no limit on it."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 0

    def read(self, size: int) -> bytes:
        chunk = bytes(self._data[self._at : self._at + size])
        self._at += len(chunk)
        return chunk
