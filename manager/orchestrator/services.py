"""What replicated and global services have in common: dirty slots, restarts, rolling updates. Pure.

`ServiceDecider` is the machine; its two kinds add which slots a service
should have. One decider alone writes the wants of a service's tasks, so that no
two of them ever fill a slot at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from shoal.api.objects import Node, Service, Task
from shoal.api.states import TaskState
from shoal.manager.backlog import STEP, Backlog
from shoal.manager.controlloop import Decision
from shoal.manager.orchestrator import update
from shoal.manager.orchestrator.restart import History
from shoal.manager.orchestrator.slots import Situation, SlotIndex, SlotNeeds
from shoal.manager.orchestrator.tasks import Mint, SlotKey, host_ports, is_live, is_outdated, new_task, slot_key, want
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, Create, Refusal, subject
from shoal.manager.store.state import State


class Turn:
    """What one call of `decide` gathers, and how much room it has left."""

    def __init__(self, state: State, now: float, limit: int) -> None:
        self.state, self.now, self.limit = state, now, limit
        self.changes: list[AnyChange] = []
        self.reasons: list[str] = []
        self.touched: set[str] = set()  # services whose records were changed

    @property
    def full(self) -> bool:
        return len(self.changes) >= self.limit

    def add(self, changes: Iterable[AnyChange], *reasons: str) -> None:
        self.changes.extend(changes)
        self.reasons.extend(reasons)


class ServiceDecider:
    """Keeps the tasks of every service of one kind as its specification wants them.

    Invariants: `_indexes` names exactly the known services of this kind; whatever
    may need a change is dirty or has a wake-up.
    """

    name = "services"
    kind = ""

    def __init__(self, mint: Mint) -> None:
        self._mint = mint
        self._reset()

    def _reset(self) -> None:
        self._backlog = Backlog()
        self._indexes: dict[str, SlotIndex] = {}
        self._services: dict[str, None] = {}  # dirty: compare slots with the specification
        self._slots: dict[tuple[str, SlotKey], None] = {}  # dirty
        self._rollouts: dict[str, update.Rollout] = {}
        self._rolling: dict[str, None] = {}  # dirty rollouts
        self._wakes: list[tuple[float, int, str, SlotKey | None]] = []
        self._wake_number = 0
        self._ready_at: dict[str, float] = {}
        self._history = History()

    # --- Decider ---

    def load(self, state: State, now: float) -> None:
        self._reset()
        for service in state.services.values():
            self._know(service)
        self._backlog.start(state.tasks)

    def observe(self, events: Sequence[Event], state: State, now: float) -> None:
        for event in events:
            if event.table == "task":
                task = event.new or event.old
                assert isinstance(task, Task)
                self._task_changed(task, state, now)
            elif event.table == "service":
                self._service_changed(event, state)
            elif event.table == "node":
                self._node_changed(event, state)

    def decide(self, state: State, now: float, limit: int) -> Decision:
        if not self._backlog.done:
            for task_id in self._backlog.take():
                if task_id in state.tasks:
                    self._task_changed(state.tasks[task_id], state, now)
            return Decision()
        self._pop_wakes(now)
        turn = Turn(state, now, limit)
        self._scale_services(turn)
        self._settle_slots(turn)
        self._roll_out(turn)
        return Decision(changes=tuple(turn.changes), reasons=tuple(turn.reasons))

    def refused(self, refusals: Sequence[tuple[AnyChange, Refusal]]) -> None:
        for change, _ in refusals:
            table, object_id = subject(change)
            record = getattr(change, "record", None)
            if table == "service" and object_id in self._indexes:
                self._services[object_id] = None
                self._rolling[object_id] = None
            elif isinstance(record, Task) and record.service_id in self._indexes:
                self._slots[(record.service_id, slot_key(record))] = None
                self._services[record.service_id] = None
                rollout = self._rollouts.get(record.service_id)
                if rollout is not None and isinstance(change, Create):
                    rollout.cancelled(slot_key(record), record.id)

    def deadline(self, now: float) -> float | None:
        if not self._backlog.done or self._services or self._slots or self._rolling:
            return now
        return self._wakes[0][0] if self._wakes else None

    # --- taking in ---

    def _know(self, service: Service) -> None:
        if service.spec.mode.kind == self.kind:
            self._indexes.setdefault(service.id, SlotIndex())
            self._services[service.id] = None
            self._rolling[service.id] = None

    def _service_changed(self, event: Event, state: State) -> None:
        service, old = state.services.get(event.id), event.old
        if service is None:
            self._forget(event.id)
            return
        self._know(service)
        index = self._indexes.get(event.id)
        if index is None:
            return
        if isinstance(old, Service) and _task_part(old) != _task_part(service):
            self._rollouts.pop(event.id, None)
            self._slots.update(dict.fromkeys((event.id, key) for key in index.tasks))

    def _forget(self, service_id: str) -> None:
        index = self._indexes.pop(service_id, None)
        if index is not None:
            self._history.forget((service_id, key) for key in index.tasks)
        self._services.pop(service_id, None)
        self._rolling.pop(service_id, None)
        self._rollouts.pop(service_id, None)

    def _task_changed(self, seen: Task, state: State, now: float) -> None:
        index, service = self._indexes.get(seen.service_id), state.services.get(seen.service_id)
        if index is None or service is None:
            self._ready_at.pop(seen.id, None)
            return
        task, key = state.tasks.get(seen.id), slot_key(seen)
        if task is None:
            index.remove(key, seen.id)
            self._ready_at.pop(seen.id, None)
        else:
            index.add(key, seen.id)
            if task.start_after > 0 and task.desired == TaskState.READY:
                self._ready_at.setdefault(task.id, now + task.start_after)
            elif task.desired != TaskState.READY:
                self._ready_at.pop(task.id, None)
        index.refresh(key, service, state)
        self._slots[(service.id, key)] = None
        rollout = self._rollouts.get(service.id)
        if rollout is not None:
            rollout.observe(task, seen.id, now)
            self._rolling[service.id] = None

    def _node_changed(self, event: Event, state: State) -> None:
        if isinstance(event.old, Node) and isinstance(event.new, Node) and _standing(event.old) == _standing(event.new):
            return
        for task in state.node_tasks(event.id):
            if task.service_id in self._indexes:
                self._slots[(task.service_id, slot_key(task))] = None

    # --- deciding ---

    def _pop_wakes(self, now: float) -> None:
        while self._wakes and self._wakes[0][0] <= now:
            _, _, service_id, key = heapq.heappop(self._wakes)
            if service_id not in self._indexes:
                continue
            if key is None:
                self._rolling[service_id] = None
            else:
                self._slots[(service_id, key)] = None

    def _wake(self, at: float, service_id: str, key: SlotKey | None) -> None:
        self._wake_number += 1  # keeps keys of different types from being compared
        heapq.heappush(self._wakes, (at, self._wake_number, service_id, key))

    def _scale_services(self, turn: Turn) -> None:
        while self._services and not turn.full:
            service_id = next(iter(self._services))
            service = turn.state.services.get(service_id)
            if service is None or self.scale(service, self._indexes[service_id], turn):
                del self._services[service_id]

    def scale(self, service: Service, index: SlotIndex, turn: Turn) -> bool:
        """Compare the slots that there are with those that there should be; True once nothing is left to do."""
        raise NotImplementedError

    def _settle_slots(self, turn: Turn) -> None:
        for _ in range(min(STEP, len(self._slots))):
            if turn.full:
                return
            service_id, key = next(iter(self._slots))
            del self._slots[(service_id, key)]
            service, index = turn.state.services.get(service_id), self._indexes.get(service_id)
            if service is None or index is None:
                continue
            index.refresh(key, service, turn.state)
            self._settle_slot(service, index, key, turn)

    def _settle_slot(self, service: Service, index: SlotIndex, key: SlotKey, turn: Turn) -> None:
        tasks = index.records(key, turn.state)
        needs = self.settle_slot(service, index, key, tasks, turn)
        turn.add(needs.changes, *needs.reasons)
        if needs.restarted is not None:
            self._history.record((service.id, key), needs.restarted, turn.now)
        if needs.wake_at is not None:
            self._wake(needs.wake_at, service.id, key)
        rollout = self._rollouts.get(service.id)
        if rollout is None and (needs.outdated or (needs.replacing and update.is_under_way(service))):
            rollout = self._rollouts[service.id] = update.Rollout(update.config_of(service))
        if rollout is not None:
            rollout.mark(key, needs.outdated)
            if needs.replacing:
                rollout.started(key, needs.replacing)  # perhaps by the last leader: it takes a place all the same
            self._rolling[service.id] = None

    def settle_slot(
        self, service: Service, index: SlotIndex, key: SlotKey, tasks: list[Task], turn: Turn
    ) -> SlotNeeds:
        """What one slot needs; the kinds add where a task may be."""
        raise NotImplementedError

    def situation(
        self, service: Service, turn: Turn, *, may_create: bool = True, must_leave: bool = False
    ) -> Situation:
        return Situation(
            service=service,
            state=turn.state,
            now=turn.now,
            mint=self._mint,
            history=self._history,
            ready_at=self._ready_at,
            start_first=update.config_of(service).order == "start-first",
            may_create=may_create,
            must_leave=must_leave,
        )

    # --- rolling updates ---

    def _roll_out(self, turn: Turn) -> None:
        for service_id in list(self._rolling):
            if turn.full:
                return
            if self._slots or self._services:  # what is outdated is not all known yet
                return
            del self._rolling[service_id]
            service = turn.state.services.get(service_id)
            if service is not None:
                self._roll_out_service(service, turn)

    def _roll_out_service(self, service: Service, turn: Turn) -> None:
        rollout = self._rollouts.get(service.id)
        if update.is_paused(service):
            return
        if rollout is None:
            if update.is_under_way(service):
                turn.add((update.complete(service),), f"update of {service.spec.name} completed")
            return
        if rollout.failed_task and update.is_under_way(service):
            change = update.fail(service, rollout.failed_task)
            if change is not None:
                del self._rollouts[service.id]
                turn.add((change,), f"update of {service.spec.name} failed: task {rollout.failed_task}")
                return
        if rollout.outdated and not update.is_under_way(service):
            turn.add((update.begin(service),), f"update of {service.spec.name} begins")
            return  # the next turn reads it and starts the first slots
        self._start_slots(service, rollout, turn)
        if rollout.is_done(turn.now):
            del self._rollouts[service.id]
            if update.is_under_way(service):
                turn.add((update.complete(service),), f"update of {service.spec.name} completed")
            return
        wake_at = rollout.wake_at(turn.now)
        if wake_at is not None:
            self._wake(wake_at, service.id, None)

    def _start_slots(self, service: Service, rollout: update.Rollout, turn: Turn) -> None:
        places, index = rollout.free_places(turn.now), self._indexes[service.id]
        for key in list(rollout.outdated)[: max(0, places)]:
            if turn.full:
                self._rolling[service.id] = None
                return
            tasks = [task for task in index.records(key, turn.state) if is_live(task)]
            old = [
                task for task in tasks if is_outdated(task, service, turn.state.nodes.get(task.node_id))
            ]
            if not old or len(old) < len(tasks):  # it changed under us, or has its successor already
                rollout.drop(key)
                continue
            create = self._replacement(service, key)
            rollout.started(key, create.record.id)
            turn.add((create,), f"task {create.record.id} updates slot {key} of {service.spec.name}")
            if rollout.config.order != "start-first":
                turn.add(want(task, TaskState.SHUTDOWN) for task in old)

    def _replacement(self, service: Service, key: SlotKey) -> Create:
        start_first = update.config_of(service).order == "start-first"
        return new_task(service, key, self._mint, desired=TaskState.RUNNING if start_first else TaskState.READY)


def _task_part(service: Service) -> object:
    """What makes tasks outdated where it changes, or an update begin anew."""
    endpoint = service.spec.endpoint
    return (service.spec.task, endpoint.mode, host_ports(service), update.is_paused(service), update.config_of(service))


def _standing(node: Node) -> object:
    """What of a node decides whether tasks may be on it."""
    return (node.status.state, node.spec, node.role, node.description, node.status.addr)
