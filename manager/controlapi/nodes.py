"""/nodes: list, inspect, update (role, availability, labels), remove."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument
from shoal.api.objects import Node
from shoal.api.query import Filters, labels_match
from shoal.api.states import NodeState, Role
from shoal.manager.controlapi.context import ControlContext, Membership
from shoal.manager.controlapi.errors import out_of_sequence, precondition
from shoal.manager.controlapi.lookups import cluster_of, find_node
from shoal.manager.controlapi.requests import NODE_ID, body, filters, flag, object_version, prefix_match, reply
from shoal.manager.controlapi.wire_node import NodeSpecWire, TLSInfoWire, node_json, node_spec
from shoal.manager.controlapi.wire_swarm import tls_info
from shoal.manager.controlapi.writes import applied_before, change, request_id_of
from shoal.manager.store.changes import Delete, Update
from shoal.manager.store.state import State

_FILTERS = frozenset({"id", "label", "membership", "name", "node.label", "role"})


class NodeRoutes:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/nodes", self.list),
            web.get("/nodes/{id}", self.inspect),
            web.delete("/nodes/{id}", self.remove),
            web.post("/nodes/{id}/update", self.update),
        ]

    async def list(self, request: web.Request) -> web.Response:
        wanted = filters(request, _FILTERS)
        _check_words(wanted, "role", ("worker", "manager"))
        _check_words(wanted, "membership", ("accepted", "pending"))
        await self._context.store.read_barrier()
        view = self._context.store.view()
        tls = tls_info(cluster_of(view))
        found = sorted((node for node in view.nodes.values() if _matches(node, wanted)), key=lambda node: node.id)
        return reply([self._shown(node, tls) for node in found])

    async def inspect(self, request: web.Request) -> web.Response:
        await self._context.store.read_barrier()
        view = self._context.store.view()
        return reply(self._shown(self._find(view, request), tls_info(cluster_of(view))))

    async def update(self, request: web.Request) -> web.Response:
        context, request_id = self._context, request_id_of(self._context, request)
        version, wire = object_version(request), await body(request, NodeSpecWire)

        def decide(view: State) -> Sequence[Update]:
            node = self._find(view, request)
            if node.meta.version != version:
                raise out_of_sequence()
            spec = node_spec(wire, node.spec)
            if node.spec.role is Role.MANAGER and spec.role is Role.WORKER:
                check_demotion(view, node, context.membership)
            return [Update(record=msgspec.structs.replace(node, spec=spec), wanted=True)]

        if not applied_before(context, request_id):
            await change(context, decide, request_id)
        return web.Response()

    async def remove(self, request: web.Request) -> web.Response:
        context, request_id = self._context, request_id_of(self._context, request)
        force = flag(request, "force")

        def decide(view: State) -> Sequence[Delete]:
            node = self._find(view, request)
            check_removal(node, context.membership, force)
            return [Delete(table="node", id=node.id, revision=node.meta.revision)]

        if not applied_before(context, request_id):
            await change(context, decide, request_id)
        return web.Response()

    def _find(self, view: State, request: web.Request) -> Node:
        return find_node(view, request.match_info["id"], request.headers.get(NODE_ID, self._context.node_id))

    def _shown(self, node: Node, tls: TLSInfoWire) -> dict[str, Any]:
        membership = self._context.membership
        return node_json(
            node, tls, leader=node.id == membership.leader_node_id(), reachable=membership.reachable(node.id)
        )


def check_demotion(view: State, node: Node, membership: Membership) -> None:
    """Raises InvalidArgument where the swarm would be left without a manager, or its managers without a quorum."""
    others = [each for each in view.nodes.values() if each.spec.role is Role.MANAGER and each.id != node.id]
    if not others:
        raise precondition("attempting to demote the last manager of the swarm")
    members = [each for each in membership.manager_node_ids() if each != node.id]
    reachable = sum(1 for each in members if membership.reachable(each))
    if reachable < len(members) // 2 + 1:
        raise precondition("can't remove member from the raft: this would result in a loss of quorum")


def check_removal(node: Node, membership: Membership, force: bool) -> None:
    """Raises InvalidArgument for a manager, and for a node that is not down unless forced."""
    if node.spec.role is Role.MANAGER or node.id in membership.manager_node_ids():
        raise precondition(
            f"node {node.id} is a cluster manager and is a member of the raft cluster. "
            "It must be demoted to worker before removal"
        )
    if not force and node.status.state is NodeState.READY:
        raise precondition(f"node {node.id} is not down and can't be removed")


def _matches(node: Node, wanted: Filters) -> bool:
    roles, membership = wanted.get("role"), wanted.get("membership")
    return (
        prefix_match(wanted.get("id", ()), node.id)
        and prefix_match(wanted.get("name", ()), node.spec.name, node.description.hostname)
        and labels_match(wanted.get("label", ()), node.description.engine_labels)
        and labels_match(wanted.get("node.label", ()), node.spec.labels)
        and (not roles or node.spec.role.value in roles)
        and (not membership or "accepted" in membership)
    )


def _check_words(wanted: Filters, key: str, words: tuple[str, ...]) -> None:
    for value in wanted.get(key, ()):
        if value not in words:
            raise InvalidArgument(f"invalid filter '{key}={value}'")
