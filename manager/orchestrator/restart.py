"""Whether, and after how long, a task that ended by itself is tried again. Pure.

Only tasks that failed (or completed) by themselves come here: one whose node
died or was drained is replaced at once, whatever the policy says.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from shoal.api.objects import Task
from shoal.api.specs import SECOND_NS, RestartPolicy
from shoal.api.states import TaskState


def allows(policy: RestartPolicy, ended: TaskState) -> bool:
    """Whether the policy's condition lets a task that ended in this state be tried again."""
    if policy.condition == "none":
        return False
    return not (policy.condition == "on-failure" and ended == TaskState.COMPLETE)


def delay_s(policy: RestartPolicy) -> float:
    """Seconds between the end of a task and the start of its successor."""
    return policy.delay_ns / SECOND_NS


def exhausted(task: Task) -> bool:
    """Whether a task may be the last of its attempts, as far as its own record tells.

    The count in the record never falls; with a window the leader that decided knew better.
    """
    policy = task.spec.restart
    return not allows(policy, task.status.state) or (0 < policy.max_attempts <= task.restart_count)


class History:
    """When each slot was restarted, on the clock of this leader. Empty with each new one.

    Invariant: a slot has at most `max_attempts` entries once `may_restart` has looked.
    """

    def __init__(self) -> None:
        self._restarts: dict[object, deque[float]] = {}

    def may_restart(self, slot: object, task: Task, now: float) -> bool:
        """Whether the policy of a task that ended lets its slot be tried again now."""
        policy = task.spec.restart
        if not allows(policy, task.status.state):
            return False
        if policy.max_attempts == 0:
            return True
        if not policy.window_ns:
            return task.restart_count < policy.max_attempts
        restarts = self._restarts.get(slot, deque())
        while restarts and restarts[0] <= now - policy.window_ns / SECOND_NS:
            restarts.popleft()
        return len(restarts) < policy.max_attempts

    def record(self, slot: object, task: Task, now: float) -> None:
        """Remember a restart where a window will ask for it."""
        if task.spec.restart.max_attempts and task.spec.restart.window_ns:
            self._restarts.setdefault(slot, deque(maxlen=task.spec.restart.max_attempts)).append(now)

    def forget(self, slots: Iterable[object]) -> None:
        """These slots are gone."""
        for slot in slots:
            self._restarts.pop(slot, None)
