"""/raft/v1/members on the managers' port: how a manager comes into Raft, and how it leaves. Served by the leader.

A joiner asks for the members, starts its own Raft node with them, and asks to be added; the
leader adds it once it has seen that it answers. To be asked twice changes nothing, so that
whoever was killed in the middle begins again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import ssl
from collections.abc import Callable

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument, PermissionDenied, Unavailable
from shoal.api.membership import MANAGER_PORTS, RaftMember
from shoal.api.objects import NodeStatus
from shoal.api.states import NodeState, Role
from shoal.manager.ca.identity import PeerIdentity
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.writes import change
from shoal.manager.membership import join_of, manager_address, member_id, node_of, raft_address
from shoal.manager.peers import ManagerTLS
from shoal.manager.store.changes import SetNodeStatus, Update
from shoal.manager.store.raft import Member, RaftNode
from shoal.manager.store.state import State

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4096
PROBE_TIMEOUT_S = 3.0
LEAVE_TIMEOUT_S = 8.0
LEFT = "left the swarm"

_JOIN = re.compile(r"[0-9a-z-]{1,64}")
_encode = msgspec.msgpack.Encoder().encode


class MemberRoutes:
    """`peer` says who calls."""

    def __init__(
        self, context: ControlContext, node: RaftNode, tls: ManagerTLS, peer: Callable[[web.Request], PeerIdentity]
    ) -> None:
        self._context, self._node, self._tls, self._peer = context, node, tls, peer
        self._changing = asyncio.Lock()  # one joiner at a time: each change of members waits for the one before

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/raft/v1/members", self.list),
            web.post("/raft/v1/members", self.add),
            web.delete("/raft/v1/members/{join}", self.leave),
        ]

    async def list(self, request: web.Request) -> web.Response:
        await self._context.store.read_barrier()
        return self._members()

    async def add(self, request: web.Request) -> web.Response:
        """Make the caller a voter, at the address where its Raft node answers."""
        asked = await _body(request)
        member = _member(asked)
        if self._peer(request).node_id != asked.node_id:
            raise PermissionDenied(f"the certificate is not that of node {asked.node_id}")
        async with self._changing:
            self._must_be_wanted(asked.node_id)
            if member not in self._node.members:
                await self._probe(member)
                await self._take_in(member)
                log.info("event=member-added member=%s address=%s", member.id, member.address)
        return self._members()

    def _must_be_wanted(self, node_id: str) -> None:
        node = self._context.store.view().nodes.get(node_id)
        if node is None or node.spec.role is not Role.MANAGER:
            raise PermissionDenied(f"node {node_id} is not to be a manager of this swarm: promote it first")

    async def _take_in(self, member: Member) -> None:
        if any(each.id == member.id for each in self._node.members):
            await self._node.update_address(member)
            return
        for each in self._node.members:  # what its host was before a join that was wiped, or its address another host's
            if node_of(each.id) == node_of(member.id) or each.address == member.address:
                if each.id == self._node.me.id:
                    raise InvalidArgument(f"{member.address} is the address of the leader itself")
                log.info("event=member-removed member=%s why=replaced by %s", each.id, member.id)
                await self._node.remove_member(each.id)
        await self._node.add_member(member)

    async def _probe(self, member: Member) -> None:
        """See that the joiner's Raft node can be reached from here, and is its. Raises Unavailable."""
        host, _, port = member.address.rpartition(":")
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                _, writer = await asyncio.open_connection(
                    host.strip("[]"), int(port), ssl=self._tls.fresh().to_managers)
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"the leader cannot reach the manager at {member.address} "
                              f"({str(error) or type(error).__name__}): is the port open?") from error
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        found = self._tls.for_raft(self._cluster_id()).peer_id(connection)
        writer.transport.abort()
        if found != node_of(member.id):
            raise Unavailable(f"another node answers at {member.address}")

    def _cluster_id(self) -> str:
        cluster = self._context.store.view().cluster
        if cluster is None:
            raise Unavailable("this manager has not caught up with the swarm yet: try again")
        return cluster.id

    async def leave(self, request: web.Request) -> web.Response:
        """The caller's host leaves the swarm: it is a worker from now on, and down. Returns once it is out of Raft."""
        member = member_id(self._peer(request).node_id, request.match_info["join"])
        await mark_left(self._context, node_of(member))
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._node.wait_for(lambda: all(each.id != member for each in self._node.members))
        except TimeoutError as error:
            raise Unavailable(f"the managers could not be brought to agree that {member} leaves") from error
        return web.Response()

    def _members(self) -> web.Response:
        members = [
            RaftMember(raft_id=join_of(each.id), node_id=node_of(each.id), addr=each.address,
                       manager_addr=manager_address(each))
            for each in self._node.members
        ]
        return web.Response(body=_encode(members), content_type="application/msgpack")


async def mark_left(context: ControlContext, node_id: str) -> None:
    """A manager that leaves is a worker, so that the members drop it, and down."""

    def decide(view: State) -> list[Update | SetNodeStatus]:
        node = view.nodes.get(node_id)
        if node is None or node.spec.role is Role.WORKER:  # demoted: it may well stay in the swarm
            return []
        spec = msgspec.structs.replace(node.spec, role=Role.WORKER)
        status = NodeStatus(state=NodeState.DOWN, message=LEFT, addr=node.status.addr)
        return [Update(record=msgspec.structs.replace(node, spec=spec, role=Role.WORKER), wanted=True),
                SetNodeStatus(id=node_id, status=status)]

    await change(context, decide, request_id="")


def _member(asked: RaftMember) -> Member:
    """Raises InvalidArgument."""
    host, _, port = asked.manager_addr.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        raft = raft_address(host.strip("[]"), int(port))
    except ValueError as error:
        raise InvalidArgument(f"invalid address {asked.manager_addr!r:.100} of a manager") from error
    if int(port) not in MANAGER_PORTS or asked.addr != raft:
        raise InvalidArgument(f"a manager's Raft listens at the port above its own, not at {asked.addr!r:.100}")
    if not _JOIN.fullmatch(asked.raft_id):
        raise InvalidArgument("invalid id of a join")
    return Member(member_id(asked.node_id, asked.raft_id), asked.addr)


async def _body(request: web.Request) -> RaftMember:
    raw = await request.read()
    if len(raw) > MAX_BODY_BYTES:
        raise InvalidArgument("the request is too large")
    try:
        return msgspec.msgpack.decode(raw, type=RaftMember)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"the request cannot be read: {error}") from error
