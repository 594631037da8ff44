"""What agents saw, on its way into the store: the newest of each task, in batches. Pure.

Bounded by itself: a task has one waiting status, and a node only reports on its own
tasks. A message is acknowledged once everything that it carried is committed.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable

import msgspec

from shoal.api.objects import TaskStatus
from shoal.api.states import TaskState
from shoal.manager.store.changes import AnyChange, SetNodeStatus, SetTaskStatus
from shoal.manager.store.state import State

MAX_TEXT = 2000
"""Characters of a message that are kept."""

MAX_ACKS = 8
"""Acknowledgements of one session that wait apart; what is more shares the last one."""


class Heard(msgspec.Struct, frozen=True):
    """What of a message is news, and what a node had no right to say."""

    news: tuple[tuple[str, TaskStatus], ...]
    refused: tuple[str, ...] = ()


def hear(state: State, node_id: str, updates: Iterable[tuple[str, TaskStatus]]) -> Heard:
    """Sort what a node reports. What the store knows already, or knows better, is no news and no error."""
    news: dict[str, TaskStatus] = {}
    refused = []
    for task_id, status in updates:
        task = state.tasks.get(task_id)
        if task is None:
            continue
        if task.node_id != node_id or not TaskState.ACCEPTED <= status.state <= TaskState.REJECTED:
            refused.append(task_id)
            continue
        known = news.get(task_id, task.status)
        if status.state < known.state or status == known:
            continue
        news[task_id] = _clean(status)
    return Heard(tuple(news.items()), tuple(refused))


def _clean(status: TaskStatus) -> TaskStatus:
    sane = math.isfinite(status.timestamp) and status.timestamp >= 0
    if sane and len(status.message) <= MAX_TEXT and len(status.err) <= MAX_TEXT:
        return status
    return msgspec.structs.replace(
        status, message=status.message[:MAX_TEXT], err=status.err[:MAX_TEXT],
        timestamp=status.timestamp if sane else 0.0)


class Batch(msgspec.Struct, frozen=True):
    """Changes to commit together; `mark` goes to `committed` afterwards."""

    changes: tuple[AnyChange, ...]
    mark: int


class StatusQueue:
    """`add`, `take`, commit, `committed`.

    Invariant: statuses leave in the order in which their tasks came in; `_added` and `_taken` count them.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, SetNodeStatus] = {}
        self._under_way: dict[str, SetNodeStatus] = {}  # nodes' changes in the batch that is being committed
        self._tasks: dict[str, TaskStatus] = {}
        self._added = 0
        self._taken = 0
        self._done = 0
        self._acks: dict[str, deque[tuple[int, int]]] = {}  # session → (mark, number)

    def __bool__(self) -> bool:
        return bool(self._nodes or self._tasks)

    def add(self, session_id: str, number: int, news: Iterable[tuple[str, TaskStatus]]) -> bool:
        """Take in one message; whether it can be acknowledged at once, as all of it is committed."""
        for task_id, status in news:
            waiting = self._tasks.get(task_id)
            if waiting is None:
                self._added += 1
            elif waiting.state > status.state:
                continue
            self._tasks[task_id] = status
        acks = self._acks.setdefault(session_id, deque())
        if not acks and self._added == self._done:
            del self._acks[session_id]
            return True
        if len(acks) >= MAX_ACKS:
            acks.pop()
        acks.append((self._added, number))
        return False

    def add_node(self, change: SetNodeStatus) -> None:
        """What was seen of a node; the newest counts."""
        waiting = self._nodes.pop(change.id, None)
        if waiting is not None and change.description is None:
            change = msgspec.structs.replace(change, description=waiting.description)
        self._nodes[change.id] = change

    def node(self, node_id: str) -> SetNodeStatus | None:
        """What the store is about to be told of a node, where it is not told yet."""
        return self._nodes.get(node_id) or self._under_way.get(node_id)

    def take(self, limit: int) -> Batch:
        """The next changes, nodes' first. One batch is under way at a time."""
        nodes = list(itertools.islice(self._nodes, limit))
        self._under_way = {node_id: self._nodes.pop(node_id) for node_id in nodes}
        changes: list[AnyChange] = list(self._under_way.values())
        for task_id in list(itertools.islice(self._tasks, limit - len(changes))):
            changes.append(SetTaskStatus(id=task_id, status=self._tasks.pop(task_id)))
            self._taken += 1
        return Batch(tuple(changes), self._taken)

    def committed(self, mark: int) -> list[tuple[str, int]]:
        """A batch is in the store: (session id, number) to be acknowledged."""
        self._done, self._under_way = mark, {}
        found = []
        for session_id in list(self._acks):
            acks, number = self._acks[session_id], None
            while acks and acks[0][0] <= mark:
                number = acks.popleft()[1]
            if not acks:
                del self._acks[session_id]
            if number is not None:
                found.append((session_id, number))
        return found

    def forget(self, session_id: str) -> None:
        """The session is over; what it said is committed all the same."""
        self._acks.pop(session_id, None)
