"""Rolling updates: which outdated slots may be replaced now, and what becomes of the update. Pure.

A `Rollout` lives in the leader's memory only: a new leader begins another with
the slots that are still outdated.
"""

from __future__ import annotations

import msgspec

from shoal.api.objects import Service, Task, UpdateStatus
from shoal.api.specs import SECOND_NS, UpdateConfig
from shoal.api.states import TaskState
from shoal.manager.orchestrator.tasks import SlotKey, ended_by_itself, is_live
from shoal.manager.store.changes import Update

PAUSED = ("paused", "rollback_paused")
UNDER_WAY = ("updating", "rollback_started")


def rolling_back(service: Service) -> bool:
    return service.update_status is not None and service.update_status.state.startswith("rollback")


def is_paused(service: Service) -> bool:
    """Whether outdated slots stay as they are until the user speaks."""
    return service.update_status is not None and service.update_status.state in PAUSED


def is_under_way(service: Service) -> bool:
    return service.update_status is not None and service.update_status.state in UNDER_WAY


def config_of(service: Service) -> UpdateConfig:
    """The rules that the update under way follows."""
    config = service.spec.rollback if rolling_back(service) else service.spec.update
    return config or UpdateConfig()


def begin(service: Service) -> Update:
    """The change that says an update is under way."""
    return _with_status(service, UpdateStatus(state="updating", message="update in progress"))


def complete(service: Service) -> Update:
    """The change that ends an update."""
    kind, state = ("rollback", "rollback_completed") if rolling_back(service) else ("update", "completed")
    started = service.update_status.started_at if service.update_status else 0.0
    return _with_status(service, UpdateStatus(state=state, message=f"{kind} completed", started_at=started))


def fail(service: Service, task_id: str) -> Update | None:
    """The change that a failed update leads to; None where it just goes on.

    A rollback is never rolled back: it pauses. So does an update without a previous specification.
    """
    action = config_of(service).failure_action
    started = service.update_status.started_at if service.update_status else 0.0
    why = f"due to failure or early termination of task {task_id}"
    if action == "continue":
        return None
    if rolling_back(service):
        status = UpdateStatus(state="rollback_paused", message=f"rollback paused {why}", started_at=started)
        return _with_status(service, status)
    if action == "rollback" and service.previous_spec is not None:
        status = UpdateStatus(state="rollback_started", message=f"update rolled back {why}", started_at=started)
        record = msgspec.structs.replace(
            service,
            spec=service.previous_spec,
            previous_spec=None,
            spec_version=service.meta.revision,
            update_status=status,
        )
        return Update(record=record, wanted=True)
    return _with_status(service, UpdateStatus(state="paused", message=f"update paused {why}", started_at=started))


def _with_status(service: Service, status: UpdateStatus) -> Update:
    return Update(record=msgspec.structs.replace(service, update_status=status))


class Rollout:
    """One update of one service, as its leader sees it.

    `parallelism` places; each is taken by one slot from the start of its new
    task until that task runs (or has ended), and `delay` longer.
    """

    def __init__(self, config: UpdateConfig) -> None:
        self.config = config
        self.outdated: dict[SlotKey, None] = {}
        self.failed_task = ""  # once the failures exceed what the user allows
        self._attempted: set[SlotKey] = set()
        self._places: dict[str, float | None] = {}  # task id → when its place is free; None: not known yet
        self._started: dict[str, float | None] = {}  # task id → when it was seen running
        self._failures: set[str] = set()
        self._last_done: float | None = None

    def mark(self, key: SlotKey, outdated: bool) -> None:
        """Take in how a slot stands."""
        if not outdated:
            self.outdated.pop(key, None)
        elif key not in self._attempted:
            self.outdated[key] = None

    def drop(self, key: SlotKey) -> None:
        self.outdated.pop(key, None)

    def started(self, key: SlotKey, task_id: str) -> None:
        """A slot's replacement was created. Told again, it changes nothing."""
        if task_id in self._started:
            return
        self.outdated.pop(key, None)
        self._attempted.add(key)
        self._places[task_id] = None
        self._started[task_id] = None

    def cancelled(self, key: SlotKey, task_id: str) -> None:
        """A replacement was refused: as if it had never been started."""
        if task_id in self._started:
            del self._started[task_id]
            self._places.pop(task_id, None)
            self._attempted.discard(key)

    def observe(self, task: Task | None, task_id: str, now: float) -> None:
        """Take in a task's status; None where it is gone."""
        if task_id not in self._started:
            return
        done = task is None or task.status.state >= TaskState.RUNNING or not is_live(task)
        if done and self._places.get(task_id, 0.0) is None:
            self._places[task_id] = now + self.config.delay_ns / SECOND_NS
            self._last_done = now
        if task is None:
            return
        if task.status.state == TaskState.RUNNING and self._started[task_id] is None:
            self._started[task_id] = now
        if ended_by_itself(task):
            self._count_failure(task_id, now)

    def _count_failure(self, task_id: str, now: float) -> None:
        started = self._started[task_id]
        if task_id in self._failures or (started is not None and now - started > self.config.monitor_ns / SECOND_NS):
            return
        self._failures.add(task_id)
        total = len(self._attempted) + len(self.outdated)
        if len(self._failures) / max(1, total) > self.config.max_failure_ratio:
            self.failed_task = self.failed_task or task_id

    def free_places(self, now: float) -> int:
        """How many more slots may be started now."""
        taken = 0
        for task_id, free_at in list(self._places.items()):
            if free_at is not None and free_at <= now:
                del self._places[task_id]
            else:
                taken += 1
        return (self.config.parallelism or len(self.outdated) + taken) - taken

    def wake_at(self, now: float) -> float | None:
        """When a place becomes free, or monitoring ends."""
        times = [free_at for free_at in self._places.values() if free_at is not None and free_at > now]
        if not self.outdated and not self._places and self._last_done is not None:
            times.append(self._done_at())
        return min(times, default=None)

    def is_done(self, now: float) -> bool:
        """Whether every slot was replaced and watched for long enough."""
        if self.outdated or self._places:
            return False
        return self._last_done is None or now >= self._done_at()

    def _done_at(self) -> float:
        delay_s, monitor_s = self.config.delay_ns / SECOND_NS, self.config.monitor_ns / SECOND_NS
        return (self._last_done or 0.0) + (delay_s + 1.0 if delay_s >= monitor_s else monitor_s)
