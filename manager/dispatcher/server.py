"""The route of the hosts' sessions on port 2377, on every manager; the leader serves them, others redirect.

What a term of office knows of sessions lives in `term.py` and ends with it: a
manager that takes over learns everything from the store and from the agents.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiohttp import WSMsgType, web

from shoal.api.errors import PermissionDenied, Unavailable
from shoal.api.ids import new_swarm_id
from shoal.api.messages import MAX_FRAME_BYTES, Redirect, encode
from shoal.manager.ca.identity import peer_identity
from shoal.manager.controlloop import Store

log = logging.getLogger(__name__)

PATH = "/dispatcher/v1/session"


class Dispatcher:
    """One for the process. `routes` are mounted once; `run` is one of the leader's loops, in each term anew.

        dispatcher = Dispatcher(node_id=…, leader_addr=lambda: "host:2377 of the leader, or empty")
        server.start(…, [*ca_routes(…), *dispatcher.routes()])     # behind mutual TLS, with `api_errors`
        loops = lambda store: [drive(…), …, dispatcher.run(store)]

    `clock` is monotonic seconds, `now` seconds since the epoch.
    """

    def __init__(
        self, *, node_id: str, leader_addr: Callable[[], str], clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time, mint_id: Callable[[], str] = new_swarm_id,
    ) -> None:
        self._node_id = node_id
        self._leader_addr = leader_addr
        self._clock, self._now, self._mint_id = clock, now, mint_id

    def routes(self) -> list[web.RouteDef]:
        """The session's route. It checks the certificate against the store by itself, workers' and managers' alike."""
        return [web.get(PATH, self._session)]

    async def run(self, store: Store) -> None:
        """Serve sessions for one term of office, until cancelled; every session then ends with a `Redirect`.

        `store`: as for `controlloop.drive`. Raises NoLeader where a proposal shows that the term is over.
        """
        await asyncio.Event().wait()

    async def _session(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        peer = peer_identity(transport.get_extra_info("ssl_object")) if transport is not None else None
        if peer is None:
            raise PermissionDenied("a node certificate of this swarm is needed for this")
        socket = web.WebSocketResponse(autoping=False, max_msg_size=MAX_FRAME_BYTES, compress=False)
        await socket.prepare(request)
        hello = await socket.receive(timeout=5)
        if hello.type is not WSMsgType.BINARY:
            raise Unavailable("a session begins with a hello")
        await socket.send_bytes(encode(Redirect(leader_addr=self._leader_addr())))
        await socket.close()
        return socket
