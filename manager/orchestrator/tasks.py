"""What orchestrators ask of one task, and how they make one. Pure.

No decision about a service lives here: only facts about a task, its node and
the specification that it should follow.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shoal.api.objects import Node, Service, Task, TaskStatus
from shoal.api.specs import PortConfig, TaskSpec
from shoal.api.states import Availability, NodeState, TaskState
from shoal.manager.scheduler.constraints import node_satisfies
from shoal.manager.store.changes import Create, Update
from shoal.manager.store.state import State

Mint = Callable[[], str]
"""Gives a fresh id. The proposer's: whoever applies a change mints nothing."""

SlotKey = int | str
"""A slot's number, or in a global service the id of its node."""

CREATED = TaskStatus(state=TaskState.NEW, message="created")
PENDING = TaskStatus(state=TaskState.PENDING, message="pending task scheduling")


def slot_key(task: Task) -> SlotKey:
    """The slot that a service's task fills."""
    return task.slot or task.node_id


def is_live(task: Task) -> bool:
    """Whether the manager wants it to run, or to get ready to."""
    return task.desired <= TaskState.RUNNING


def should_run(task: Task) -> bool:
    """Whether it is wanted running and may still do so. At most one of a slot is (start-first updates apart)."""
    return task.desired == TaskState.RUNNING and not task.status.state.terminal


def never_runs(task: Task) -> bool:
    """Whether it was given up before any agent heard of it."""
    return task.desired > TaskState.RUNNING and task.status.state < TaskState.ASSIGNED


def is_over(task: Task) -> bool:
    """Whether certainly nothing of it runs anywhere, now or later: only then are its addresses free."""
    return task.status.state.terminal or never_runs(task)


def ended_by_itself(task: Task) -> bool:
    """Whether it ended although nobody told it to (as far as its state tells)."""
    return task.status.state in (TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED)


def node_lost(node: Node | None) -> bool:
    """Whether a node cannot be reached: removed, or its lease has run out."""
    return node is None or node.status.state == NodeState.DOWN


def node_invalid(node: Node | None) -> bool:
    """Whether no task should be left on this node."""
    return node_lost(node) or (node is not None and node.spec.availability == Availability.DRAIN)


def stands_aside(task: Task, state: State) -> bool:
    """Whether a successor in its slot need not wait for it: it is over, or its node is lost."""
    return is_over(task) or (bool(task.node_id) and node_lost(state.nodes.get(task.node_id)))


def host_ports(service: Service) -> tuple[PortConfig, ...]:
    """The ports that each task of a service opens on its own node."""
    return tuple(port for port in service.spec.endpoint.ports if port.publish_mode == "host")


def is_outdated(task: Task, service: Service, node: Node | None) -> bool:
    """Whether a task follows another specification than its service's present one.

    A placement that alone changed, and that the task's node satisfies, makes none outdated; nor do other
    credentials a task whose image is there.
    """
    if task.ports != host_ports(service) or task.endpoint_mode != service.spec.endpoint.mode:
        return True
    wanted = service.spec.task
    if task.spec == wanted:
        return False
    if TaskState.READY <= task.status.state <= TaskState.RUNNING and is_live(task):
        wanted = _pulled_as(wanted, task.spec)
    if task.spec.placement == wanted.placement or node is None:
        return task.spec != wanted
    if msgspec.structs.replace(task.spec, placement=wanted.placement) != wanted:
        return True
    return not node_satisfies(wanted.placement.constraints, node)


def _pulled_as(wanted: TaskSpec, other: TaskSpec) -> TaskSpec:
    """The specification, with the credentials of another one."""
    if wanted.container is None or other.container is None:
        return wanted
    container = msgspec.structs.replace(wanted.container, pull_options=other.container.pull_options)
    return msgspec.structs.replace(wanted, container=container)


def new_task(
    service: Service,
    key: SlotKey,
    mint: Mint,
    *,
    desired: TaskState = TaskState.RUNNING,
    restart_count: int = 0,
    start_after_s: float = 0.0,
) -> Create:
    """A fresh attempt in a slot. Without networks it has nothing to wait for and is PENDING at once."""
    spec: TaskSpec = service.spec.task
    task = Task(
        id=mint(),
        service_id=service.id,
        service_name=service.spec.name,
        slot=key if isinstance(key, int) else 0,
        node_id=key if isinstance(key, str) else "",
        spec=spec,
        spec_version=service.spec_version,
        endpoint_mode=service.spec.endpoint.mode,
        ports=host_ports(service),
        desired=desired,
        status=CREATED if spec.networks else PENDING,
        restart_count=restart_count,
        start_after=start_after_s,
    )
    return Create(record=task)


def want(task: Task, desired: TaskState) -> Update:
    """The change that sets what the manager wants of a task. Refused where the task has changed meanwhile."""
    return Update(record=msgspec.structs.replace(task, desired=desired))


def age_order(task: Task) -> tuple[float, int, str]:
    """Sorts the tasks of a slot from the oldest to the newest."""
    return (task.meta.created_at, task.meta.version, task.id)
