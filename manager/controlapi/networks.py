"""/networks of swarm scope: create, list, inspect, remove. What is local to a host is that host's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from shoal.api.errors import Conflict, NotFound
from shoal.api.objects import Network, NetworkAttachment, Task
from shoal.api.query import Filters, labels_match
from shoal.api.specs import NODE_LOCAL, NetworkSpec
from shoal.api.states import TaskState
from shoal.manager.allocator.ipam import check_pools
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.errors import precondition
from shoal.manager.controlapi.lookups import find_network
from shoal.manager.controlapi.requests import body, filters, flag, reply, version_of
from shoal.manager.controlapi.wire_network import NetworkWire, network_json, network_spec
from shoal.manager.controlapi.writes import applied_before, change, id_for, request_id_of
from shoal.manager.store.changes import Create, Delete
from shoal.manager.store.state import State

_FILTERS = frozenset({"id", "name", "driver", "label", "scope", "type", "dangling"})


class NetworkRoutes:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/networks", self.list),
            web.post("/networks/create", self.create),
            web.get("/networks/{id}", self.inspect),
            web.delete("/networks/{id}", self.remove),
        ]

    async def create(self, request: web.Request) -> web.Response:
        context, request_id = self._context, request_id_of(self._context, request)
        spec = network_spec(await body(request, NetworkWire))
        network_id = id_for(request_id)

        def decide(view: State) -> Sequence[Create]:
            if view.named("network", spec.name) is not None:
                raise Conflict(f"network with name {spec.name} already exists")
            check_pools(spec.pools, taken_subnets(view))
            return [Create(record=Network(id=network_id, spec=spec))]

        if not applied_before(context, request_id):
            await change(context, decide, request_id)
        return reply({"Id": network_id, "Warning": ""}, 201)

    async def list(self, request: web.Request) -> web.Response:
        wanted = filters(request, _FILTERS)
        await self._context.store.read_barrier()
        view = self._context.store.view()
        used = _used(view) if "dangling" in wanted else frozenset()
        found = [network for network in view.networks.values() if _matches(network, wanted, used)]
        found.sort(key=lambda network: network.spec.name)
        return reply([network_json(network, version_of(request)) for network in found])

    async def inspect(self, request: web.Request) -> web.Response:
        if request.query.get("scope", "") not in ("", "swarm", "global"):
            raise NotFound(f"network {request.match_info['id']} not found")
        await self._context.store.read_barrier()
        view = self._context.store.view()
        network = _named(view, request.match_info["id"])
        shown = network_json(network, version_of(request))
        if flag(request, "verbose"):
            shown["Services"] = _services(view, network)
        return reply(shown)

    async def remove(self, request: web.Request) -> web.Response:
        context, request_id = self._context, request_id_of(self._context, request)

        def decide(view: State) -> Sequence[Delete]:
            network = find_network(view, request.match_info["id"])
            if network.spec.ingress:
                raise precondition("ingress network cannot be removed")
            check_unused(view, network)
            return [Delete(table="network", id=network.id)]

        if not applied_before(context, request_id):
            await change(context, decide, request_id)
        return web.Response(status=204)


def _named(view: State, reference: str) -> Network:
    """A network that services may name. One that every node has by itself has its name for an id. Raises NotFound."""
    if reference in NODE_LOCAL:
        return Network(id=reference, spec=NetworkSpec(name=reference, driver=reference))
    return find_network(view, reference)


def check_unused(view: State, network: Network) -> None:
    """Raises InvalidArgument naming a service, or a task that is to go on running, that is on the network.

    One that is about to stop does not count, nor one of a service that is no more, as with SwarmKit: `docker stack
    rm` removes networks at once after their services, and a host that was lost stops its tasks late or never.
    """
    for service in view.services.values():
        if any(each.target == network.id for each in service.spec.task.networks):
            raise precondition(f"network {network.id} is in use by service {service.id}")
    for task in view.tasks.values():
        if _holds(task, network.id, view):
            raise precondition(f"network {network.id} is in use by task {task.id}")


def taken_subnets(view: State) -> list[tuple[str, str]]:
    """(network name, subnet) of every network of the swarm: given, or asked for and about to be."""
    return [
        (network.spec.name, pool.subnet)
        for network in view.networks.values()
        for pool in (network.ipam or network.spec.pools)
        if pool.subnet
    ]


def _holds(task: Task, network_id: str, view: State) -> bool:
    leaves = task.desired > TaskState.RUNNING or (task.service_id and task.service_id not in view.services)
    if leaves or task.status.state.terminal:
        return False
    return any(each.target == network_id for each in task.spec.networks) or any(
        each.network_id == network_id for each in task.attachments
    )


def _used(view: State) -> frozenset[str]:
    of_services = {each.target for service in view.services.values() for each in service.spec.task.networks}
    live = (task for task in view.tasks.values() if not task.status.state.terminal)
    return frozenset(of_services | {each.network_id for task in live for each in task.attachments})


def _matches(network: Network, wanted: Filters, used: frozenset[str]) -> bool:
    ids, names, drivers = wanted.get("id", ()), wanted.get("name", ()), wanted.get("driver")
    scopes, types, dangling = wanted.get("scope"), wanted.get("type"), wanted.get("dangling")
    is_dangling = bool(dangling) and dangling is not None and dangling[0].lower() in ("1", "true")
    return (
        (not ids or any(each in network.id for each in ids))
        and (not names or any(each in network.spec.name for each in names))
        and (not drivers or network.spec.driver in drivers)
        and labels_match(wanted.get("label", ()), network.spec.labels)
        and (not scopes or "swarm" in scopes)
        and (not types or "custom" in types)
        and (not dangling or (network.id not in used) == is_dangling)
    )


def _services(view: State, network: Network) -> dict[str, Any]:
    """What `docker network inspect --verbose` shows: each service on the network, its VIP and its tasks."""
    shown: dict[str, Any] = {}
    for service in view.services.values():
        if not any(each.target == network.id for each in service.spec.task.networks):
            continue
        vips = [vip.addr for vip in service.endpoint.virtual_ips if vip.network_id == network.id]
        shown[service.spec.name] = {
            "VIP": vips[0].partition("/")[0] if vips else "<nil>",
            "Ports": [],
            "LocalLBIndex": 0,
            "Tasks": [
                {
                    "Name": task.name,
                    "EndpointID": task.id,
                    "EndpointIP": address,
                    "Info": {"Host IP": _host_ip(view, task)},
                }
                for task in sorted(view.service_tasks(service.id), key=lambda each: (each.slot, each.id))
                if not task.status.state.terminal
                for address in _addresses(task.attachments, network.id)
            ],
        }
    return shown


def _addresses(attachments: Sequence[NetworkAttachment], network_id: str) -> list[str]:
    held = [each for each in attachments if each.network_id == network_id and each.addresses]
    return [each.addresses[0].partition("/")[0] for each in held]


def _host_ip(view: State, task: Task) -> str:
    node = view.nodes.get(task.node_id)
    return node.status.addr if node is not None else ""


