"""Every request for the swarm reaches the leader, whichever manager was asked.

The manager that a request comes to answers it where it leads, else passes it to the
leader on its port and hands the answer on as it comes. A request that changes
something gets an id before its first try, and each try carries it: the leader's store
applies it once. So a try is repeated whenever its fate is not known, at the leader of
then, and a write issued during an election succeeds as soon as there is a leader.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from shoal.api.errors import NoLeader, NotManager, Unavailable
from shoal.manager.controlapi.requests import MAX_BODY_BYTES
from shoal.manager.controlapi.writes import REQUEST_ID
from shoal.manager.membership import RaftMembership
from shoal.manager.peers import RETRY, Peers, watch_for_death
from shoal.manager.store.raft import OutcomeUnknown, RaftNode

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORWARDED = "X-Shoal-Forwarded"
"""Header of a request that a manager passed on: it is never passed on again."""

WRITE_PATIENCE_S = 8.0
READ_PATIENCE_S = 4.0
"""For so long a leader is waited for."""

BODY_TIMEOUT_S = 30.0
PAUSE_S = 0.05
NO_LEADER = (
    "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are "
    "online. Make sure more than half of the managers are online."
)

NOT_A_MANAGER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this "
    "command on a manager node or promote the current node to a manager."
)

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "host", "content-length", "te",
                         "trailer", "proxy-authorization", "proxy-authenticate", RETRY.lower()})


class Front:
    """`lead` a request, with the handler that answers it where this manager leads."""

    def __init__(self, node: RaftNode, membership: RaftMembership, peers: Peers) -> None:
        self._node, self._membership, self._peers = node, membership, peers

    async def lead(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The leader's answer. Raises NoLeader where there is none in time, OutcomeUnknown where a write's fate stays
        unknown, NotManager where this one was taken out."""
        if self._node.is_removed:
            raise NotManager(NOT_A_MANAGER)
        loop = asyncio.get_running_loop()
        reads = request.method in _READS
        deadline = loop.time() + (READ_PATIENCE_S if reads else WRITE_PATIENCE_S)
        request = request if reads else with_id(request)
        body = await _body(request)
        while True:
            try:
                if self._node.is_ready:
                    return await handler(request)
                return await self._forward(request, body)
            except (NoLeader, OutcomeUnknown) as error:
                if request.writer.output_size > 0:
                    raise
                if loop.time() > deadline:
                    raise self._last_word(error) from error
                log.debug("event=asked-again method=%s path=%s why=%s", request.method, request.path, error)
            await self._news()

    def _last_word(self, error: Unavailable) -> Unavailable:
        return error if self._membership.leader_address() else NoLeader(NO_LEADER)

    async def _news(self) -> None:
        """Wait a little, less where a leader appears."""
        before = self._membership.leader_address()
        try:
            async with asyncio.timeout(PAUSE_S):
                await self._node.wait_for(lambda: self._node.is_ready or self._membership.leader_address() != before)
        except TimeoutError:
            return

    async def _forward(self, request: web.Request, body: bytes) -> web.StreamResponse:
        leader = self._membership.leader_address()
        if not leader or self._node.is_leader:
            raise NoLeader(NO_LEADER)
        answer = await self._ask(leader, request, body)
        try:
            if RETRY in answer.headers:
                raise NoLeader(f"manager {leader} does not lead any more")
            return await _hand_on(request, answer)
        finally:
            answer.close()  # no-op where it was read to its end: the connection is kept then

    async def _ask(self, leader: str, request: web.Request, body: bytes) -> aiohttp.ClientResponse:
        """The leader's answer, as far as its headers. Raises OutcomeUnknown, also as soon as another one leads: a
        host that lost its power says nothing."""
        headers = CIMultiDict((key, value) for key, value in request.headers.items() if key.lower() not in _HOP_BY_HOP)
        headers[FORWARDED] = self._node.me.id
        url = URL(f"https://{leader}{request.raw_path}", encoded=True)
        asking = asyncio.ensure_future(self._peers.managers().request(
            request.method, url, data=body or None, headers=headers, allow_redirects=False))
        changing = asyncio.ensure_future(self._node.wait_for(lambda: self._membership.leader_address() != leader))
        try:
            await asyncio.wait({asking, changing}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise OutcomeUnknown(f"the leader {leader} was lost")
            return await asking
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NoLeader(f"the leader {leader} cannot be reached: {error}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise OutcomeUnknown(f"the leader {leader} broke off: {str(error) or type(error).__name__}") from error
        except asyncio.CancelledError:
            asking.add_done_callback(_drop)
            raise
        finally:
            for future in (asking, changing):
                future.cancel()
            await asyncio.gather(asking, changing, return_exceptions=True)


async def _body(request: web.Request) -> bytes:
    """Raises aiohttp's 413 and, from who does not send what was announced, 408."""
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text="the request's body did not come in time") from error


def _drop(asking: asyncio.Future[aiohttp.ClientResponse]) -> None:
    """An answer that came when nobody wanted it any more."""
    if not asking.cancelled() and asking.exception() is None:
        asking.result().close()


async def _hand_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Status, headers and body as they come. A body that breaks off breaks off here too."""
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for key, value in answer.headers.items():
        if key.lower() not in _HOP_BY_HOP:
            response.headers[key] = value
    if (length := answer.headers.get("Content-Length")) is not None:
        response.content_length = int(length)
    else:
        watch_for_death(answer)
    await response.prepare(request)
    try:
        async for part in answer.content.iter_any():
            await response.write(part)
    except aiohttp.ClientError as error:
        raise ConnectionResetError(f"the leader broke off: {error}") from error
    await response.write_eof()
    return response


def with_id(request: web.Request) -> web.Request:
    """The request with an id, the same at each of its tries."""
    return request if request.headers.get(REQUEST_ID) else with_fresh_id(request)


def with_fresh_id(request: web.Request) -> web.Request:
    """The same, whatever id a stranger has given it."""
    headers = CIMultiDict(request.headers)
    headers[REQUEST_ID] = secrets.token_hex(16)
    return request.clone(headers=headers)
