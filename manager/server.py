"""The managers' port: who may call what, and what a manager answers that does not lead.

Everything but the two requests of a joining host needs a certificate of this swarm,
and all but a node's session and renewal a manager's. Only the leader answers; what
may be passed on is (a join), the rest is told where the leader is.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from shoal.api.errors import NoLeader, PermissionDenied, Unavailable
from shoal.api.states import Role
from shoal.manager.ca.identity import PeerIdentity, require_manager, require_node
from shoal.manager.controlapi.errors import api_errors, error_response
from shoal.manager.controlapi.requests import MAX_BODY_BYTES, MAX_LINE_BYTES
from shoal.manager.forwarding import FORWARDED, NO_LEADER, Front, with_fresh_id
from shoal.manager.membership import RaftMembership
from shoal.manager.peers import RETRY, ManagerTLS
from shoal.manager.store.raft import OutcomeUnknown, RaftNode
from shoal.manager.store.replicated import ReplicatedStore

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROOT, JOIN, RENEW, SESSION = "/ca/v1/root", "/ca/v1/join", "/ca/v1/renew", "/dispatcher/v1/session"
WITHOUT_CERTIFICATE = frozenset({ROOT, JOIN, RENEW})
"""A renewal looks at the certificate by itself: one that has expired is renewed with a token."""

ANSWERED_BY_ANY = frozenset({ROOT, SESSION})
"""A session is redirected by the dispatcher."""

MAX_CONNECTIONS = 8192
HANDSHAKE_TIMEOUT_S = 5.0
SHUTDOWN_TIMEOUT_S = 0.5


class Server:
    """`start`, `stop`. `peer` says to a handler who calls."""

    def __init__(
        self, *, cluster_id: str, tls: ManagerTLS, node: RaftNode, store: ReplicatedStore,
        membership: RaftMembership, front: Front,
    ) -> None:
        self._cluster_id, self._tls, self._node, self._store = cluster_id, tls, node, store
        self._membership, self._front = membership, front
        self._runner: web.AppRunner | None = None
        self._doors: Doors | None = None

    async def start(self, host: str, port: int, routes: Iterable[web.AbstractRouteDef]) -> None:
        """Raises OSError where the address is taken."""
        app = web.Application(middlewares=[api_errors, self._allow, self._lead], client_max_size=MAX_BODY_BYTES)
        app.add_routes(routes)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True,
                                     shutdown_timeout=SHUTDOWN_TIMEOUT_S, max_line_size=MAX_LINE_BYTES,
                                     max_field_size=MAX_LINE_BYTES)
        await self._runner.setup()
        assert self._runner.server is not None
        self._doors = Doors(self._runner.server, self._tls)
        self._doors.open(host, port)

    async def stop(self) -> None:
        if self._doors is not None:
            await self._doors.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def peer(self, request: web.Request) -> PeerIdentity:
        """The node that calls. Raises PermissionDenied."""
        transport = request.transport
        connection = transport.get_extra_info("ssl_object") if transport is not None else None
        return require_node(connection, self._cluster_id)

    @web.middleware
    async def _allow(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let pass who may call this route."""
        if request.path not in WITHOUT_CERTIFICATE or FORWARDED in request.headers:
            try:
                if request.path == SESSION:
                    self.peer(request)
                else:
                    self._require_manager(request)
            except PermissionDenied as error:
                log.warning("event=refused peer=%s path=%s why=%s", request.remote, request.path, error)
                raise
        return await handler(request)

    def _require_manager(self, request: web.Request) -> None:
        transport = request.transport
        connection = transport.get_extra_info("ssl_object") if transport is not None else None
        peer = require_manager(connection, self._cluster_id)
        if not self._node.is_ready:
            return  # it is told where the leader is
        node = self._store.view().nodes.get(peer.node_id)
        takes_part = peer.node_id in self._membership.manager_node_ids()
        if not takes_part and (node is None or node.spec.role is not Role.MANAGER):
            raise PermissionDenied(f"node {peer.node_id} is not a manager of this swarm any more")

    @web.middleware
    async def _lead(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer as the leader, or say who is."""
        if request.path in ANSWERED_BY_ANY:
            return await handler(request)
        if request.path == JOIN and FORWARDED not in request.headers:
            return await self._front.lead(with_fresh_id(request), handler)
        if not self._node.is_ready:
            return self._elsewhere(NO_LEADER)
        try:
            return await handler(request)
        except (NoLeader, OutcomeUnknown) as error:
            if request.writer.output_size > 0:
                raise
            return self._elsewhere(error.message)

    def _elsewhere(self, why: str) -> web.Response:
        response = error_response(Unavailable.status, why)
        response.headers[RETRY] = "" if self._node.is_leader else self._membership.leader_address()
        return response


class Doors:
    """Takes connections, sees to the handshake, and says which came to nothing and why."""

    def __init__(self, server: web.Server, tls: ManagerTLS) -> None:
        self._server, self._tls = server, tls
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()

    def open(self, host: str, port: int) -> None:
        """Raises OSError where the address is taken."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=256)
        self._socket.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._socket), name="accept")

    async def close(self) -> None:
        tasks = [*self._handshakes, *([self._accepting] if self._accepting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError as error:  # no descriptors left, or the peer is gone already
                log.warning("event=cannot-accept error=%s", error)
                await asyncio.sleep(0.1)
                continue
            if len(self._server.connections) + len(self._handshakes) >= MAX_CONNECTIONS:
                log.warning("event=connection-dropped peer=%s why=%d are open", peer[0], MAX_CONNECTIONS)
                connection.close()
                continue
            task = asyncio.create_task(self._shake_hands(connection, peer[0]), name="handshake")
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, connection: socket.socket, peer: str) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._server, connection, ssl=self._tls.fresh().server)
        except (OSError, TimeoutError) as error:
            log.warning("event=connection-dropped peer=%s why=%s", peer, str(error) or type(error).__name__)
