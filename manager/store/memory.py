"""The newest state of one manager, its watchers and its snapshots.

`MemoryStore` is the state machine that Raft drives. It changes only through
`apply` and `restore`; everybody else reads views and watches events.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

import msgspec

from shoal.api.objects import Cluster, Network, Node, Service, StoredObject, Task
from shoal.manager.store import changes as c
from shoal.manager.store.apply import Event, apply
from shoal.manager.store.state import Draft, State

log = logging.getLogger(__name__)

WATCH_LIMIT = 100_000
"""Events that a watcher may be behind; past that it gets `Resync` instead."""

SNAPSHOT_STEP = 1000
"""Records in one chunk of a snapshot."""


class Resync(msgspec.Struct, frozen=True):
    """Events were dropped, or a snapshot was installed: read the view again."""


class Watch:
    """One reader of events, in the order of commits. Used as a context manager.

    Bounded: where the reader falls behind by WATCH_LIMIT its events are dropped
    and the next batch is a single `Resync`.
    """

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._events: deque[Event | Resync] = deque()
        self._woken = asyncio.Event()

    def __enter__(self) -> Watch:
        self._store._watches[self] = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store._watches.pop(self, None)

    def publish(self, events: Iterable[Event | Resync]) -> None:
        """Called by the store."""
        self._events.extend(events)
        if len(self._events) > WATCH_LIMIT:
            self._events.clear()
            self._events.append(Resync())
        self._woken.set()

    def wake(self) -> None:
        """Let `batch` return although there is no event."""
        self._woken.set()

    async def batch(self, timeout_s: float | None = None) -> list[Event | Resync]:
        """What happened since the last call; waits for something, `timeout_s` at most (then [])."""
        if not self._woken.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                return []
        return self.drain()

    def drain(self) -> list[Event | Resync]:
        """What happened since the last call, without waiting."""
        self._woken.clear()
        events = list(self._events)
        self._events.clear()
        return events


class MemoryStore:
    """The state machine behind Raft (the `StateMachine` of `store.raft`)."""

    def __init__(self) -> None:
        self._state = State()
        self._watches: dict[Watch, None] = {}  # in the order of subscription: equal runs wake alike

    def view(self) -> State:
        """The newest state. Immutable: hold it as long as you like."""
        return self._state

    def watch(self) -> Watch:
        """Subscribe: enter the result before reading a view, so that nothing falls between."""
        return Watch(self)

    # --- StateMachine ---

    def apply(self, index: int, command: bytes) -> c.Outcome:
        """Apply one committed command. Never raises."""
        try:
            decoded = c.decode_command(command)
        except (msgspec.DecodeError, RecursionError) as error:
            log.error("command not understood index=%d error=%s", index, error)
            return c.Outcome(
                index=index,
                refusals=(c.Refusal(position=0, table="", id="", kind=c.SCHEMA_TOO_NEW, reason=str(error)),),
            )
        applied = apply(self._state, index, decoded)
        self._state = applied.state
        if applied.events:
            for watch in self._watches:
                watch.publish(applied.events)
        return applied.outcome

    def snapshot(self) -> Iterator[bytes]:
        """The present state in chunks of SNAPSHOT_STEP records. Later commands do not show in it."""
        return _encode_snapshot(self._state)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the state by a snapshot's. Every watcher gets `Resync`."""
        restoring = Restoring()
        for chunk in chunks:
            restoring.feed(chunk)
        self.install(restoring.finish())

    def restoring(self) -> Restoring:
        """A snapshot to be taken in step by step, beside the present state; then `install` what it gives."""
        return Restoring()

    def install(self, state: State) -> None:
        """Replace the state by one that was restored in steps."""
        self._state = state
        for watch in self._watches:
            watch.publish([Resync()])


class _Header(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    schema: int
    index: int
    term: int
    requests: tuple[tuple[str, c.Outcome], ...]


_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(_Header).decode
_decode_records = msgspec.msgpack.Decoder(list[Cluster | Node | Service | Task | Network]).decode
_LENGTH = struct.Struct(">I")


def _encode_snapshot(state: State) -> Iterator[bytes]:
    remembered = tuple((request, state.outcomes[request]) for request in state.requests)
    yield _frame(_Header(schema=c.SCHEMA, index=state.index, term=state.term, requests=remembered))
    records = itertools.chain(
        state.clusters.values(),
        state.networks.values(),
        state.nodes.values(),
        state.services.values(),
        state.tasks.values(),
    )
    while step := list(itertools.islice(records, SNAPSHOT_STEP)):
        yield _frame(step)


def _frame(value: Any) -> bytes:
    body = _encode(value)
    return _LENGTH.pack(len(body)) + body


class Restoring:
    """A snapshot on its way in. Chunks may be cut anywhere; each `feed` does a bounded step of work."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header: _Header | None = None
        self._state = State()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises ValueError where they are no snapshot that we understand."""
        self._buffer += chunk
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[_LENGTH.size : end])
            del self._buffer[:end]
            self._take(body)

    def _take(self, body: bytes) -> None:
        if self._header is None:
            self._header = _decode_header(body)
            if self._header.schema > c.SCHEMA:
                raise ValueError(f"snapshot has schema {self._header.schema}, this manager understands {c.SCHEMA}")
            return
        draft = Draft(self._state)
        for record in _decode_records(body):
            draft.put(c.table_name(record), record.id, record)
        self._state = draft.finish(0, 0, "", c.Outcome(index=0))

    def finish(self) -> State:
        """The restored state. Raises ValueError where the snapshot was cut short."""
        if self._header is None or self._buffer:
            raise ValueError("snapshot is incomplete")
        state = self._state
        state.index, state.term = self._header.index, self._header.term
        state.outcomes = state.outcomes.__class__(dict(self._header.requests))
        state.requests = tuple(request for request, _ in self._header.requests)
        return state


def records_of(state: State) -> list[StoredObject]:
    """Every record, tables in a fixed order, ids sorted: equal states give equal lists."""
    tables = ("cluster", "network", "node", "service", "task")
    return [state.table(table)[key] for table in tables for key in sorted(state.table(table))]
