"""What must hold after every single commit, whatever happens. Written apart from the code that keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.api.objects import Node, Service, Task
from shoal.api.states import TaskState
from shoal.manager.store.apply import Event
from shoal.manager.store.state import State


class Broken(AssertionError):
    """An invariant does not hold."""


def over(task: Task) -> bool:
    """Ended, or given up before any agent heard of it."""
    return task.status.state > TaskState.RUNNING or (
        task.desired > TaskState.RUNNING and task.status.state < TaskState.ASSIGNED
    )


class Invariants:
    """Checks each new state, alone and against what its events say was before."""

    def __init__(self) -> None:
        self.checked = 0

    def check(self, state: State, events: Sequence[Event]) -> None:
        self.checked += 1
        for event in events:
            if isinstance(event.old, Task) and isinstance(event.new, Task):
                one_way(event.old, event.new)
        if any(_moves_addresses(event) for event in events):
            addresses(state)
            slots(state)
        for node_id in sorted({node_id for event in events for node_id in _nodes_of(event)}):
            capacity(state, node_id)


def _moves_addresses(event: Event) -> bool:
    """Whether somebody may hold an address or a slot now who did not before."""
    if isinstance(event.new, Service):
        return True
    old, new = event.old, event.new
    if not isinstance(new, Task):
        return False
    return not isinstance(old, Task) or (old.desired, old.attachments) != (new.desired, new.attachments)


def _nodes_of(event: Event) -> set[str]:
    if isinstance(event.new, Node):
        return {event.new.id}
    if isinstance(event.new, Task) and event.new.node_id:
        grew = not isinstance(event.old, Task) or event.old.status.state < TaskState.ASSIGNED
        return {event.new.node_id} if grew else set()
    return set()


def addresses(state: State) -> None:
    """No address is given twice: to tasks that are not over, or to services."""
    holders: dict[tuple[str, str], str] = {}

    def hold(network_id: str, address: str, who: str) -> None:
        other = holders.setdefault((network_id, address), who)
        if other != who:
            raise Broken(f"address {address} is given to {other} and {who}")

    for service in state.services.values():
        for vip in service.endpoint.virtual_ips:
            hold(vip.network_id, vip.addr, f"service {service.id}")
    for task in state.tasks.values():
        if task.attachments and not over(task):
            for attachment in task.attachments:
                for address in attachment.addresses:
                    hold(attachment.network_id, address, f"task {task.id}")


def slots(state: State) -> None:
    """No slot has two tasks that should run. (Start-first updates mean to have two for a while.)"""
    taken: dict[tuple[str, object], str] = {}
    for task in state.tasks.values():
        if task.desired != TaskState.RUNNING or task.status.state.terminal:
            continue
        service = state.services.get(task.service_id)
        if service is None or (service.spec.update is not None and service.spec.update.order == "start-first"):
            continue
        other = taken.setdefault((task.service_id, task.slot or task.node_id), task.id)
        if other != task.id:
            raise Broken(f"tasks {other} and {task.id} should both run in slot {task.slot} of {task.service_id}")


def capacity(state: State, node_id: str) -> None:
    """No node has more reserved on it than it has."""
    node = state.nodes.get(node_id)
    if node is None:
        return
    tasks = [
        task
        for task in state.node_tasks(node_id)
        if task.status.state >= TaskState.ASSIGNED and not task.status.state.terminal
    ]
    memory = sum(task.spec.resources.reservations.memory_bytes for task in tasks)
    cpus = sum(task.spec.resources.reservations.nano_cpus for task in tasks)
    total = node.description.resources
    if memory > total.memory_bytes or cpus > total.nano_cpus:
        raise Broken(f"node {node_id} has {memory} bytes and {cpus} CPUs reserved, of {total}")


def one_way(old: Task, new: Task) -> None:
    """States only grow, a task never moves, and nobody edits what the user wanted."""
    if new.status.state < old.status.state or new.desired < old.desired:
        raise Broken(f"task {new.id} went back from {old.status.state.word} to {new.status.state.word}")
    if old.node_id and new.node_id != old.node_id:
        raise Broken(f"task {new.id} moved from {old.node_id} to {new.node_id}")
    if new.spec != old.spec or (old.attachments and new.attachments != old.attachments):
        raise Broken(f"task {new.id} was edited")
