"""TLS in front of the application: each connection is decrypted here and handed on over a socket pair.

asyncio's own TLS closes the connection once the client says that it has no more to send (close_notify). Docker's
clients say so at the end of a container's input, and wait for its output: here each way ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("shoal.http")

HANDSHAKE_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 1024
CHUNK = 64 << 10


class TlsBridge:
    """Carries the connections of one listener to protocols that `connection` makes."""

    def __init__(self, context: ssl.SSLContext, connection: Callable[[], asyncio.BaseProtocol]) -> None:
        self._context = context
        self._connection = connection
        self._carrying: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both ways have ended or one of the sides is gone."""
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            if len(self._carrying) <= MAX_CONNECTIONS:
                await self._carry(_Tls(self._context, reader, writer))
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            log.debug("event=tls-connection-ended peer=%s reason=%s", writer.get_extra_info("peername"), error)
        finally:
            self._carrying.discard(task)
            writer.close()

    async def close(self) -> None:
        for task in self._carrying:
            task.cancel()
        if self._carrying:
            await asyncio.wait(self._carrying)

    async def _carry(self, tls: _Tls) -> None:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            await tls.handshake()
        theirs, ours = socket.socketpair()
        for end in (theirs, ours):
            end.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(self._connection, theirs)
        reader, writer = await asyncio.open_connection(sock=ours, limit=CHUNK)
        inward = asyncio.ensure_future(_inward(tls, writer))
        outward = asyncio.ensure_future(_outward(tls, reader))
        try:
            # Inward ends when the client is gone, outward when everything is answered: either is the end.
            done, _ = await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in (inward, outward):
                way.cancel()
            await asyncio.wait({inward, outward})
            writer.close()


async def _inward(tls: _Tls, writer: asyncio.StreamWriter) -> None:
    """Until the client is gone. That it has no more to send is passed on, and is not the end."""
    while data := await tls.read():
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()
    await tls.gone()


async def _outward(tls: _Tls, reader: asyncio.StreamReader) -> None:
    while data := await reader.read(CHUNK):
        await tls.write(data)
    await tls.finish()


class _Tls:
    """The server's end of TLS over a pair of streams."""

    def __init__(self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    async def handshake(self) -> None:
        """Raises ssl.SSLError where the client is not let in, and TimeoutError."""
        while True:
            try:
                self._tls.do_handshake()
                await self._flush()
                return
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._receive():
                    raise ConnectionResetError("the client went away during the handshake") from None
            except ssl.SSLError:
                await self._flush()  # the alert tells the client why
                raise

    async def read(self) -> bytes:
        """What the client sends; b"" once it has no more. Raises OSError where it broke off."""
        while True:
            try:
                if data := self._tls.read(CHUNK):
                    return data
                return b""
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._receive():
                    raise ConnectionResetError("the client closed without saying so") from None

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        await self._flush()

    async def finish(self) -> None:
        """Say that nothing more comes."""
        with suppress(ssl.SSLError):  # it wants the client's own, which nobody waits for
            self._tls.unwrap()
        await self._flush()

    async def gone(self) -> None:
        """Wait until the connection itself is at its end."""
        while await self._reader.read(CHUNK):
            pass

    async def _receive(self) -> bool:
        data = await self._reader.read(CHUNK)
        self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            self._writer.write(data)
            await self._writer.drain()
