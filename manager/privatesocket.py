"""`<run>/manager.sock`: what this host's daemon asks of its manager process, and the swarm's half of the API for it.

Everything under /internal/ is answered here; the rest goes to the leader, wherever it is.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument
from shoal.api.membership import ManagerInfoReply
from shoal.manager.controlapi.errors import api_errors
from shoal.manager.controlapi.requests import MAX_BODY_BYTES, MAX_LINE_BYTES
from shoal.manager.forwarding import Front

log = logging.getLogger(__name__)

NAME = "manager.sock"
SHUTDOWN_TIMEOUT_S = 0.5

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Process(Protocol):
    """What the socket asks of the manager itself."""

    def info(self) -> ManagerInfoReply: ...

    async def leave(self, *, force: bool) -> None:
        """Have the other managers go on without this one. Raises ShoalError."""

    def stop(self) -> None:
        """End soon, and for good: the others go on without this one, as far as they can be told."""


class LeaveBody(msgspec.Struct):
    force: bool = False


class PrivateSocket:
    """`start`, `stop`."""

    def __init__(self, process: Process, front: Front) -> None:
        self._process, self._front = process, front
        self._runner: web.AppRunner | None = None

    async def start(self, run_root: Path, routes: Iterable[web.AbstractRouteDef]) -> None:
        """Raises OSError."""
        app = web.Application(middlewares=[api_errors, self._lead], client_max_size=MAX_BODY_BYTES)
        app.add_routes([
            web.get("/internal/info", self._info),
            web.post("/internal/leave", self._leave),
            web.post("/internal/stop", self._stop),
        ])
        app.add_routes(routes)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True,
                                     shutdown_timeout=SHUTDOWN_TIMEOUT_S, max_line_size=MAX_LINE_BYTES,
                                     max_field_size=MAX_LINE_BYTES)
        await self._runner.setup()
        await web.SockSite(self._runner, _listen(run_root / NAME)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _lead(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/internal/"):
            return await handler(request)
        return await self._front.lead(request, handler)

    async def _info(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.msgpack.encode(self._process.info()), content_type="application/msgpack")

    async def _leave(self, request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read() or b"{}", type=LeaveBody)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"the request cannot be read: {error}") from error
        await self._process.leave(force=asked.force)
        return web.Response()

    async def _stop(self, request: web.Request) -> web.Response:
        self._process.stop()
        return web.Response()


def _listen(path: Path) -> socket.socket:
    """A socket that root alone may use. The lock says that nobody serves it any more."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(128)
    listener.setblocking(False)
    return listener
