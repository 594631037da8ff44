"""Removes tasks that nobody needs any more. Pure.

Those of a service that is gone, those wanted REMOVE once they are over, and the
oldest of a slot's history past the cluster's limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.api.objects import Service, Task
from shoal.api.specs import ClusterSpec
from shoal.api.states import TaskState
from shoal.manager.backlog import STEP, Backlog
from shoal.manager.controlloop import Decision
from shoal.manager.orchestrator.tasks import SlotKey, age_order, is_live, is_over, slot_key, want
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, Delete, Refusal, subject
from shoal.manager.store.state import State


class TaskReaper:
    """Deletes a task only when it is over: its addresses are free from then on."""

    name = "taskreaper"

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._backlog = Backlog()
        self._tasks: dict[str, None] = {}  # dirty
        self._slots: dict[tuple[str, SlotKey], None] = {}  # dirty: count their history
        self._members: dict[tuple[str, SlotKey], dict[str, None]] = {}

    def load(self, state: State, now: float) -> None:
        self._reset()
        self._backlog.start(state.tasks)

    def observe(self, events: Sequence[Event], state: State, now: float) -> None:
        for event in events:
            if event.table == "task":
                task = event.new or event.old
                assert isinstance(task, Task)
                self._task_changed(task, state)
            elif event.table == "service" and event.new is None:
                self._tasks.update(dict.fromkeys(state.tasks_by_service.get(event.id, ())))

    def _task_changed(self, task: Task, state: State) -> None:
        slot = (task.service_id, slot_key(task))
        if task.id not in state.tasks:
            self._tasks.pop(task.id, None)
            members = self._members.get(slot, {})
            members.pop(task.id, None)
            if not members:
                self._members.pop(slot, None)
            return
        self._tasks[task.id] = None
        if task.service_id:
            members = self._members.setdefault(slot, {})
            members[task.id] = None
            if len(members) > 1:
                self._slots[slot] = None

    def decide(self, state: State, now: float, limit: int) -> Decision:
        if not self._backlog.done:
            for task_id in self._backlog.take():
                if task_id in state.tasks:
                    self._task_changed(state.tasks[task_id], state)
        changes: list[AnyChange] = []
        reasons: list[str] = []
        for _ in range(min(STEP, len(self._tasks))):
            if len(changes) >= limit:
                break
            task_id = next(iter(self._tasks))
            del self._tasks[task_id]
            if task_id in state.tasks:
                _reap(state.tasks[task_id], state, changes, reasons)
        for _ in range(min(STEP, len(self._slots))):
            if len(changes) >= limit:
                break
            slot = next(iter(self._slots))
            del self._slots[slot]
            changes.extend(self._trim(slot, state, {subject(change)[1] for change in changes}))
        return Decision(changes=tuple(changes), reasons=tuple(reasons))

    def _trim(self, slot: tuple[str, SlotKey], state: State, handled: set[str]) -> list[AnyChange]:
        """Delete the oldest tasks of a slot that are over, past the limit. The newest always stays.

        It tells the orchestrator whether the slot has come to its end.
        """
        service = state.services.get(slot[0])
        if service is None:
            return []
        keep = _history_limit(service, state)
        tasks = [state.tasks[task_id] for task_id in self._members.get(slot, ()) if task_id in state.tasks]
        excess = len(tasks) - keep
        if keep < 0 or excess <= 0:
            return []
        tasks.sort(key=age_order)
        old = [task for task in tasks[:-1] if is_over(task) and not is_live(task) and task.id not in handled]
        return [Delete(table="task", id=task.id, revision=task.meta.revision) for task in old[:excess]]

    def refused(self, refusals: Sequence[tuple[AnyChange, Refusal]]) -> None:
        for change, _ in refusals:
            self._tasks[subject(change)[1]] = None

    def deadline(self, now: float) -> float | None:
        return now if self._tasks or self._slots or not self._backlog.done else None


def _reap(task: Task, state: State, changes: list[AnyChange], reasons: list[str]) -> None:
    if task.service_id and task.service_id not in state.services and task.desired < TaskState.REMOVE:
        changes.append(want(task, TaskState.REMOVE))
        reasons.append(f"task {task.id} goes: service {task.service_id} is gone")
    elif task.desired == TaskState.REMOVE and is_over(task):
        changes.append(Delete(table="task", id=task.id, revision=task.meta.revision))
        reasons.append(f"task {task.id} is over and was removed")


def _history_limit(service: Service, state: State) -> int:
    """Tasks kept for each slot, the live one included; below 0: all.

    Never fewer than the policy's attempts need.
    """
    cluster = state.cluster
    limit = cluster.spec.task_history_limit if cluster is not None else ClusterSpec().task_history_limit
    attempts = service.spec.task.restart.max_attempts
    return attempts + 1 if attempts > 0 and limit >= 0 else limit
