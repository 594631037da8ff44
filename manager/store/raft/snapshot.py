"""Snapshots as files: written in steps, durable before anyone relies on them, read in pieces.

A file is frames: a header, the state machine's chunks, and an end that counts
them. `snapshot` is the one in use; a new one is written beside it, synced and
renamed. Nothing here knows the Raft library.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgpack  # type: ignore[import-untyped]
import msgspec

from shoal.manager.store.raft import frames
from shoal.manager.store.raft.disk import Disk
from shoal.manager.store.raft.nouns import CorruptStorage, Entry, Member, Members, Restoring

SCHEMA = 1
READ_BYTES = 256 << 10
HEADER, CHUNK, END = range(3)


class Header(msgspec.Struct, frozen=True):
    """What a snapshot stands for: all entries up to and with `last`, and the members then."""

    last: Entry
    members: Members

    @property
    def index(self) -> int:
        return self.last[1]

    def encode(self) -> bytes:
        return bytes(msgpack.packb([HEADER, SCHEMA, self.last, [(m.id, m.address) for m in self.members]]))


def _decode(payload: bytes) -> tuple[int, Any]:
    """(kind, value) of one frame. Raises ValueError."""
    if payload[:1] == b"C":
        return CHUNK, payload[1:]
    kind, *values = msgpack.unpackb(payload, use_list=False)
    if kind == HEADER:
        schema, last, members = values
        if schema > SCHEMA:
            raise ValueError(f"snapshot schema {schema} is newer than {SCHEMA}")
        return HEADER, Header(cast(Entry, last), tuple(Member(*pair) for pair in members))
    return END, values[0]


class Parser:
    """A snapshot's bytes, cut anywhere, into its header and chunks."""

    def __init__(self, seal: frames.Seal = frames.PLAIN) -> None:
        self._reader = frames.Reader(seal)
        self.header: Header | None = None
        self.complete = False
        self._chunks = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The chunks that are complete now. Raises ValueError where this is no snapshot."""
        for payload in self._reader.feed(data):
            kind, value = _decode(payload)
            if self.complete or (kind == HEADER) != (self.header is None):
                raise ValueError("frames out of order")
            if kind == HEADER:
                self.header = value
            elif kind == CHUNK:
                self._chunks += 1
                yield value
            else:
                if value != self._chunks:
                    raise ValueError(f"{self._chunks} chunks of {value}")
                self.complete = True


class Writer:
    """One snapshot being written: `step` until `encoded`, then `commit` (in a thread)."""

    def __init__(self, folder: Snapshots, header: Header, chunks: Iterator[bytes]) -> None:
        self.header, self.encoded = header, False
        self._folder, self._chunks, self._count = folder, chunks, 0
        self._fd = folder.disk.create(folder.new_path)
        self._put(header.encode())

    def step(self) -> None:
        """Encode one more chunk. Raises OSError."""
        chunk = next(self._chunks, None)
        if chunk is None:
            self._put(bytes(msgpack.packb([END, self._count])))
            self.encoded = True
        else:
            self._count += 1
            self._put(b"C" + chunk)

    def _put(self, payload: bytes) -> None:
        self._folder.disk.write(self._fd, frames.pack(payload, self._folder.seal))

    def commit(self) -> None:
        """Make it the snapshot in use, durably. Blocks on the disk. Raises OSError."""
        try:
            self._folder.disk.sync(self._fd)
        finally:
            self._folder.disk.close(self._fd)
        self._folder.disk.rename(self._folder.new_path, self._folder.path)

    def abandon(self) -> None:
        self._folder.disk.close(self._fd)


class Receiver:
    """A snapshot coming in from the leader: into a file, and into a state beside the one in use."""

    def __init__(self, folder: Snapshots, identity: tuple[int, int], size: int, restoring: Restoring) -> None:
        self.identity, self.size, self.received = identity, size, 0
        self.installing = False
        self.state: Any = None
        self._folder, self._restoring = folder, restoring
        self._parser = Parser(folder.seal)
        self._fd = folder.disk.create(folder.incoming_path)

    @property
    def header(self) -> Header:
        assert self._parser.header is not None
        return self._parser.header

    def take(self, data: bytes) -> bool:
        """Add the next bytes; whether it is whole now. Raises ValueError and OSError."""
        self._folder.disk.write(self._fd, data)
        for chunk in self._parser.feed(data):
            self._restoring.feed(chunk)
        self.received += len(data)
        if self.received < self.size:
            return False
        if not self._parser.complete:
            raise ValueError("the end is missing")
        self.state = self._restoring.finish()
        return True

    def commit(self) -> None:
        """Make it the snapshot in use, durably. Blocks on the disk. Raises OSError."""
        try:
            self._folder.disk.sync(self._fd)
        finally:
            self._folder.disk.close(self._fd)
        self._folder.disk.rename(self._folder.incoming_path, self._folder.path)

    def abandon(self) -> None:
        self._folder.disk.close(self._fd)


class Snapshots:
    """The folder with the snapshot in use."""

    def __init__(self, folder: Path, *, disk: Disk | None = None, seal: frames.Seal = frames.PLAIN) -> None:
        self.path = folder / "snapshot"
        self.new_path = folder / "snapshot.new"
        self.incoming_path = folder / "snapshot.incoming"
        self.disk, self.seal = disk or Disk(), seal

    def read(self) -> tuple[Header, Iterator[bytes]] | None:
        """Header and chunks; None without a snapshot. Raises CorruptStorage, also while iterating."""
        if not self.path.exists():
            return None
        parser = Parser(self.seal)
        chunks = self._chunks(parser)
        first = next(chunks, None)
        if parser.header is None:
            raise CorruptStorage(f"snapshot {self.path} has no header; {self._advice()}")
        return parser.header, _again(first, chunks)

    def _chunks(self, parser: Parser) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                while data := file.read(READ_BYTES):
                    yield from parser.feed(data)
        except ValueError as error:
            raise CorruptStorage(f"snapshot {self.path} is damaged: {error}; {self._advice()}") from error
        if not parser.complete:
            raise CorruptStorage(f"snapshot {self.path} is cut short; {self._advice()}")

    def _advice(self) -> str:
        return f"remove this manager from the cluster, delete {self.path.parent} and join again"

    def open(self) -> Outgoing:
        """The snapshot in use, for sending; it stays readable when a newer one replaces it. Raises OSError."""
        return Outgoing(self.path.open("rb"), self.seal)


class Outgoing:
    """One snapshot being sent to one follower. Offsets are bytes of the file."""

    def __init__(self, file: BinaryIO, seal: frames.Seal) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        parser = Parser(seal)
        while parser.header is None and (data := file.read(READ_BYTES)):
            for _ in parser.feed(data):
                break
        if parser.header is None:
            file.close()
            raise OSError("the snapshot has no header")
        self.header = parser.header
        self.identity = (self.header.last[1], self.header.last[2])
        self.sent = self.acked = 0
        self.attempt = 0  # raised when bytes were lost on the way, so that older answers are told apart

    def read(self) -> tuple[int, bytes]:
        """(offset, bytes) of the next piece."""
        self._file.seek(self.sent)
        data = self._file.read(min(READ_BYTES, self.size - self.sent))
        offset, self.sent = self.sent, self.sent + len(data)
        return offset, data

    def close(self) -> None:
        self._file.close()


def _again(first: bytes | None, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first is not None:
        yield first
        yield from rest
