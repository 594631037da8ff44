"""A connection taken over from HTTP: raw bytes both ways, each way closed by itself.

After `attach` and `exec start` the connection carries stdio. A client that has no
more to send shuts its side down; output must go on. The HTTP server's protocol
closes on that, so the transport is given to a protocol of ours.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from collections import deque
from contextlib import suppress

from aiohttp import web

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

HEAD_S = 1.0
HEAD_LOOK_S = 0.001
"""What comes with the head of the answer is lost in docker-py, which reads on behind it: so it waits until the head
has been read, for so long at most, looked at so often. A UNIX socket tells; a network has delays of its own."""

MAX_BUFFERED_BYTES = 1 << 18
"""Input held for a slow consumer before the socket is read no further."""


class Hijacked(asyncio.Protocol):
    """The raw connection. `read` gives b"" once the client has closed its side."""

    def __init__(self, transport: asyncio.Transport, before: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._before = before
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._eof = False
        self._head_is_read = False
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = asyncio.Event()
        """Set once the connection is gone, both ways."""

    # --- the transport calls these ---

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        self._changed.set()
        if self._buffered > MAX_BUFFERED_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        self._changed.set()
        return True  # the other way stays open

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._eof = True
        self.closed.set()
        self._changed.set()
        self._writable.set()
        self._before.connection_lost(error)

    # --- the handler calls these ---

    async def read(self) -> bytes:
        """The next bytes of the client; b"" at the end. One reader at a time."""
        while not self._chunks:
            if self._eof:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._chunks.popleft()
        self._buffered -= len(data)
        if self._paused and self._buffered < MAX_BUFFERED_BYTES // 2:
            self._paused = False
            if not self._eof:
                self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the client is slow. Raises ConnectionResetError once it is gone."""
        if not self._head_is_read:
            await self._wait_for_head()
        if self.closed.is_set():
            raise ConnectionResetError("the client has gone")
        self._transport.write(data)
        await self._writable.wait()

    def write_now(self, data: bytes) -> None:
        """Send without waiting. For the head of the answer."""
        self._transport.write(data)

    async def _wait_for_head(self) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + HEAD_S
        # A look now and then: no event tells that the other side has read.
        while unread(self._transport) and not self.closed.is_set() and clock() < until:  # noqa: ASYNC110
            await asyncio.sleep(HEAD_LOOK_S)
        self._head_is_read = True


def unread(transport: asyncio.Transport) -> int:
    """The memory of what was sent and not yet read by the other side, of a UNIX socket; 0 for others."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family != socket.AF_UNIX:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


class HijackedResponse(web.StreamResponse):
    """Stands for the answer that was already written to the raw connection."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def hijack(request: web.Request, content_type: str, *, protocol: str = "tcp") -> Hijacked:
    """Answer 101 (200 to a client that did not ask for an upgrade) and take the connection.

    The handler returns a `HijackedResponse` when it is done; the connection is closed then.
    A client sends nothing before it has the answer's head (RFC 9110, 7.8).
    """
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    before = request.protocol
    connection = Hijacked(transport, before)
    transport.set_protocol(connection)
    with suppress(RuntimeError):
        transport.resume_reading()
    if "upgrade" in request.headers.get("Connection", "").lower() and request.headers.get("Upgrade"):
        head = (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\n"
            f"Connection: Upgrade\r\nUpgrade: {protocol}\r\n"
        )
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n"
    connection.write_now(head.encode() + b"Api-Version: 1.50\r\nOstype: linux\r\n\r\n")
    return connection
