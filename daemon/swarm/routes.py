"""The cluster's half of the API on this host: init, join and leave here, the rest passed to the manager process."""

from __future__ import annotations

import asyncio
import logging
import os

import aiohttp
from aiohttp import web

from shoal.api.errors import InvalidArgument, NotImplementedHere, NotManager, Unavailable
from shoal.api.membership import InitRequest
from shoal.daemon.http.hooks import NOT_A_MANAGER, WORKER_NOT_MANAGER
from shoal.daemon.http.versions import version_of
from shoal.daemon.http.wire import body, flag, reply
from shoal.daemon.swarm import wire
from shoal.daemon.swarm.addresses import advertised_address, data_path_address, listen_address
from shoal.daemon.swarm.host import ALREADY, SwarmHost
from shoal.engine.images.distribution.challenges import parse_credentials
from shoal.worker.enroll import JoinRequest

log = logging.getLogger(__name__)

PASSED_ON = ("swarm", "nodes", "services", "tasks", "secrets", "configs")
VERSION, NODE_ID = "X-Shoal-Api-Version", "X-Shoal-Node-Id"
RESTART_WAIT_S = 5.0
"""A manager process that is just being started again is waited for so long."""

_NOT_COPIED = frozenset({"connection", "transfer-encoding", "keep-alive", "upgrade", "host", "content-length"})


def add_routes(app: web.Application, swarm: SwarmHost) -> None:
    """Add them before routes that would shadow them."""
    routes = SwarmRoutes(swarm)
    app.router.add_post("/swarm/init", routes.init)
    app.router.add_post("/swarm/join", routes.join)
    app.router.add_post("/swarm/leave", routes.leave)
    for noun in PASSED_ON:
        app.router.add_route("*", f"/{noun}", routes.pass_on)
        app.router.add_route("*", f"/{noun}/{{tail:.+}}", routes.pass_on)


class SwarmRoutes:
    def __init__(self, swarm: SwarmHost) -> None:
        self._swarm = swarm

    async def init(self, request: web.Request) -> web.Response:
        wanted = await body(request, wire.InitWire)
        if wanted.force_new_cluster:
            raise NotImplementedHere("a new cluster cannot be made of an old one's state yet (--force-new-cluster)")
        self._must_be_free()
        listen = listen_address(wanted.listen_addr)
        advertised = advertised_address(wanted.advertise_addr, listen)
        node_id = await asyncio.shield(self._swarm.init(InitRequest(
            advertise_addr=advertised.host,
            advertise_port=advertised.port,
            listen_addr=listen.host,
            listen_port=listen.port,
            data_path_addr=data_path_address(wanted.data_path_addr),
            data_path_port=wire.data_port(wanted.data_path_port),
            availability=wire.availability(wanted.availability),
            hostname=os.uname().nodename,
            spec=wire.cluster_spec(wanted),
        )))
        return reply(node_id)

    async def join(self, request: web.Request) -> web.Response:
        wanted = await body(request, wire.JoinWire)
        if not wanted.remote_addrs:
            raise InvalidArgument("at least 1 RemoteAddr is required to join")
        self._must_be_free()
        listen = listen_address(wanted.listen_addr)
        advertised = advertised_address(wanted.advertise_addr, listen)
        await asyncio.shield(self._swarm.join(JoinRequest(
            token=wanted.join_token,
            remotes=tuple(wanted.remote_addrs),
            advertise_addr=advertised.host,
            advertise_port=advertised.port,
            listen_addr=listen.host,
            listen_port=listen.port,
            data_path_addr=data_path_address(wanted.data_path_addr),
            availability=wire.availability(wanted.availability),
            hostname=os.uname().nodename,
        )))
        return web.Response()

    async def leave(self, request: web.Request) -> web.Response:
        await asyncio.shield(self._swarm.leave(force=flag(request, "force")))
        return web.Response()

    def _must_be_free(self) -> None:
        if self._swarm.identity is not None:
            raise Unavailable(ALREADY)

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """One request to the manager process, and its answer as it comes (logs never end)."""
        identity = self._swarm.identity
        if identity is None:
            raise NotManager(NOT_A_MANAGER)
        if not self._swarm.manages:
            raise NotManager(WORKER_NOT_MANAGER)
        parse_credentials(request.headers.get("X-Registry-Auth", ""))  # refused here, not where a task uses it
        data = await request.read()
        major, minor = version_of(request)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _NOT_COPIED}
        headers |= {VERSION: f"{major}.{minor}", NODE_ID: identity.node_id}
        answer = await self._ask(request, data, headers)
        try:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for key, value in answer.headers.items():
                if key.lower() not in _NOT_COPIED:
                    response.headers[key] = value
            if (length := answer.headers.get("Content-Length")) is not None:
                response.content_length = int(length)
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            await response.write_eof()
            return response
        finally:
            answer.close()

    async def _ask(self, request: web.Request, data: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """The answer of the manager process; one that is just starting is waited for. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RESTART_WAIT_S
        while True:
            try:
                return await self._swarm.manager.client().request(
                    request.method, f"http://manager{request.rel_url}", data=data or None, headers=headers,
                    allow_redirects=False)
            except aiohttp.ClientConnectorError as error:  # it has not been asked: asking again is safe
                if loop.time() > deadline or not self._swarm.manages:
                    raise Unavailable(f"the manager of this host does not answer: {error}") from error
            except aiohttp.ClientError as error:
                raise Unavailable(f"the manager of this host broke off: {error}") from error
            await asyncio.sleep(0.05)
