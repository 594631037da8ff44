"""What the scheduler knows of each node: what is free on it, and who runs there. Pure.

Kept up by events: the cost of a change is that change's alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from shoal.api.objects import Node, Task
from shoal.api.specs import Resources
from shoal.api.states import TaskState

FAILURE_WINDOW_S = 300.0
"""Failures of a specification on a node count for this long."""

MANY_FAILURES = 5
"""A node with as many recent failures of a specification is chosen last."""


class NodeInfo:
    """One node and the tasks that hold something of it.

    Invariant: `used_*` and `host_ports` are the sums over `_held`; the counts are over its live tasks.
    """

    __slots__ = ("_failures", "_held", "active", "by_service", "host_ports", "node", "used_cpus",
                 "used_generic", "used_memory")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.used_cpus = 0
        self.used_memory = 0
        self.used_generic: dict[str, int] = {}
        self.host_ports: dict[tuple[str, int], int] = {}
        self.active = 0  # live tasks in all
        self.by_service: dict[str, int] = {}  # live tasks of each service
        self._held: dict[str, Task] = {}
        self._failures: dict[object, deque[float]] = {}

    def hold(self, task: Task) -> None:
        """Take in a task that was given to this node, or its newest record.

        One that has its node from the start holds nothing before it is ASSIGNED.
        """
        self.release(task.id)
        if task.status.state.terminal or task.status.state < TaskState.ASSIGNED:
            return
        self._held[task.id] = task
        self._count(task, 1)

    def release(self, task_id: str) -> None:
        """The task holds nothing here any more."""
        task = self._held.pop(task_id, None)
        if task is not None:
            self._count(task, -1)

    def holds(self, task_id: str) -> bool:
        return task_id in self._held

    def _count(self, task: Task, sign: int) -> None:
        reserved = task.spec.resources.reservations
        self.used_cpus += sign * reserved.nano_cpus
        self.used_memory += sign * reserved.memory_bytes
        for kind, amount in reserved.generic.items():
            self.used_generic[kind] = self.used_generic.get(kind, 0) + sign * amount
        for port in task.ports:
            if port.published_port:
                key = (port.protocol, port.published_port)
                self.host_ports[key] = self.host_ports.get(key, 0) + sign
        if task.desired <= TaskState.RUNNING:
            self.active += sign
            self.by_service[task.service_id] = self.by_service.get(task.service_id, 0) + sign
            if not self.by_service[task.service_id]:
                del self.by_service[task.service_id]

    def fits(self, asked: Resources) -> bool:
        """Whether what is asked for is free here."""
        return not self.lacking(asked)

    def lacking(self, asked: Resources) -> str:
        """The first kind of resource that is not free here in the amount asked for; "" where all are."""
        total = self.node.description.resources
        if asked.memory_bytes and self.used_memory + asked.memory_bytes > total.memory_bytes:
            return "memory"
        if asked.nano_cpus and self.used_cpus + asked.nano_cpus > total.nano_cpus:
            return "CPU"
        for kind, amount in asked.generic.items():
            if self.used_generic.get(kind, 0) + amount > total.generic.get(kind, 0):
                return kind
        return ""

    def service_count(self, service_id: str) -> int:
        """Live tasks of a service here."""
        return self.by_service.get(service_id, 0)

    def failed(self, group: object, now: float) -> None:
        """A task of this service and specification failed here."""
        self._failures.setdefault(group, deque(maxlen=MANY_FAILURES)).append(now)

    def recent_failures(self, group: object, now: float) -> int:
        """How often this specification failed here of late."""
        times = self._failures.get(group)
        if times is None:
            return 0
        while times and times[0] <= now - FAILURE_WINDOW_S:
            times.popleft()
        if not times:
            del self._failures[group]
        return len(times)


class NodeSet:
    """Every node of the cluster, with what is taken on it."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}

    def __iter__(self) -> Iterator[NodeInfo]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, node_id: str) -> NodeInfo | None:
        return self._nodes.get(node_id)

    def put(self, node: Node) -> None:
        """Take in a node, or its newest record."""
        info = self._nodes.get(node.id)
        if info is None:
            self._nodes[node.id] = NodeInfo(node)
        else:
            info.node = node

    def remove(self, node_id: str) -> None:
        self._nodes.pop(node_id, None)

    def hold(self, task: Task) -> None:
        """Take in a task that was placed."""
        info = self._nodes.get(task.node_id)
        if info is not None:
            info.hold(task)

    def release(self, node_id: str, task_id: str) -> None:
        info = self._nodes.get(node_id)
        if info is not None:
            info.release(task_id)
