"""/containers/{id}/attach/ws: stdio over a WebSocket, for browsers. Output comes unframed, in binary messages."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web

from shoal.daemon.http.containers.detachkeys import DetachKeys, parse
from shoal.daemon.http.containers.stdio import carry
from shoal.daemon.http.versions import version_of
from shoal.daemon.http.wire import flag
from shoal.engine.containers.engine import Engine

MAX_MESSAGE_BYTES = 1 << 20
STREAMS_CHOSEN_SINCE = (1, 42)
"""Older clients get all three streams, whatever they ask for."""


class WebSocketRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/containers/{id}/attach/ws", self.attach, allow_head=False)

    async def attach(self, request: web.Request) -> web.StreamResponse:
        config = self._engine.get(request.match_info["id"]).config
        codes = parse(request.query.get("detachKeys", ""))
        answer = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, compress=False)
        if not answer.can_prepare(request):
            raise web.HTTPBadRequest(text="this is for WebSockets: the request does not ask to become one")
        everything, stream = version_of(request) < STREAMS_CHOSEN_SINCE, flag(request, "stream")
        wants_stdin = stream and (everything or flag(request, "stdin"))
        attachment = await self._engine.attach(
            request.match_info["id"], stdin=wants_stdin, stdout=everything or flag(request, "stdout"),
            stderr=everything or flag(request, "stderr"), logs=flag(request, "logs"), stream=stream)
        try:
            await answer.prepare(request)
        except BaseException:
            await attachment.detach()
            raise
        await carry(WebSocketConnection(answer), attachment, stdin=wants_stdin and config.open_stdin,
                    closes_stdin=config.stdin_once and not attachment.tty,
                    keys=DetachKeys(codes) if attachment.tty else None, raw=True)
        await answer.close()
        return answer


class WebSocketConnection:
    """A WebSocket as `carry` wants a connection. Its close is the end of both ways."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        """The next message that has something in it; b"" at the end."""
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                data: bytes = message.data
            elif message.type is WSMsgType.TEXT:
                data = message.data.encode()
            else:
                self.closed.set()
                return b""
            if data:
                return data

    async def write(self, data: bytes) -> None:
        """Raises ConnectionResetError once the client is gone."""
        if self.closed.is_set() or self._socket.closed:
            raise ConnectionResetError("the client has gone")
        await self._socket.send_bytes(data)
