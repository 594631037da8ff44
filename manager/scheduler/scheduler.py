"""Gives each PENDING task a node, or says why there is none. Pure.

Tasks of one service and specification are placed together. A task with a node
already (global services, attachments) is only checked. Those left over wait for
a change of the nodes, or of what is taken on them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from shoal.api.objects import Task, TaskStatus
from shoal.api.states import TaskState
from shoal.manager.backlog import STEP, Backlog
from shoal.manager.controlloop import Decision
from shoal.manager.scheduler import spread
from shoal.manager.scheduler.constraints import is_label
from shoal.manager.scheduler.filters import Pipeline
from shoal.manager.scheduler.nodeset import MANY_FAILURES, NodeInfo, NodeSet
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, Refusal, SetTaskStatus, Update
from shoal.manager.store.state import State

Group = tuple[str, int]
"""Tasks that are placed together: (service id, version of its specification); attachments have their own."""

GROUPS_PER_TURN = 20
"""Groups placed in one turn: each has to look at every node once."""

WAITING_MESSAGE = "pending task scheduling"


class Placement(msgspec.Struct, frozen=True):
    """What became of a group of tasks."""

    assigned: tuple[Task, ...] = ()  # with their node
    left: tuple[Task, ...] = ()
    reason: str = ""  # why some are left: "no suitable node (…)"


def group_of(task: Task) -> Group:
    return (task.service_id or task.id, task.spec_version)


def place(tasks: Sequence[Task], nodes: NodeSet, now: float = 0.0) -> Placement:
    """Choose a node for each task, the one with fewest of that service first.

    The tasks share one specification. Nodes on which it failed often of late come
    last; ties break on the node's total, then on its id, so that equal input gives
    equal output. The node set takes in what is assigned. O(n + t log n).

    Returns the assignments, and a reason for the tasks left over
    ("insufficient memory on 3 nodes"). Lack of room is no error.

    Source: SwarmKit, design/scheduler.md.
    """
    if not tasks:
        return Placement()
    sample, group = tasks[0], group_of(tasks[0])
    pipeline = Pipeline(sample)

    def rank(info: NodeInfo) -> tuple[int | str, ...]:
        troubled = info.recent_failures(group, now) >= MANY_FAILURES
        return (troubled, info.service_count(sample.service_id), info.active)

    admitted: list[NodeInfo] = []
    refused: list[NodeInfo] = []
    for info in nodes:
        (admitted if pipeline.admits(info) else refused).append(info)
    preferences = [each for each in sample.spec.placement.preferences if is_label(each)]
    root = spread.tree(admitted, refused, preferences, sample.service_id, rank)
    assigned: list[Task] = []
    for task in tasks:
        chosen = root.take(rank, pipeline.admits)
        if chosen is None:
            break
        assigned.append(_assign(task, chosen.node.id))
        chosen.hold(assigned[-1])
        root.give_back(chosen, preferences, rank)
    left = tuple(tasks[len(assigned) :])
    return Placement(assigned=tuple(assigned), left=left, reason=_no_node(pipeline.explain()) if left else "")


def _no_node(explanation: str) -> str:
    return f"no suitable node ({explanation})" if explanation else "no suitable node"


def _assign(task: Task, node_id: str) -> Task:
    message = "scheduler confirmed task can run on preassigned node" if task.node_id else (
        "scheduler assigned task to node"
    )
    return msgspec.structs.replace(
        task, node_id=node_id, status=TaskStatus(state=TaskState.ASSIGNED, message=message)
    )


def confirm(task: Task, nodes: NodeSet) -> Placement:
    """Check the node that a task has already. An attachment's container runs there: it is not asked twice."""
    info = nodes.get(task.node_id)
    if info is None:
        return Placement(left=(task,), reason=_no_node(""))
    pipeline = Pipeline(task)
    if task.spec.attachment is None and not pipeline.admits(info):
        return Placement(left=(task,), reason=pipeline.explain())
    assigned = _assign(task, task.node_id)
    info.hold(assigned)
    return Placement(assigned=(assigned,))


class Scheduler:
    """The decider around `place`.

    Invariant: `_nodes` holds what is assigned in the store, and what this
    decider has assigned and not yet seen refused.
    """

    name = "scheduler"

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._backlog = Backlog()
        self._nodes = NodeSet()
        self._groups: dict[Group, dict[str, None]] = {}  # tasks to place
        self._fixed: dict[str, None] = {}  # tasks to place that have their node
        self._left: dict[Group, dict[str, None]] = {}  # no node was found
        self._left_fixed: dict[str, None] = {}

    def load(self, state: State, now: float) -> None:
        self._reset()
        for node in state.nodes.values():
            self._nodes.put(node)
        self._backlog.start(state.tasks)

    def observe(self, events: Sequence[Event], state: State, now: float) -> None:
        roomier = False
        for event in events:
            if event.table == "node":
                roomier |= self._node_changed(event, state)
            elif event.table == "task":
                roomier |= self._task_changed(event, state, now)
        if roomier:
            self._retry()

    def decide(self, state: State, now: float, limit: int) -> Decision:
        if not self._backlog.done:
            for task_id in self._backlog.take():
                if task_id in state.tasks:
                    self._take_in(state.tasks[task_id])
            return Decision()
        changes: list[AnyChange] = []
        for group in list(itertools.islice(self._groups, GROUPS_PER_TURN)):
            if len(changes) < limit:
                self._place_group(group, state, now, limit, changes)
        while self._fixed and len(changes) < limit:
            task_id = next(iter(self._fixed))
            del self._fixed[task_id]
            task = state.tasks.get(task_id)
            if task is not None and _wants_node(task):
                placement = confirm(task, self._nodes)
                self._left_fixed.update(dict.fromkeys(left.id for left in placement.left))
                _changes_of(placement, changes)
        reasons = tuple(
            f"task {change.record.id} goes to node {change.record.node_id}"
            for change in changes
            if isinstance(change, Update) and isinstance(change.record, Task)
        )
        return Decision(changes=tuple(changes), reasons=reasons)

    def refused(self, refusals: Sequence[tuple[AnyChange, Refusal]]) -> None:
        for change, _ in refusals:
            record = getattr(change, "record", None)
            if not isinstance(record, Task):
                continue  # a message that came too late
            self._nodes.release(record.node_id, record.id)
            if record.slot:
                self._groups.setdefault(group_of(record), {})[record.id] = None
            else:
                self._fixed[record.id] = None
            self._retry()  # it had been counted as taking room

    def deadline(self, now: float) -> float | None:
        return now if self._groups or self._fixed or not self._backlog.done else None

    # --- taking in ---

    def _node_changed(self, event: Event, state: State) -> bool:
        if event.id not in state.nodes:
            self._nodes.remove(event.id)
            return False
        fresh = self._nodes.get(event.id) is None
        self._nodes.put(state.nodes[event.id])
        if fresh:
            for task in state.node_tasks(event.id):
                self._nodes.hold(task)
        return True

    def _task_changed(self, event: Event, state: State, now: float) -> bool:
        """Whether there may be room now where there was none."""
        old, task = event.old, state.tasks.get(event.id)
        if isinstance(event.new, Task) and event.new.status.state in (TaskState.FAILED, TaskState.REJECTED):
            self._failed(event, now)
        if task is None:
            self._drop(event.id, old if isinstance(old, Task) else None)
            return isinstance(old, Task) and bool(old.node_id)
        self._take_in(task)
        return bool(task.node_id) and (task.status.state.terminal or task.desired > TaskState.RUNNING)

    def _failed(self, event: Event, now: float) -> None:
        task, old = event.new, event.old
        assert isinstance(task, Task)
        info = self._nodes.get(task.node_id)
        if info is not None and isinstance(old, Task) and not old.status.state.terminal:
            info.failed(group_of(task), now)

    def _take_in(self, task: Task) -> None:
        if _wants_node(task):
            if task.node_id:
                self._left_fixed.pop(task.id, None)
                self._fixed[task.id] = None
            elif task.id not in self._left.get(group_of(task), ()):
                self._groups.setdefault(group_of(task), {})[task.id] = None
            return
        self._unlist(task.id, group_of(task))
        if task.node_id and task.status.state >= TaskState.ASSIGNED:
            self._nodes.hold(task)

    def _drop(self, task_id: str, old: Task | None) -> None:
        if old is not None:
            self._unlist(task_id, group_of(old))
            self._nodes.release(old.node_id, task_id)

    def _unlist(self, task_id: str, group: Group) -> None:
        self._fixed.pop(task_id, None)
        self._left_fixed.pop(task_id, None)
        for table in (self._groups, self._left):
            tasks = table.get(group)
            if tasks is not None:
                tasks.pop(task_id, None)
                if not tasks:
                    del table[group]

    def _retry(self) -> None:
        """What was left over is tried again."""
        for group, tasks in self._left.items():
            self._groups.setdefault(group, {}).update(tasks)
        self._fixed.update(self._left_fixed)
        self._left.clear()
        self._left_fixed.clear()

    # --- deciding ---

    def _place_group(self, group: Group, state: State, now: float, limit: int, changes: list[AnyChange]) -> None:
        """Place as many of a group as this turn has room for. The first that finds no node answers for the rest."""
        waiting = self._groups[group]
        batch = self._next_of(waiting, state, limit - len(changes))
        placement = place(batch, self._nodes, now)
        self._leave(group, placement.left)
        _changes_of(placement, changes)
        for _ in range(STEP):
            if not placement.left or not waiting or len(changes) >= limit:
                break
            rest = self._next_of(waiting, state, 1)
            self._leave(group, rest)
            _changes_of(Placement(left=tuple(rest), reason=placement.reason), changes)
        if not waiting:
            del self._groups[group]

    def _leave(self, group: Group, tasks: Sequence[Task]) -> None:
        if tasks:
            self._left.setdefault(group, {}).update(dict.fromkeys(task.id for task in tasks))

    @staticmethod
    def _next_of(waiting: dict[str, None], state: State, count: int) -> list[Task]:
        """Take out the next tasks that still want a node, `count` at most."""
        batch: list[Task] = []
        while waiting and len(batch) < count:
            task_id = next(iter(waiting))
            del waiting[task_id]
            task = state.tasks.get(task_id)
            if task is not None and _wants_node(task):
                batch.append(task)
        return batch


def _wants_node(task: Task) -> bool:
    return task.status.state == TaskState.PENDING and task.desired <= TaskState.RUNNING


def _changes_of(placement: Placement, changes: list[AnyChange]) -> None:
    changes.extend(Update(record=task) for task in placement.assigned)
    for task in placement.left:
        if task.status.err != placement.reason:
            status = TaskStatus(state=TaskState.PENDING, message=WAITING_MESSAGE, err=placement.reason)
            changes.append(SetTaskStatus(id=task.id, status=status))
