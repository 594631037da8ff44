"""What becomes of tasks whose node is not coming back. Pure.

Their successors run elsewhere long since; here they are given up, so that their
addresses are free again. A node that is merely down keeps them for a day: its
containers may still run behind a cut.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from shoal.api.objects import Task, TaskStatus
from shoal.api.states import NodeState, TaskState
from shoal.manager.backlog import STEP, Backlog
from shoal.manager.controlloop import Decision
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, Delete, Refusal, SetTaskStatus, subject
from shoal.manager.store.state import State

ORPHANED_AFTER_S = 24 * 3600.0
"""A node that is down for so long counts as gone."""


class LostNodes:
    """Orphans the tasks of nodes that were removed, or are down for a day; an attachment is deleted instead."""

    name = "lostnodes"

    def __init__(self, orphaned_after_s: float = ORPHANED_AFTER_S) -> None:
        self._orphaned_after_s = orphaned_after_s
        self._reset()

    def _reset(self) -> None:
        self._backlog = Backlog()
        self._tasks: dict[str, None] = {}  # dirty
        self._down_since: dict[str, float] = {}  # node id → when this leader first saw it down
        self._wakes: list[tuple[float, str]] = []

    def load(self, state: State, now: float) -> None:
        self._reset()
        for node_id in state.nodes:
            self._node_seen(node_id, state, now)
        self._backlog.start(state.tasks)

    def observe(self, events: Sequence[Event], state: State, now: float) -> None:
        for event in events:
            if event.table == "node":
                self._node_seen(event.id, state, now)
                if event.new is None:
                    self._tasks.update(dict.fromkeys(task.id for task in state.node_tasks(event.id)))
            elif event.table == "task" and isinstance(event.new, Task) and event.new.node_id:
                self._look_at(event.new, state)

    def _node_seen(self, node_id: str, state: State, now: float) -> None:
        node = state.nodes.get(node_id)
        if node is None or node.status.state != NodeState.DOWN:
            self._down_since.pop(node_id, None)
        elif node_id not in self._down_since:
            self._down_since[node_id] = now
            heapq.heappush(self._wakes, (now + self._orphaned_after_s, node_id))

    def _look_at(self, task: Task, state: State) -> None:
        if task.node_id and task.node_id not in state.nodes:
            self._tasks[task.id] = None

    def decide(self, state: State, now: float, limit: int) -> Decision:
        for task_id in () if self._backlog.done else self._backlog.take():
            if task_id in state.tasks:
                self._look_at(state.tasks[task_id], state)
        while self._wakes and self._wakes[0][0] <= now:
            _, node_id = heapq.heappop(self._wakes)
            if self._gone(node_id, state, now):
                self._tasks.update(dict.fromkeys(task.id for task in state.node_tasks(node_id)))
        changes: list[AnyChange] = []
        reasons: list[str] = []
        for _ in range(min(STEP, len(self._tasks))):
            if len(changes) >= limit:
                break
            task_id = next(iter(self._tasks))
            del self._tasks[task_id]
            task = state.tasks.get(task_id)
            if task is not None and task.node_id and self._gone(task.node_id, state, now):
                self._give_up(task, state, changes, reasons)
        return Decision(changes=tuple(changes), reasons=tuple(reasons))

    def _gone(self, node_id: str, state: State, now: float) -> bool:
        since = self._down_since.get(node_id)
        return node_id not in state.nodes or (since is not None and now >= since + self._orphaned_after_s)

    def _give_up(self, task: Task, state: State, changes: list[AnyChange], reasons: list[str]) -> None:
        if not task.service_id:
            changes.append(Delete(table="task", id=task.id))
            reasons.append(f"attachment {task.id} goes with node {task.node_id}")
        elif not task.status.state.terminal:
            why = "was removed" if task.node_id not in state.nodes else "was down for too long"
            status = TaskStatus(state=TaskState.ORPHANED, message=f"node {task.node_id} {why}")
            changes.append(SetTaskStatus(id=task.id, status=status))
            reasons.append(f"task {task.id} orphaned: node {task.node_id} {why}")

    def refused(self, refusals: Sequence[tuple[AnyChange, Refusal]]) -> None:
        for change, _ in refusals:
            self._tasks[subject(change)[1]] = None

    def deadline(self, now: float) -> float | None:
        if self._tasks or not self._backlog.done:
            return now
        return self._wakes[0][0] if self._wakes else None
