"""The slots of one service: which exist, which are filled, and what one of them needs. Pure.

A slot is a place for one running task. `SlotIndex` is kept up by events, at a
cost that grows with what changed. `settle` decides for one slot; which slots a
service should have, and which may be updated now, is decided by its callers.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shoal.api.objects import Service, Task
from shoal.api.states import TaskState
from shoal.manager.orchestrator import restart
from shoal.manager.orchestrator.tasks import (
    Mint,
    SlotKey,
    age_order,
    ended_by_itself,
    is_live,
    is_outdated,
    new_task,
    node_invalid,
    stands_aside,
    want,
)
from shoal.manager.store.changes import AnyChange
from shoal.manager.store.state import State


class Standing(msgspec.Struct, frozen=True):
    """How a slot stands, as far as counting goes."""

    filled: bool  # it has a live task, or its last one ended and must not be tried again
    running_on: str = ""  # node id, where a live task runs


EMPTY = Standing(filled=False)


class SlotIndex:
    """The tasks of one service by slot, and how each slot stands.

    Invariant: `running` and `waiting` together name exactly the filled slots.
    """

    def __init__(self) -> None:
        self.tasks: dict[SlotKey, dict[str, None]] = {}
        self.running: dict[str, set[SlotKey]] = {}  # node id → slots
        self.waiting: dict[SlotKey, None] = {}  # filled, but not (yet) running; in the order of events
        self.lowest_free = 1  # no numbered slot below it is free
        self._standing: dict[SlotKey, Standing] = {}

    def add(self, key: SlotKey, task_id: str) -> None:
        self.tasks.setdefault(key, {})[task_id] = None

    def remove(self, key: SlotKey, task_id: str) -> None:
        tasks = self.tasks.get(key)
        if tasks is not None:
            tasks.pop(task_id, None)
            if not tasks:
                del self.tasks[key]

    def records(self, key: SlotKey, state: State) -> list[Task]:
        """The tasks of a slot, oldest first."""
        found = (state.tasks.get(task_id) for task_id in self.tasks.get(key, ()))
        return sorted((task for task in found if task is not None), key=age_order)

    def refresh(self, key: SlotKey, service: Service, state: State) -> None:
        """Take in how a slot stands now."""
        old = self._standing.get(key, EMPTY)
        new = standing(self.records(key, state), service, state)
        if new == old:
            return
        if old.running_on:
            on_node = self.running[old.running_on]
            on_node.discard(key)
            if not on_node:
                del self.running[old.running_on]
        self.waiting.pop(key, None)
        if new.running_on:
            self.running.setdefault(new.running_on, set()).add(key)
        elif new.filled:
            self.waiting[key] = None
        if new.filled:
            self._standing[key] = new
            while self.lowest_free in self._standing:
                self.lowest_free += 1
        else:
            self._standing.pop(key, None)
            if isinstance(key, int):
                self.lowest_free = min(self.lowest_free, key)

    def filled(self, key: SlotKey) -> bool:
        return key in self._standing

    @property
    def filled_count(self) -> int:
        return len(self._standing)

    def filled_slots(self) -> Iterable[SlotKey]:
        return self._standing


def standing(tasks: list[Task], service: Service, state: State) -> Standing:
    """How a slot with these tasks (oldest first) stands."""
    live = [task for task in tasks if is_live(task)]
    if not live:
        return Standing(filled=is_finished(tasks, service, state))
    for task in live:
        if task.status.state == TaskState.RUNNING and task.node_id:
            return Standing(filled=True, running_on=task.node_id)
    return Standing(filled=True)


def is_finished(tasks: list[Task], service: Service, state: State) -> bool:
    """Whether a slot without live tasks is to stay so: its last task ended, and its policy ends there."""
    if not tasks:
        return False
    last = tasks[-1]
    return (
        last.desired == TaskState.SHUTDOWN
        and ended_by_itself(last)
        and restart.exhausted(last)
        and not is_outdated(last, service, state.nodes.get(last.node_id))
    )


class SlotNeeds(msgspec.Struct, frozen=True):
    """What one slot needs now."""

    changes: tuple[AnyChange, ...] = ()
    reasons: tuple[str, ...] = ()
    restarted: Task | None = None  # ended by itself, and is being tried again
    outdated: bool = False  # it follows an old specification: to be replaced when the update says so
    replacing: str = ""  # the task that is on its way to take over from one with an old specification
    wake_at: float | None = None  # look again then, though nothing happened


class Situation(msgspec.Struct, frozen=True):
    """What `settle` has to know besides the slot's own tasks."""

    service: Service
    state: State
    now: float
    mint: Mint
    history: restart.History
    ready_at: dict[str, float]  # task id → when its delay is over; nothing: no delay
    start_first: bool = False  # the order of updates
    may_create: bool = True  # global services: whether the node takes new tasks
    must_leave: bool = False  # global services: whether the node must not run it (any more)


def settle(key: SlotKey, tasks: list[Task], at: Situation) -> SlotNeeds:
    """Decide for one wanted slot whose tasks are given, oldest first.

    Each case leads nearer to one live task that is wanted RUNNING; when that is
    so there is nothing to do. A successor is created READY while a predecessor
    may still run, and wanted RUNNING only once that one has ended or its node is
    lost: so a refused change never leaves two that should run.
    """
    live = [task for task in tasks if is_live(task)]
    if at.must_leave:
        return _stop(live, f"node {key} may not run service {at.service.spec.name}")
    if not live:
        if is_finished(tasks, at.service, at.state) or not at.may_create:
            return SlotNeeds()
        return _fill(key, tasks, at)
    for task in live:
        if node_invalid(at.state.nodes.get(task.node_id)) and task.node_id:
            return _move_away(key, task, live, tasks, at)
    for task in live:
        if task.status.state.terminal:
            return _ended(key, task, live, tasks, at)
    keeper = _keeper(live, at)
    if len(live) > 1:
        needs = _thin_out(keeper, live, at)
        if needs.changes:
            return needs
    needs = _promote(key, keeper, tasks, at)
    if needs.outdated or not _replaces(keeper, tasks, at):
        return needs
    return msgspec.structs.replace(needs, replacing=keeper.id)


def _replaces(keeper: Task, tasks: list[Task], at: Situation) -> bool:
    """Whether a task is on its way to take over from one with an old specification."""
    if keeper.status.state >= TaskState.RUNNING or keeper.restart_count or keeper is not tasks[-1] or len(tasks) < 2:
        return False
    return _outdated(tasks[-2], at)


def _fill(key: SlotKey, tasks: list[Task], at: Situation, reason: str = "fills") -> SlotNeeds:
    clear = all(stands_aside(task, at.state) for task in tasks)
    desired = TaskState.RUNNING if clear else TaskState.READY
    create = new_task(at.service, key, at.mint, desired=desired)
    return SlotNeeds(
        changes=(create,),
        reasons=(f"task {create.record.id} {reason} slot {key} of {at.service.spec.name}",),
    )


def _stop(live: list[Task], reason: str) -> SlotNeeds:
    return SlotNeeds(
        changes=tuple(want(task, TaskState.SHUTDOWN) for task in live),
        reasons=tuple(f"task {task.id} stopped: {reason}" for task in live),
    )


def _move_away(key: SlotKey, task: Task, live: list[Task], tasks: list[Task], at: Situation) -> SlotNeeds:
    """The node of a live task is down, removed or drained: another takes over at once."""
    stop = want(task, TaskState.SHUTDOWN)
    reason = f"task {task.id} leaves node {task.node_id} (lost or drained)"
    if len(live) > 1 or not at.may_create:
        return SlotNeeds(changes=(stop,), reasons=(reason,))
    create = new_task(at.service, key, at.mint, desired=TaskState.READY, restart_count=task.restart_count)
    return SlotNeeds(changes=(create, stop), reasons=(f"{reason}, replaced by {create.record.id}",))


def _ended(key: SlotKey, task: Task, live: list[Task], tasks: list[Task], at: Situation) -> SlotNeeds:
    """A live task ended by itself: its policy says whether, and when, there is another try."""
    stop = want(task, TaskState.SHUTDOWN)
    word = task.status.state.word
    others = [other for other in live if other is not task and not other.status.state.terminal]
    if any(not _outdated(other, at) for other in others):
        return SlotNeeds(changes=(stop,), reasons=(f"task {task.id} ended ({word})",))
    ready_at = at.ready_at.get(task.id)
    if task.desired == TaskState.READY and ready_at is not None and at.now < ready_at:
        return SlotNeeds(wake_at=ready_at)  # it failed while it was still waiting: no tighter loop than the delay
    slot = (at.service.id, key)
    if not at.may_create or not at.history.may_restart(slot, task, at.now):
        return SlotNeeds(changes=(stop,), reasons=(f"task {task.id} ended ({word}), not to be restarted",))
    wait_s = restart.delay_s(task.spec.restart)
    clear = all(stands_aside(other, at.state) for other in tasks)  # its own predecessor may still be stopping
    same_spec = not _outdated(task, at)
    create = new_task(
        at.service,
        key,
        at.mint,
        desired=TaskState.RUNNING if clear and wait_s == 0 else TaskState.READY,
        restart_count=task.restart_count + 1 if same_spec else 0,
        start_after_s=wait_s,
    )
    return SlotNeeds(
        changes=(create, stop),
        reasons=(f"task {task.id} ended ({word}), {create.record.id} follows after {wait_s:g} s",),
        restarted=task,
    )


def _outdated(task: Task, at: Situation) -> bool:
    return is_outdated(task, at.service, at.state.nodes.get(task.node_id))


def _keeper(live: list[Task], at: Situation) -> Task:
    """Of the live tasks of a slot, the one that shall stay."""
    return min(
        live,
        key=lambda task: (_outdated(task, at), task.desired != TaskState.RUNNING, -task.status.state, task.id),
    )


def _thin_out(keeper: Task, live: list[Task], at: Situation) -> SlotNeeds:
    """Stop the others, except an old one that serves until its start-first successor runs.

    One that was itself still waiting serves nobody, and may hold what the successor needs.
    """
    others = [task for task in live if task is not keeper]
    if at.start_first and keeper.status.state < TaskState.RUNNING and not _outdated(keeper, at):
        others = [task for task in others if not _outdated(task, at) or task.desired != TaskState.RUNNING]
    return _stop(others, f"{keeper.id} has the slot")


def _promote(key: SlotKey, keeper: Task, tasks: list[Task], at: Situation) -> SlotNeeds:
    """Want a READY task RUNNING once its delay is over and its predecessors have stopped."""
    outdated = _outdated(keeper, at)
    if keeper.desired == TaskState.RUNNING:
        return SlotNeeds(outdated=outdated)
    others = [task for task in tasks if task is not keeper]
    waits_for_start = at.start_first and any(is_live(task) for task in others)
    if not waits_for_start and not all(stands_aside(task, at.state) for task in others):
        return SlotNeeds(outdated=outdated)
    ready_at = at.ready_at.get(keeper.id)
    if ready_at is not None and at.now < ready_at:
        return SlotNeeds(outdated=outdated, wake_at=ready_at)
    return SlotNeeds(
        changes=(want(keeper, TaskState.RUNNING),),
        reasons=(f"task {keeper.id} may start in slot {key} of {at.service.spec.name}",),
        outdated=outdated,
    )
