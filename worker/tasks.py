"""The tasks of this host, each driven through `taskmachine.step` by events.

Decisions are the machine's; here are the wake-ups, the executor's calls, and the
bound on how many containers start at once. One asyncio task for each call that is
under way, none for a task that rests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from shoal.api.errors import ShoalError
from shoal.api.objects import ContainerStatus, Task, TaskStatus
from shoal.api.specs import SECOND_NS
from shoal.api.states import TaskState
from shoal.worker.executor import Executor
from shoal.worker.taskmachine import Action, Local, Phase, Seen, found, step

log = logging.getLogger(__name__)

STARTS_AT_ONCE = 4
"""Starting a container is CPU's work: more at once only make each one later."""

RETRY_S = 5.0
"""After a stop or a removal that failed."""

DEFAULT_GRACE_S = 10.0

Report = Callable[[str, TaskStatus], None]


class Tasks:
    """What should run here, and how far it has come.

    Invariant: a task's reported state never falls while it is known here.
    """

    def __init__(self, executor: Executor, report: Report, *, starts_at_once: int = STARTS_AT_ONCE) -> None:
        self._executor = executor
        self._report = report
        self._tasks: dict[str, Task] = {}
        self._local: dict[str, Local] = {}
        self._unclaimed: dict[str, Seen] = {}  # containers that no assignment has named yet
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.TimerHandle] = {}
        self._starting = asyncio.Semaphore(starts_at_once)
        self._closed = False

    async def open(self) -> None:
        """Find the containers that are there."""
        self._unclaimed = await self._executor.open(self._changed)

    async def close(self) -> None:
        """Stop driving; what runs goes on."""
        self._closed = True
        for wake in self._wakes.values():
            wake.cancel()
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._executor.close()

    def apply(self, wanted: Iterable[Task], removed: Iterable[str] = (), *, complete: bool = False) -> None:
        """Take in what the managers want. `complete`: what is not named is no longer wanted."""
        named = set()
        for task in wanted:
            named.add(task.id)
            self._want(task)
        gone = set(removed)
        if complete:
            gone |= (self._tasks.keys() | self._unclaimed.keys()) - named
        for task_id in gone:
            self._gone(task_id)

    def release(self, task_ids: Iterable[str]) -> None:
        """These may get their stop signal now."""
        for task_id in task_ids:
            if (local := self._local.get(task_id)) is not None:
                self._set(task_id, msgspec.structs.replace(local, released=True))

    def statuses(self) -> dict[str, TaskStatus]:
        """Every task's status as it is now: what a manager that knows nothing has to hear."""
        return {task_id: self._status(task_id, local, "", local.error)
                for task_id, local in self._local.items() if local.state >= TaskState.ACCEPTED}

    def wanted(self) -> list[Task]:
        return list(self._tasks.values())

    async def stop_all(self) -> None:
        """Stop and remove every container of a task: this host leaves the swarm."""
        for task_id in self._tasks.keys() | self._unclaimed.keys():
            self._gone(task_id)
        for task_id, local in list(self._local.items()):
            self._set(task_id, msgspec.structs.replace(local, released=True))
        while self._calls:
            await asyncio.wait(list(self._calls.values()))

    def _want(self, task: Task) -> None:
        self._tasks[task.id] = task
        local = self._local.get(task.id)
        if local is None:
            seen = self._unclaimed.pop(task.id, None) or self._executor.seen(task.id)
            local = found(task.desired, task.status.state, seen)
            if not task.attachments:
                local = msgspec.structs.replace(local, released=True)
        else:
            local = msgspec.structs.replace(local, desired=max(task.desired, local.desired))
        self._set(task.id, local)

    def _gone(self, task_id: str) -> None:
        local = self._local.get(task_id)
        if local is None:
            seen = self._unclaimed.pop(task_id, None) or self._executor.seen(task_id)
            local = Local(desired=TaskState.REMOVE, state=TaskState.ORPHANED, seen=seen, released=True)
        self._set(task_id, msgspec.structs.replace(local, gone=True))

    def _changed(self, task_id: str, seen: Seen) -> None:
        """The executor saw a container change."""
        local = self._local.get(task_id)
        if local is not None:
            self._set(task_id, msgspec.structs.replace(local, seen=seen))
        elif task_id in self._unclaimed:
            self._unclaimed[task_id] = seen

    def _set(self, task_id: str, local: Local) -> None:
        """Let the machine go as far as it goes."""
        if self._closed:
            return
        while True:
            before = local.state
            following = step(local, time.monotonic())
            moved = following.local.state is not before
            local = following.local
            if moved:
                self._report(task_id, self._status(task_id, local, following.message, following.error))
            if following.action is not None:
                self._begin(task_id, following.action)
                break
            if not moved:
                break
        if following.forget:
            self._forget(task_id)
            return
        self._local[task_id] = local
        if following.wake_at is not None:
            self._wake(task_id, following.wake_at - time.monotonic())

    def _forget(self, task_id: str) -> None:
        self._local.pop(task_id, None)
        self._tasks.pop(task_id, None)
        if (wake := self._wakes.pop(task_id, None)) is not None:
            wake.cancel()

    def _wake(self, task_id: str, delay_s: float, *, again: bool = False) -> None:
        if (old := self._wakes.pop(task_id, None)) is not None:
            old.cancel()
        self._wakes[task_id] = asyncio.get_running_loop().call_later(max(delay_s, 0), self._woken, task_id, again)

    def _woken(self, task_id: str, again: bool) -> None:
        self._wakes.pop(task_id, None)
        if (local := self._local.get(task_id)) is not None:
            self._set(task_id, msgspec.structs.replace(local, failed=None) if again else local)

    def _status(self, task_id: str, local: Local, message: str, error: str) -> TaskStatus:
        seen = local.seen
        container = None
        if seen.container_id:
            container = ContainerStatus(container_id=seen.container_id, pid=seen.pid, exit_code=seen.exit_code)
        return TaskStatus(state=local.state, timestamp=time.time(), message=message or local.state.word, err=error,
                          container=container)

    # --- calls of the executor ---

    def _begin(self, task_id: str, action: Action) -> None:
        call = asyncio.get_running_loop().create_task(self._call(task_id, action), name=f"{action} {task_id}")
        self._calls[task_id] = call
        call.add_done_callback(lambda done: self._ended(task_id, action, done))

    async def _call(self, task_id: str, action: Action) -> None:
        task = self._tasks.get(task_id)
        if action is Action.STOP:
            await self._executor.stop(task_id, _grace_s(task))
        elif action is Action.REMOVE:
            await self._executor.remove(task_id)
        elif task is not None:
            async with self._starting:
                if action is Action.PREPARE:
                    await self._executor.prepare(task)
                else:
                    await self._executor.start(task)

    def _ended(self, task_id: str, action: Action, call: asyncio.Task[None]) -> None:
        """A call is over: look at the container again, and go on."""
        if self._calls.get(task_id) is call:
            del self._calls[task_id]
        local = self._local.get(task_id)
        if call.cancelled() or local is None:
            return
        failure = call.exception()
        seen = self._executor.seen(task_id)
        if failure is None:
            if action is Action.STOP and seen.phase is Phase.RUNNING:
                failure = ShoalError("the container still runs")
            elif action is Action.REMOVE and seen.phase is not Phase.ABSENT:
                failure = ShoalError("the container is still there")
            elif action is Action.PREPARE and seen.phase is Phase.ABSENT:
                failure = ShoalError("its container was removed")
            elif action is Action.START and seen.phase is Phase.CREATED:
                failure = ShoalError("its container did not start")
        if failure is None:
            self._set(task_id, msgspec.structs.replace(local, busy=None, failed=None, error="", seen=seen))
            return
        expected = isinstance(failure, ShoalError)
        log.warning("event=action-failed task=%s action=%s error=%s", task_id, action, failure,
                    exc_info=None if expected else failure)
        error = failure.message if isinstance(failure, ShoalError) else f"{type(failure).__name__}: {failure}"
        self._set(task_id, msgspec.structs.replace(local, busy=None, failed=action, error=error, seen=seen))
        if action in (Action.STOP, Action.REMOVE):
            self._wake(task_id, RETRY_S, again=True)


def _grace_s(task: Task | None) -> float:
    container = task.spec.container if task is not None else None
    return DEFAULT_GRACE_S if container is None else container.stop_grace_period_ns / SECOND_NS
