"""Which nodes may run a task, and in words why the others may not. Pure.

Each filter is one fact about (task, node) with an explanation of its own; the
pipeline asks them in order and counts whom each refused. Source of the words
and their order: SwarmKit, manager/scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from shoal.api.objects import Node, Task
from shoal.api.specs import Platform
from shoal.api.states import Availability, NodeState
from shoal.manager.scheduler.constraints import node_satisfies, normal_architecture
from shoal.manager.scheduler.nodeset import NodeInfo


class Filter(Protocol):
    """One reason for which a node may not run a task."""

    def applies(self, task: Task) -> bool:
        """Whether the task asks for anything that this filter checks."""

    def refusal(self, task: Task, info: NodeInfo) -> str:
        """What the node is refused for; "" where it is not. Equal refusals are counted together."""

    def explain(self, refusal: str, nodes: int) -> str:
        """The refusal of so many nodes, in words."""


def _on(nodes: int) -> str:
    return "on 1 node" if nodes == 1 else f"on {nodes} nodes"


class Ready:
    def applies(self, task: Task) -> bool:
        return True

    def refusal(self, task: Task, info: NodeInfo) -> str:
        ready = info.node.status.state == NodeState.READY and info.node.spec.availability == Availability.ACTIVE
        return "" if ready else "ready"

    def explain(self, refusal: str, nodes: int) -> str:
        return ("1 node" if nodes == 1 else f"{nodes} nodes") + " not available for new tasks"


class Resource:
    """Names the kind that is lacking: more than SwarmKit's "insufficient resources"."""

    def applies(self, task: Task) -> bool:
        reserved = task.spec.resources.reservations
        return bool(reserved.nano_cpus or reserved.memory_bytes or reserved.generic)

    def refusal(self, task: Task, info: NodeInfo) -> str:
        return info.lacking(task.spec.resources.reservations)

    def explain(self, refusal: str, nodes: int) -> str:
        return f"insufficient {refusal} {_on(nodes)}"


class Plugin:
    """A volume's or log's driver that is not built in has to be on the node."""

    def applies(self, task: Task) -> bool:
        return bool(_volume_drivers(task))

    def refusal(self, task: Task, info: NodeInfo) -> str:
        present = {name for kind, name in info.node.description.plugins if kind == "Volume"}
        return "" if _volume_drivers(task) <= present else "plugin"

    def explain(self, refusal: str, nodes: int) -> str:
        return f"missing plugin {_on(nodes)}"


class Constraint:
    def applies(self, task: Task) -> bool:
        return bool(task.spec.placement.constraints)

    def refusal(self, task: Task, info: NodeInfo) -> str:
        return "" if node_satisfies(task.spec.placement.constraints, info.node) else "constraint"

    def explain(self, refusal: str, nodes: int) -> str:
        return f"scheduling constraints not satisfied {_on(nodes)}"


class PlatformFilter:
    def applies(self, task: Task) -> bool:
        return bool(task.spec.placement.platforms)

    def refusal(self, task: Task, info: NodeInfo) -> str:
        return "" if platform_fits(task.spec.placement.platforms, info.node) else "platform"

    def explain(self, refusal: str, nodes: int) -> str:
        return f"unsupported platform {_on(nodes)}"


class HostPort:
    def applies(self, task: Task) -> bool:
        return any(port.published_port for port in task.ports)

    def refusal(self, task: Task, info: NodeInfo) -> str:
        taken = any(info.host_ports.get((port.protocol, port.published_port)) for port in task.ports)
        return "port" if taken else ""

    def explain(self, refusal: str, nodes: int) -> str:
        return f"host-mode port already in use {_on(nodes)}"


class MaxReplicas:
    def applies(self, task: Task) -> bool:
        return task.spec.placement.max_replicas > 0

    def refusal(self, task: Task, info: NodeInfo) -> str:
        full = info.service_count(task.service_id) >= task.spec.placement.max_replicas
        return "replicas" if full else ""

    def explain(self, refusal: str, nodes: int) -> str:
        return "max replicas per node limit exceed"


FILTERS: tuple[Filter, ...] = (
    Ready(), Resource(), Plugin(), Constraint(), PlatformFilter(), HostPort(), MaxReplicas(),
)  # fmt: skip


class Pipeline:
    """The filters that one task asks for, and whom they refused."""

    def __init__(self, task: Task, filters: Sequence[Filter] = FILTERS) -> None:
        self._task = task
        self._filters = [each for each in filters if each.applies(task)]
        self._refused: dict[tuple[int, str], int] = {}

    def admits(self, info: NodeInfo) -> bool:
        """Whether the node passes every filter; the first that it fails is counted."""
        for position, each in enumerate(self._filters):
            refusal = each.refusal(self._task, info)
            if refusal:
                self._refused[(position, refusal)] = self._refused.get((position, refusal), 0) + 1
                return False
        return True

    def explain(self) -> str:
        """Why nodes were refused, the most frequent reason first."""
        ordered = sorted(self._refused.items(), key=lambda item: (-item[1], item[0]))
        return "; ".join(self._filters[position].explain(word, nodes) for (position, word), nodes in ordered)


def platform_fits(platforms: Sequence[Platform], node: Node) -> bool:
    """Whether a node is one of these platforms; an empty field of one matches everything."""
    if not platforms:
        return True
    os, architecture = node.description.os.lower(), normal_architecture(node.description.architecture)
    return any(
        platform.os.lower() in ("", os)
        and (not platform.architecture or normal_architecture(platform.architecture) == architecture)
        for platform in platforms
    )


def _volume_drivers(task: Task) -> set[str]:
    container = task.spec.container
    mounts = container.mounts if container is not None else ()
    drivers = {_driver(mount.options) for mount in mounts if mount.type == "volume"}
    return drivers - {"", "local"}


def _driver(options: dict[str, object]) -> str:
    volume = options.get("VolumeOptions", options)
    driver = volume.get("DriverConfig") if isinstance(volume, dict) else None
    name = driver.get("Name") if isinstance(driver, dict) else ""
    return name if isinstance(name, str) else ""
