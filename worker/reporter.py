"""Statuses on their way to a manager: kept until it says that they are committed. Pure but for the clock it is given.

A task's states only grow, so only its newest status is kept. After a reconnect
everything unacknowledged goes out again; what a manager already has, it ignores.
"""

from __future__ import annotations

from shoal.api.messages import StatusUpdates
from shoal.api.objects import TaskStatus

BATCH_S = 0.03
"""Under load, statuses are gathered for so long; an idle reporter sends at once."""

MAX_UPDATES = 2000
"""In one message."""


class Reporter:
    """`add` and `flush`; the caller sends what `flush` returns."""

    def __init__(self) -> None:
        self._fresh: dict[str, TaskStatus] = {}
        self._sent: dict[str, tuple[int, TaskStatus]] = {}
        self._number = 0
        self._last_flush = float("-inf")

    def add(self, task_id: str, status: TaskStatus) -> None:
        """A new status. An older one of the task need not be sent any more."""
        self._fresh.pop(task_id, None)
        self._fresh[task_id] = status

    def due_in(self, now: float) -> float | None:
        """Seconds until `flush` has something to send; None: nothing."""
        if not self._fresh:
            return None
        return max(self._last_flush + BATCH_S - now, 0.0)

    def flush(self, now: float) -> StatusUpdates | None:
        """The next message, if one is due."""
        due = self.due_in(now)
        if due is None or due > 0:
            return None
        self._last_flush = now
        self._number += 1
        chosen = list(self._fresh.items())[:MAX_UPDATES]
        for task_id, status in chosen:
            del self._fresh[task_id]
            self._sent[task_id] = (self._number, status)
        return StatusUpdates(number=self._number, updates=tuple(chosen))

    def acked(self, number: int) -> None:
        """What was sent up to `number` is committed."""
        for task_id in [one for one, (sent, _) in self._sent.items() if sent <= number]:
            del self._sent[task_id]

    def reconnected(self) -> None:
        """Whatever is not acknowledged goes out again, before what is new."""
        again = {task_id: status for task_id, (_, status) in self._sent.items()}
        self._sent.clear()
        self._fresh = again | self._fresh
        self._last_flush = float("-inf")

    @property
    def pending(self) -> int:
        """Statuses that no manager has confirmed."""
        return len(self._fresh.keys() | self._sent.keys())
