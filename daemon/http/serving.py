"""Connections to the application: plain ones, and ones under TLS. Which addresses there are is `daemon.listeners`'s.

A client may close its way to us and still wait for the answer (`docker system dial-stdio` with its input at its
end). aiohttp closes the connection then; on a UNIX socket, where the kernel tells a client that is gone from one
that only has no more to say, ours goes on until the answer is out.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.web_protocol import RequestHandler

from shoal.daemon.http.tlsbridge import TlsBridge
from shoal.daemon.http.versions import versioned

SHUTDOWN_TIMEOUT_S = 2.0
BACKLOG = 4096
"""Connections that wait to be taken, as Go has it: a docker command that finds no room gives up at once."""

LOOK_AGAIN_S = 0.2
"""How often a client that closed its side is looked for."""


class Serving:
    """An application that is served. `limits` go to each connection: sizes of lines, seconds of keep-alive."""

    def __init__(self, app: web.Application, limits: dict[str, Any]) -> None:
        self._limits = {"access_log": None, **limits}
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=SHUTDOWN_TIMEOUT_S, **self._limits)
        self._listening: list[asyncio.Server] = []
        self._bridges: list[TlsBridge] = []

    async def start(self) -> None:
        await self._runner.setup()
        server = self._runner.server
        assert isinstance(server, web.Server)
        server.request_factory = _noting(versioned(server.request_factory))
        self._server = server

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve on a socket that listens."""
        loop = asyncio.get_running_loop()
        if tls is not None:
            bridge = TlsBridge(tls, self._connection)
            self._bridges.append(bridge)
            self._listening.append(await asyncio.start_server(bridge.carry, sock=listener, backlog=BACKLOG))
        elif listener.family == socket.AF_UNIX:
            self._listening.append(await loop.create_unix_server(self._connection, sock=listener, backlog=BACKLOG))
        else:
            self._listening.append(await loop.create_server(self._connection, sock=listener, backlog=BACKLOG))

    async def stop(self) -> None:
        for listening in self._listening:
            listening.close()
        for bridge in self._bridges:
            await bridge.close()
        await self._runner.cleanup()

    def _connection(self) -> RequestHandler:
        return Connection(self._server, loop=asyncio.get_running_loop(), **self._limits)


def _noting(factory: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """A request factory that tells the connection what it makes a request of."""

    def make(message: Any, payload: StreamReader, connection: Connection, *rest: Any) -> web.BaseRequest:
        connection.payload = payload
        return factory(message, payload, connection, *rest)

    return make


class Connection(RequestHandler):
    __slots__ = ("payload",)

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.payload: StreamReader | None = None
        """Of the newest request that is, or was, being answered."""

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes a truth, aiohttp gives none
        """True: the connection stays open, until everything that was sent is answered."""
        payloads = self._unanswered()
        if not payloads or not all(payload.is_eof() for payload in payloads) or self._is_gone():
            return False
        self._look()
        return True

    def _look(self) -> None:
        """Close the connection after the last answer, and give up for a client that is gone."""
        if self.transport is None or self.transport.is_closing():
            return
        unanswered = len(self._unanswered())
        if self._is_gone():
            self.transport.abort()
        elif not unanswered:
            self.transport.close()
        else:
            if unanswered == 1:
                self.close()  # what is answered now is the last
            self._loop.call_later(LOOK_AGAIN_S, self._look)

    def _unanswered(self) -> list[StreamReader]:
        """Bodies of the requests that were sent and are not answered."""
        payloads = [payload for _, payload in self._messages]
        if self._waiter is None and self.payload is not None:  # not waiting for a request: one is being answered
            payloads.append(self.payload)
        return payloads

    def _is_gone(self) -> bool:
        """Whether the client has closed its other way too. Over TCP nobody can tell, so that it counts as gone."""
        peer = self.transport.get_extra_info("socket") if self.transport is not None else None
        if peer is None or peer.family != socket.AF_UNIX or peer.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(peer.fileno(), select.POLLIN)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
