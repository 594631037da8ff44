"""One client's end of a container's or an exec's stdio."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

STDOUT, STDERR = 1, 2

MAX_BUFFERED_BYTES = 1 << 18
"""Output held for a client before the program has to wait."""


class Attachment(Protocol):
    """The stdio of a container or of an exec, in a client's hands."""

    tty: bool
    """Everything is one raw stream then (STDOUT)."""

    async def read(self) -> tuple[int, bytes] | None:
        """The next output and its stream; None at the end. One reader at a time."""

    async def write(self, data: bytes) -> None:
        """Give input; waits while the container is slow. Dropped where nobody reads it any more."""

    async def close_stdin(self) -> None:
        """There is no more input (half-close); output goes on."""

    async def detach(self) -> None:
        """Let go. To be called always, at the end."""


class Source(Protocol):
    """Where the stdio comes from: what a client tells it."""

    def drained(self) -> None:
        """Some output was read."""

    def leave(self, client: Client, *, had_stdin: bool) -> None: ...

    async def send(self, data: bytes) -> None: ...

    async def finish_stdin(self) -> None: ...


class Client:
    """Implements `Attachment`. Output waits here until it is read."""

    def __init__(self, source: Source, *, tty: bool, stdin: bool, streams: frozenset[int]) -> None:
        self.tty = tty
        self._source = source
        self._stdin = stdin
        self._streams = streams
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self.buffered_bytes = 0

    def offer(self, stream: int, data: bytes) -> None:
        if stream in self._streams:
            self._chunks.append((stream, data))
            self.buffered_bytes += len(data)
            self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def read(self) -> tuple[int, bytes] | None:
        while not self._chunks:
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        stream, data = self._chunks.popleft()
        self.buffered_bytes -= len(data)
        self._source.drained()
        return stream, data

    async def write(self, data: bytes) -> None:
        if self._stdin:
            await self._source.send(data)

    async def close_stdin(self) -> None:
        if self._stdin:
            self._stdin = False
            await self._source.finish_stdin()

    async def detach(self) -> None:
        self.let_go()

    def let_go(self) -> None:
        self.end()
        self._chunks.clear()
        self.buffered_bytes = 0
        self._source.leave(self, had_stdin=self._stdin)
