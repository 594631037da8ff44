"""Containers that are started again by themselves: whether, how long after their end, and what is held back from it.

What a policy says is decided in `restart`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from shoal.engine.containers import restart
from shoal.engine.containers.nouns import Container


class Restarts:
    """See the module. `start` starts one whose time has come; it says `begun` when it does."""

    def __init__(self, start: Callable[[str], Awaitable[None]]) -> None:
        self._start = start
        self._delays: dict[str, float] = {}  # of those that are started again and again
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._by_hand: Counter[str] = Counter()
        self.going_down = False  # the host is: no policy starts what ends, and nobody has stopped it by hand

    # --- whether ---

    @contextmanager
    def by_hand(self, container_id: str) -> Iterator[None]:
        """It is restarted by hand meanwhile, perhaps more than once: neither its policy nor auto-remove has a say."""
        self._by_hand[container_id] += 1
        try:
            yield
        finally:
            self._by_hand -= Counter([container_id])

    def is_by_hand(self, container_id: str) -> bool:
        return container_id in self._by_hand

    def wanted(self, container: Container) -> bool:
        """Whether it, which has just ended, is to be started `later`."""
        state = container.state
        if self.going_down or self.is_by_hand(container.id) or not restart.wants_restart(
                container.host.restart, exit_code=state.exit_code, restarts=state.restart_count,
                manually_stopped=state.has_been_manually_stopped):
            return False
        ran_s = (state.finished_ns - state.started_ns) / 1e9
        self._delays[container.id] = restart.next_delay(self._delays.get(container.id, 0.0), ran_s)
        return True

    # --- when ---

    def later(self, container_id: str) -> None:
        """Start it after its delay; at once where it has none."""
        work = self._after(container_id, self._delays.get(container_id, 0.0))
        self._waiting[container_id] = asyncio.get_running_loop().create_task(work)

    async def _after(self, container_id: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._start(container_id)

    def begun(self, container_id: str) -> None:
        self._waiting.pop(container_id, None)

    def give_up(self, container_id: str) -> None:
        if (task := self._waiting.pop(container_id, None)) is not None:
            task.cancel()

    def forget_delay(self, container_id: str) -> None:
        """It was started by hand."""
        self._delays.pop(container_id, None)

    def forget(self, container_id: str) -> None:
        """It has been removed."""
        self._delays.pop(container_id, None)
        self._waiting.pop(container_id, None)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way. Whoever closes cancels them."""
        return list(self._waiting.values())
