"""What the agent needs of whoever runs containers: the protocol, and nothing that does it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from shoal.api.objects import Task
from shoal.worker.taskmachine import Seen

SeenCallback = Callable[[str, Seen], None]
"""Called with a task's id whenever its container is seen to have changed."""


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines of a log. `since`: seconds since the epoch; `tail` < 0: all."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    tail: int = -1
    since: float = 0.0


class Executor(Protocol):
    """Containers by the id of their task. Errors are ShoalErrors, whose message goes into the task's status."""

    async def open(self, changed: SeenCallback) -> dict[str, Seen]:
        """Begin to watch. Returns the containers of tasks that are there already."""

    async def close(self) -> None:
        """Stop watching; containers live on."""

    async def prepare(self, task: Task) -> None:
        """Make the task's container. No error where it is there. Raises: the task is rejected."""

    async def start(self, task: Task) -> None:
        """Start it. Raises: the task failed."""

    async def stop(self, task_id: str, grace_s: float) -> None:
        """Signal, wait for so long, kill. No error where it has stopped. Returns once it has."""

    async def remove(self, task_id: str) -> None:
        """Remove the container. No error where there is none."""

    def seen(self, task_id: str) -> Seen:
        """As it is now."""

    def logs(self, task_id: str, query: LogQuery) -> AsyncIterator[bytes]:
        """The log as multiplexed frames. Raises NotFound where there is no container."""
