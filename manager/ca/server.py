"""The CA's routes on the managers' port: the root certificate, joining, renewing. Served by the leader.

Joining needs a token and no certificate, renewing a certificate and no token. What
is asked for is checked before anything is stored; the role that the store wants of
a node decides what it gets.
"""

from __future__ import annotations

import logging
from typing import TypeVar

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from shoal.api.membership import CertificateReply, CertificateRequest
from shoal.api.messages import ManagerPeer
from shoal.api.objects import Cluster, Node, NodeDescription, NodeStatus
from shoal.api.specs import NodeSpec
from shoal.api.states import NodeState, Role
from shoal.manager.ca.identity import peer_identity
from shoal.manager.ca.issue import issue
from shoal.manager.ca.tokens import role_of
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.writes import change, id_for, request_id_of, submit
from shoal.manager.store.changes import Create, Update
from shoal.manager.store.state import State

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 << 10

_T = TypeVar("_T")
_encode = msgspec.msgpack.Encoder().encode


def ca_routes(context: ControlContext) -> list[web.RouteDef]:
    """The routes; mount them with the middleware `controlapi.errors.api_errors`."""
    server = CAServer(context)
    return [
        web.get("/ca/v1/root", server.root),
        web.post("/ca/v1/join", server.join),
        web.post("/ca/v1/renew", server.renew),
    ]


class CAServer:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    async def root(self, request: web.Request) -> web.Response:
        """The root certificates. They are no secret; the caller compares them with its token's digest."""
        cluster = _cluster(self._context.store.view())
        return web.Response(text=cluster.root_ca.cert_pem, content_type="application/x-pem-file")

    async def join(self, request: web.Request) -> web.Response:
        """Take a host in: a node record in the token's role, and its first certificate."""
        asked = await _body(request, CertificateRequest)
        view, now = self._context.store.view(), self._context.now()
        cluster = _cluster(view)
        role = role_of(asked.token, cluster)
        request_id = request_id_of(self._context, request)
        node_id = id_for(request_id)  # the same at each try of whoever passes it on
        certificate = _issue(cluster, asked.csr_pem, node_id, role, now)  # refuses a bad request before it is stored
        node = Node(
            id=node_id,
            spec=NodeSpec(role=role, availability=asked.availability),
            role=role,
            description=NodeDescription(hostname=asked.hostname[:253]),
            status=NodeStatus(state=NodeState.UNKNOWN, addr=request.remote or ""),
        )
        await submit(self._context, [Create(record=node)], request_id)
        log.info("joined node=%s role=%s hostname=%s from=%s", node_id, role, asked.hostname, request.remote)
        return _reply(view, cluster, node_id, role, certificate)

    async def renew(self, request: web.Request) -> web.Response:
        """A new certificate for a node that is known, in the role that is wanted of it.

        Its certificate names it. One that has expired opens no connection any more: then a token
        of the node's role and its id do, while the node is not there to object.
        """
        asked = await _body(request, CertificateRequest)
        view, now = self._context.store.view(), self._context.now()
        cluster = _cluster(view)
        node = self._renewing(request, asked, view, cluster)
        role = node.spec.role
        certificate = _issue(cluster, asked.csr_pem, node.id, role, now)
        if node.role is not role:

            def in_role(current: State) -> list[Update]:
                stored = current.nodes.get(node.id)
                if stored is None or stored.spec.role is not role:
                    raise Unavailable(f"node {node.id} changed meanwhile: renew again")
                return [Update(record=msgspec.structs.replace(stored, role=role))]

            await change(self._context, in_role, request_id="")
        log.info("renewed node=%s role=%s", node.id, role)
        return _reply(view, cluster, node.id, role, certificate)

    def _renewing(self, request: web.Request, asked: CertificateRequest, view: State, cluster: Cluster) -> Node:
        transport = request.transport
        peer = peer_identity(transport.get_extra_info("ssl_object")) if transport is not None else None
        if peer is not None:
            node = view.nodes.get(peer.node_id)
            if peer.cluster_id != cluster.id or node is None:
                raise PermissionDenied(f"node {peer.node_id} is not part of this swarm (any more): join it again")
            return node
        if not asked.token:
            raise PermissionDenied("a node certificate of this swarm is needed for this")
        role, node = role_of(asked.token, cluster), view.nodes.get(asked.node_id)
        if node is None:
            raise NotFound(f"node {asked.node_id} not found")
        if role is not node.spec.role:
            raise InvalidArgument(f"a join token for {node.spec.role}s is necessary: node {node.id} is one")
        if node.status.state is NodeState.READY:
            raise PermissionDenied(f"node {node.id} is there: it renews with its own certificate")
        return node


def manager_peers(view: State) -> tuple[ManagerPeer, ...]:
    """Where the managers serve, by node id."""
    return tuple(
        ManagerPeer(node_id=node.id, addr=node.manager.addr)
        for node in sorted(view.nodes.values(), key=lambda each: each.id)
        if node.manager is not None
    )


def _issue(cluster: Cluster, csr_pem: str, node_id: str, role: Role, now: float) -> str:
    return issue(
        cluster.root_ca,
        csr_pem,
        node_id=node_id,
        role=role,
        cluster_id=cluster.id,
        lifetime_ns=cluster.spec.node_cert_expiry_ns,
        now=now,
    )


def _reply(view: State, cluster: Cluster, node_id: str, role: Role, certificate: str) -> web.Response:
    reply = CertificateReply(
        node_id=node_id,
        cluster_id=cluster.id,
        role=role,
        certificate_pem=certificate,
        root_ca_pem=cluster.root_ca.cert_pem,
        managers=manager_peers(view),
    )
    return web.Response(body=_encode(reply), content_type="application/msgpack")


def _cluster(view: State) -> Cluster:
    if view.cluster is None:
        raise Unavailable("this manager has not caught up with the swarm yet: try again")
    return view.cluster


async def _body(request: web.Request, kind: type[_T]) -> _T:
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise InvalidArgument("the request is too large")
    raw = await request.read()  # a manager that passes it on has read it before; the application bounds it
    if len(raw) > MAX_BODY_BYTES:
        raise InvalidArgument("the request is too large")
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"the request cannot be read: {error}") from error
