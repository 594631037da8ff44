"""What the managers want of this host, as far as it was heard; kept on disk.

A daemon that starts without any manager in reach goes on with what it was last
told. The file may be a moment behind: containers say the rest themselves.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec

from shoal.api.errors import ShoalError
from shoal.api.messages import Assignments
from shoal.api.objects import Task
from shoal.worker.credentials import replace_file

log = logging.getLogger(__name__)

SAVE_DELAY_S = 0.2


class OutOfOrder(ShoalError):
    """A message was missed: the session has to begin anew."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file. `schema` grows when its meaning does."""

    schema: int = 1
    node_id: str = ""
    tasks: tuple[Task, ...] = ()


class Sequence:
    """Checks that no message of a session is missed. Pure."""

    def __init__(self) -> None:
        self._last: int | None = None

    def check(self, message: Assignments) -> None:
        """Raises OutOfOrder."""
        if message.complete:
            self._last = message.sequence
            return
        if self._last is None or message.sequence != self._last + 1:
            raise OutOfOrder(f"assignments {message.sequence} came after {self._last}")
        self._last = message.sequence


class Desired:
    """The table of tasks, and its copy on disk."""

    def __init__(self, path: Path, node_id: str) -> None:
        self._path = path
        self._node_id = node_id
        self.tasks: dict[str, Task] = {}
        self._timer: asyncio.TimerHandle | None = None

    def load(self) -> list[Task]:
        """What was kept for this node; nothing where the file is missing or cannot be read (that is logged)."""
        try:
            kept = msgspec.msgpack.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            log.error("event=assignments-unreadable path=%s error=%s", self._path, error)
            return []
        if kept.node_id == self._node_id:
            self.tasks = {task.id: task for task in kept.tasks}
        return list(self.tasks.values())

    def apply(self, message: Assignments) -> None:
        if message.complete:
            self.tasks = {}
        for task_id in message.removed_tasks:
            self.tasks.pop(task_id, None)
        for task in message.tasks:
            self.tasks[task.id] = task
        if self._timer is None and (message.complete or message.tasks or message.removed_tasks):
            self._timer = asyncio.get_running_loop().call_later(SAVE_DELAY_S, self.save)

    def save(self) -> None:
        """Write the copy now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        kept = Kept(node_id=self._node_id, tasks=tuple(self.tasks.values()))
        try:
            replace_file(self._path, msgspec.msgpack.encode(kept), durable=False)
        except OSError as error:
            log.error("event=assignments-not-kept path=%s error=%s", self._path, error)

    @property
    def due(self) -> bool:
        """Whether the copy is behind, and is about to be written."""
        return self._timer is not None

    def close(self) -> None:
        """Write what is due."""
        if self.due:
            self.save()

    def discard(self) -> None:
        """Forget everything, the copy as well: this host leaves the swarm."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.tasks = {}
        self._path.unlink(missing_ok=True)
