"""Port 7946 of a host: logs of tasks for managers, blobs of images for every host. Mutual TLS, this swarm alone."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from aiohttp import web

from shoal.api.errors import InvalidArgument, PermissionDenied, ShoalError
from shoal.api.membership import HOST_PORT
from shoal.api.states import Role
from shoal.worker.credentials import Credentials, Peer, peer_of
from shoal.worker.executor import Executor, LogQuery
from shoal.worker.peers.sharing import Sharing

log = logging.getLogger(__name__)

_PEER = web.RequestKey("peer", Peer)


class HostServer:
    """Serves from `start` to `stop`."""

    def __init__(self, credentials: Credentials, executor: Executor, sharing: Sharing | None = None) -> None:
        """`sharing`: what gives images to others; without it there are none."""
        self._credentials = credentials
        self._executor = executor
        self._sharing = sharing
        self._runner: web.AppRunner | None = None

    async def start(self, address: str, port: int = HOST_PORT) -> None:
        """Raises OSError where the port is taken."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/tasks/{id}/logs", self.logs)
        if self._sharing is not None:
            app.router.add_get("/blobs/{digest}", self.blob, allow_head=False)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, address, port, ssl_context=self._credentials.server,
                          reuse_address=True).start()

    @property
    def port(self) -> int:
        """Where it serves; 0 before."""
        return int(self._runner.addresses[0][1]) if self._runner is not None else 0

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def blob(self, request: web.Request) -> web.StreamResponse:
        """A blob of an image."""
        assert self._sharing is not None
        return await self._sharing.blob(request, request[_PEER].node_id)

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """A task's log as multiplexed frames, for managers."""
        if request[_PEER].role is not Role.MANAGER:
            raise PermissionDenied("only managers of this swarm read logs here")
        parts = self._executor.logs(request.match_info["id"], log_query(request.query))
        first = await anext(parts, None)  # an error comes before the headers
        response = web.StreamResponse(headers={"Content-Type": "application/vnd.docker.multiplexed-stream"})
        with suppress(ConnectionError):  # the manager reads no more: its client has gone
            await response.prepare(request)
            if first is not None:
                await response.write(first)
                async for part in parts:
                    await response.write(part)
            await response.write_eof()
        return response

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            identity, transport = self._credentials.identity, request.transport
            connection = transport.get_extra_info("ssl_object") if transport is not None else None
            peer = peer_of(connection, identity.cluster_id) if identity is not None else None
            if peer is None:
                raise PermissionDenied("only nodes of this swarm are answered here")
            request[_PEER] = peer
            answer: web.StreamResponse = await handler(request)
            return answer
        except ShoalError as error:
            return web.json_response({"message": error.message}, status=error.status)


def log_query(query: Any) -> LogQuery:
    """Raises InvalidArgument for numbers that are none."""
    tail, since = query.get("tail", "all"), query.get("since", "0")
    try:
        return LogQuery(
            stdout=query.get("stdout") == "1", stderr=query.get("stderr") == "1", follow=query.get("follow") == "1",
            timestamps=query.get("timestamps") == "1", tail=-1 if tail == "all" else int(tail), since=float(since))
    except ValueError as error:
        raise InvalidArgument(f"invalid query: {error}") from error


