"""The route of the hosts' sessions on the managers' port, on every manager; the leader serves them, others redirect.

What a term of office knows of sessions lives in `term.py` and ends with it: a
manager that takes over learns everything from the store and from the agents.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable

import msgspec
from aiohttp import WSCloseCode, web

from shoal.api.errors import PermissionDenied
from shoal.api.ids import new_swarm_id
from shoal.api.messages import MAX_FRAME_BYTES, Hello, Redirect, encode
from shoal.manager.ca.identity import peer_identity
from shoal.manager.controlloop import Store
from shoal.manager.dispatcher.session import CLOSE_TIMEOUT_S, ProtocolError, close, read
from shoal.manager.dispatcher.term import Term

log = logging.getLogger(__name__)

PATH = "/dispatcher/v1/session"
HELLO_TIMEOUT_S = 10.0


class Dispatcher:
    """One for the process. `routes` are mounted once; `run` is one of the leader's loops, in each term anew.

        dispatcher = Dispatcher(node_id=…, leader_addr=lambda: "host:port of the leader, or empty")
        server.start(…, [*ca_routes(…), *dispatcher.routes()])     # behind mutual TLS, with `api_errors`
        loops = lambda store: [drive(…), …, dispatcher.run(store)]

    `clock` gives seconds of a monotonic clock.
    """

    def __init__(
        self, *, node_id: str, leader_addr: Callable[[], str], clock: Callable[[], float] = time.monotonic,
        mint_id: Callable[[], str] = new_swarm_id,
    ) -> None:
        self._node_id = node_id
        self._leader_addr = leader_addr
        self._clock, self._mint_id = clock, mint_id
        self._term: Term | None = None

    def routes(self) -> list[web.RouteDef]:
        """The session's route. It checks the certificate against the store by itself, workers' and managers' alike."""
        return [web.get(PATH, self._session)]

    async def run(self, store: Store) -> None:
        """Serve sessions for one term of office, until cancelled; every session then ends with a `Redirect`.

        `store`: as for `controlloop.drive`. Raises a group with NoLeader where a proposal shows that the term is over.
        """
        term = Term(store, node_id=self._node_id, leader_addr=self._leader_addr, clock=self._clock,
                    mint_id=self._mint_id)
        self._term = term
        try:
            await term.run()
        finally:
            if self._term is term:
                self._term = None

    async def _session(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        peer = peer_identity(transport.get_extra_info("ssl_object")) if transport is not None else None
        if peer is None:
            raise PermissionDenied("a node certificate of this swarm is needed for this")
        if self._term is not None:
            self._term.check(peer.node_id, peer.cluster_id)
        socket = web.WebSocketResponse(
            autoping=False, compress=False, max_msg_size=MAX_FRAME_BYTES, timeout=CLOSE_TIMEOUT_S)
        await socket.prepare(request)
        try:
            hello = await _hello(socket)
        except ProtocolError as error:
            log.warning("event=session-refused node=%s remote=%s why=%s", peer.node_id, request.remote, error)
            await close(socket, WSCloseCode.PROTOCOL_ERROR, error.message)
            return socket
        if self._term is None:
            await _redirect(socket, self._leader_addr())
        else:
            remote = request.remote or ""
            hello = msgspec.structs.replace(hello, addr=_underlay(hello.addr, remote))
            await self._term.serve(socket, peer.node_id, hello, remote)
        return socket


async def _hello(socket: web.WebSocketResponse) -> Hello:
    """The first message. Raises ProtocolError."""
    try:
        frame = await socket.receive(timeout=HELLO_TIMEOUT_S)
    except TimeoutError:
        raise ProtocolError(f"no hello within {HELLO_TIMEOUT_S:g} s") from None
    message = read(frame)
    if not isinstance(message, Hello):
        raise ProtocolError("a session begins with a hello")
    return message


async def _redirect(socket: web.WebSocketResponse, leader_addr: str) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.send_bytes(encode(Redirect(leader_addr=leader_addr)))
    except (TimeoutError, ConnectionError, RuntimeError):
        log.debug("event=redirect-failed")
    await close(socket, WSCloseCode.GOING_AWAY, "this manager does not lead")


def _underlay(address: str, remote: str) -> str:
    """Where others reach the node's data plane: what it says, if that is an address, else where it calls from."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return remote
