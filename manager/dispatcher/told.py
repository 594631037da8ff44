"""From records of the store to what a host is told of them. Pure."""

from __future__ import annotations

import msgspec

from shoal.api.messages import NetworkEndpoint, NetworkInfo, NetworkService
from shoal.api.objects import Network, NetworkAttachment, Node, Service, Task, TaskStatus
from shoal.api.states import NodeState, TaskState
from shoal.manager.controlapi.wire_network import MTU_OPTION
from shoal.manager.store.state import State

DEFAULT_MTU = 1450
SHORT_ID = 12
_UNSEEN = TaskStatus()


class KnownTask(msgspec.Struct, frozen=True):
    """A task with a node, and what other nodes are told of it."""

    task: Task
    wanted: bool
    endpoints: tuple[NetworkEndpoint, ...] = ()  # until its container has really stopped


def known_task(task: Task | None, state: State) -> KnownTask | None:
    """What is to be told of a task; None while no agent is concerned."""
    if task is None or not task.node_id or task.status.state < TaskState.ASSIGNED:
        return None
    node = state.nodes.get(task.node_id)
    endpoints: tuple[NetworkEndpoint, ...] = ()
    if node is not None and not task.status.state.terminal:
        endpoints = tuple(_endpoint(task, each, node) for each in task.attachments if each.addresses)
    return KnownTask(task, task.desired <= TaskState.RUNNING, endpoints)


def same_for_its_node(old: Task, new: Task) -> bool:
    """Whether they differ in nothing but their status: that is the node's own news, and not sent back to it."""
    return msgspec.structs.replace(old, status=_UNSEEN) == msgspec.structs.replace(new, status=_UNSEEN)


def _endpoint(task: Task, place: NetworkAttachment, node: Node) -> NetworkEndpoint:
    return NetworkEndpoint(
        id=task.id,
        network_id=place.network_id,
        address=place.addresses[0].partition("/")[0],
        mac=place.mac,
        node_id=node.id,
        node_addr=node.status.addr,
        names=_names(task, place),
        service_name=task.service_name,
        healthy=is_healthy(task, node),
    )


def is_healthy(task: Task, node: Node | None) -> bool:
    """Whether it may take new connections: it runs, it should, and its node can be reached."""
    return task.status.state == TaskState.RUNNING and task.desired <= TaskState.RUNNING and reachable(node)


def reachable(node: Node | None) -> bool:
    return node is not None and node.status.state != NodeState.DOWN


def _names(task: Task, place: NetworkAttachment) -> tuple[str, ...]:
    """What the endpoint alone answers to. A service's aliases lead to its VIP, so they are not its tasks'."""
    if task.spec.attachment is not None:
        names = [*place.aliases, task.spec.attachment[:SHORT_ID]]
    else:
        names = [task.name]
        hostname = task.spec.container.hostname if task.spec.container is not None else ""
        if hostname and "{{" not in hostname:
            names.append(hostname)
        if task.status.state == TaskState.RUNNING and task.status.container is not None:
            names.append(task.status.container.container_id[:SHORT_ID])
    return tuple(dict.fromkeys(name for name in names if name))


def network_info(network: Network | None) -> NetworkInfo | None:
    """A network as hosts need it; None while it has no subnet or VNI."""
    if network is None or not network.vni or not network.ipam:
        return None
    spec, ipam = network.spec, network.ipam[0]
    mtu = spec.driver_opts.get(MTU_OPTION, "")
    return NetworkInfo(
        id=network.id,
        name=spec.name,
        driver=spec.driver,
        vni=network.vni,
        subnet=ipam.subnet,
        gateway=ipam.gateway,
        internal=spec.internal,
        attachable=spec.attachable,
        mtu=int(mtu) if mtu.isdigit() and int(mtu) else DEFAULT_MTU,
        options=spec.driver_opts,
        labels=spec.labels,
    )


def service_networks(service: Service | None) -> tuple[str, ...]:
    """The networks on which a service has a name."""
    return () if service is None else tuple(each.target for each in service.spec.task.swarm_networks)


def service_on(service: Service, network_id: str, backends: tuple[str, ...]) -> NetworkService | None:
    """A service on a network; None where it is not on it, or has no VIP yet: its name answered with backends else."""
    place = next((each for each in service.spec.task.networks if each.target == network_id), None)
    vips = [each.addr.partition("/")[0] for each in service.endpoint.virtual_ips if each.network_id == network_id]
    if place is None or (service.spec.endpoint.mode == "vip" and not vips):
        return None
    return NetworkService(
        id=service.id,
        network_id=network_id,
        name=service.spec.name,
        vip=vips[0] if vips else "",
        aliases=place.aliases,
        backends=backends,
    )

