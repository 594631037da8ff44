"""The real executor: a task's container in this host's engine, found again by its label.

The engine is seen through `ContainerEngine`, so that this module says exactly what
it needs. What a container is comes from `containerplan`; nothing here decides.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

from shoal.api.errors import NotFound
from shoal.api.objects import NodeDescription, Task
from shoal.worker.containerplan import TASK_ID, ContainerPlan, plan
from shoal.worker.executor import LogQuery, SeenCallback
from shoal.worker.taskmachine import Phase, Seen

log = logging.getLogger(__name__)


class ContainerEngine(Protocol):
    """What the executor needs of the engine. Containers are named by id; errors are ShoalErrors."""

    async def create(self, wanted: ContainerPlan) -> str:
        """Make a container; its id. Raises NotFound ("No such image: …"), Conflict for a name in use."""

    async def start(self, container_id: str) -> None:
        """Start it: sandbox, root, process. Raises ShoalError."""

    async def stop(self, container_id: str, grace_s: float) -> None:
        """Its stop signal, then a kill. Returns once it has stopped."""

    async def remove(self, container_id: str) -> None:
        """Remove it with its anonymous volumes, by force."""

    def labelled(self, label: str) -> Iterable[tuple[str, str, Seen]]:
        """(container id, value of the label, as it is now) of every container that has the label."""

    def seen(self, container_id: str) -> Seen:
        """As it is now; ABSENT where there is none such."""

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """`changed` hears the id of each container that changed. Returns what ends that."""

    def logs(self, container_id: str, query: LogQuery) -> AsyncIterator[bytes]:
        """Multiplexed frames."""


class EngineExecutor:
    """Implements `executor.Executor`. Invariant: `_containers` and `_tasks` are each other's inverse."""

    def __init__(self, engine: ContainerEngine, node_id: str, describe: Callable[[], NodeDescription]) -> None:
        self._engine = engine
        self._node_id = node_id
        self._describe = describe
        self._containers: dict[str, str] = {}  # task id → container id
        self._tasks: dict[str, str] = {}
        self._changed: SeenCallback | None = None
        self._unwatch: Callable[[], None] = lambda: None

    async def open(self, changed: SeenCallback) -> dict[str, Seen]:
        self._changed = changed
        self._unwatch = self._engine.watch(self._hear)
        found = {}
        for container_id, task_id, seen in self._engine.labelled(TASK_ID):
            self._know(task_id, container_id)
            found[task_id] = seen
        return found

    async def close(self) -> None:
        self._unwatch()
        self._changed = None

    async def prepare(self, task: Task) -> None:
        if self.seen(task.id).phase is not Phase.ABSENT:
            return
        self._know(task.id, await self._engine.create(plan(task, self._node_id, self._describe())))

    async def start(self, task: Task) -> None:
        if self.seen(task.id).phase is Phase.CREATED:
            await self._engine.start(self._containers[task.id])

    async def stop(self, task_id: str, grace_s: float) -> None:
        if self.seen(task_id).phase is Phase.RUNNING:
            await self._engine.stop(self._containers[task_id], grace_s)

    async def remove(self, task_id: str) -> None:
        container_id = self._containers.get(task_id)
        if container_id is None:
            return
        try:
            await self._engine.remove(container_id)
        except NotFound:
            log.debug("event=removed-already task=%s container=%s", task_id, container_id)
        self._containers.pop(task_id, None)
        self._tasks.pop(container_id, None)

    def seen(self, task_id: str) -> Seen:
        container_id = self._containers.get(task_id)
        return Seen() if container_id is None else self._engine.seen(container_id)

    def logs(self, task_id: str, query: LogQuery) -> AsyncIterator[bytes]:
        container_id = self._containers.get(task_id)
        if container_id is None:
            raise NotFound(f"task {task_id} has no container here")
        return self._engine.logs(container_id, query)

    def _know(self, task_id: str, container_id: str) -> None:
        self._containers[task_id] = container_id
        self._tasks[container_id] = task_id

    def _hear(self, container_id: str) -> None:
        task_id = self._tasks.get(container_id)
        if task_id is not None and self._changed is not None:
            self._changed(task_id, self._engine.seen(container_id))
