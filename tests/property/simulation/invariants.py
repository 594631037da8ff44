"""What must hold after every single commit, whatever happens. Written apart from the code that keeps it."""

from __future__ import annotations

from shoal.api.objects import Task
from shoal.api.states import TaskState
from shoal.manager.store.state import State


class Broken(AssertionError):
    """An invariant does not hold."""


def over(task: Task) -> bool:
    """Ended, or given up before any agent heard of it."""
    return task.status.state > TaskState.RUNNING or (
        task.desired > TaskState.RUNNING and task.status.state < TaskState.ASSIGNED
    )


class Invariants:
    """Checks each new state, alone and against the one before it."""

    def __init__(self) -> None:
        self._before = State()
        self.checked = 0

    def check(self, state: State) -> None:
        self.checked += 1
        self._addresses(state)
        self._slots(state)
        self._capacity(state)
        self._one_way(state)
        self._before = state

    def _addresses(self, state: State) -> None:
        holders: dict[tuple[str, str], str] = {}
        for service in state.services.values():
            for vip in service.endpoint.virtual_ips:
                self._hold(holders, vip.network_id, vip.addr, f"service {service.id}")
        for task in state.tasks.values():
            if not over(task):
                for attachment in task.attachments:
                    for address in attachment.addresses:
                        self._hold(holders, attachment.network_id, address, f"task {task.id}")

    @staticmethod
    def _hold(holders: dict[tuple[str, str], str], network_id: str, address: str, who: str) -> None:
        other = holders.setdefault((network_id, address), who)
        if other != who:
            raise Broken(f"address {address} is given to {other} and {who}")

    def _slots(self, state: State) -> None:
        taken: dict[tuple[str, object], str] = {}
        for task in state.tasks.values():
            service = state.services.get(task.service_id)
            if service is None or task.desired != TaskState.RUNNING or task.status.state.terminal:
                continue
            if service.spec.update is not None and service.spec.update.order == "start-first":
                continue
            other = taken.setdefault((task.service_id, task.slot or task.node_id), task.id)
            if other != task.id:
                raise Broken(f"tasks {other} and {task.id} should both run in slot {task.slot} of {task.service_id}")

    def _capacity(self, state: State) -> None:
        for node in state.nodes.values():
            given = (TaskState.ASSIGNED, TaskState.RUNNING)
            tasks = [task for task in state.node_tasks(node.id) if given[0] <= task.status.state <= given[1]]
            total = node.description.resources
            memory = sum(task.spec.resources.reservations.memory_bytes for task in tasks)
            cpus = sum(task.spec.resources.reservations.nano_cpus for task in tasks)
            if memory > total.memory_bytes or cpus > total.nano_cpus:
                raise Broken(f"node {node.id} has {memory} bytes and {cpus} CPUs reserved, of {total}")

    def _one_way(self, state: State) -> None:
        if state.tasks is self._before.tasks:
            return
        for task in state.tasks.values():
            old = self._before.tasks.get(task.id)
            if old is None or old is task:
                continue
            if task.status.state < old.status.state or task.desired < old.desired:
                raise Broken(f"task {task.id} went back from {old.status.state.word} to {task.status.state.word}")
            if old.node_id and task.node_id != old.node_id:
                raise Broken(f"task {task.id} moved from {old.node_id} to {task.node_id}")
            if task.spec != old.spec or (old.attachments and task.attachments != old.attachments):
                raise Broken(f"task {task.id} was edited")
