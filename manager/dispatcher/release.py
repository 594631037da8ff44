"""When a task may get its stop signal: once nobody sends new connections to it. Pure.

A task that is no longer wanted is taken out of the backends first, on every node of
its networks; it is released when all of those have said that they did, or after
`RELEASE_S`. A node whose session ends is waited for no longer: it is told the rest
when it comes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

RELEASE_S = 2.0


class _Hold:
    """Tasks that wait for the same nodes."""

    def __init__(self, tasks: Mapping[str, Sequence[str]], until: float) -> None:
        self.tasks = {node_id: tuple(ids) for node_id, ids in tasks.items()}
        self.until = until
        self.waits: set[str] = set()
        self.over = False


class Releases:
    """Each answer is node id → the tasks on it that are released now; each task is released once."""

    def __init__(self) -> None:
        self._holds: deque[_Hold] = deque()  # oldest first
        self._waiting: dict[str, deque[tuple[int, _Hold]]] = {}  # node id → (sequence, hold), in order of sequences

    def hold(
        self, tasks: Mapping[str, Sequence[str]], waits: Mapping[str, int], now: float
    ) -> dict[str, tuple[str, ...]]:
        """Hold tasks (node id → ids) until each node of `waits` is at its sequence. Later calls name later ones."""
        hold = _Hold(tasks, now + RELEASE_S)
        hold.waits.update(waits)
        if not waits:
            return hold.tasks
        self._holds.append(hold)
        for node_id, sequence in waits.items():
            waiting = self._waiting.setdefault(node_id, deque())
            while waiting and waiting[0][1].over:  # of a node that never answers only the last seconds are kept
                waiting.popleft()
            waiting.append((sequence, hold))
        return {}

    def __len__(self) -> int:
        """Answers that are waited for."""
        return sum(len(waiting) for waiting in self._waiting.values())

    def applied(self, node_id: str, sequence: int) -> dict[str, tuple[str, ...]]:
        """A node's data plane is at this sequence."""
        waiting = self._waiting.get(node_id, deque())
        reached: list[_Hold] = []
        while waiting and waiting[0][0] <= sequence:
            reached.append(waiting.popleft()[1])
        if not waiting:
            self._waiting.pop(node_id, None)
        return self._reached(node_id, reached)

    def gone(self, node_id: str) -> dict[str, tuple[str, ...]]:
        """A node's session is over."""
        return self._reached(node_id, [hold for _, hold in self._waiting.pop(node_id, ())])

    def due(self, now: float) -> dict[str, tuple[str, ...]]:
        """Those that have waited long enough, whoever has not answered."""
        late: list[_Hold] = []
        while self._holds and (self._holds[0].over or self._holds[0].until <= now):
            hold = self._holds.popleft()
            if not hold.over:
                late.append(hold)
        return self._release(late)

    def deadline(self) -> float | None:
        """When `due` has something."""
        while self._holds and self._holds[0].over:
            self._holds.popleft()
        return self._holds[0].until if self._holds else None

    def _reached(self, node_id: str, holds: list[_Hold]) -> dict[str, tuple[str, ...]]:
        for hold in holds:
            hold.waits.discard(node_id)
        return self._release([hold for hold in holds if not hold.waits and not hold.over])

    @staticmethod
    def _release(holds: list[_Hold]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for hold in holds:
            hold.over = True
            for node_id, ids in hold.tasks.items():
                found[node_id] = (*found.get(node_id, ()), *ids)
        return found
