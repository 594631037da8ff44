"""An asyncio loop on a virtual clock: sleeping costs no time, and equal runs are equal.

    result = run(main())            # `loop.time()` starts at 0 and jumps from timer to timer

For code that waits on timers, events and queues only. A socket or a thread has no place
in it; when nothing is left that could ever happen, `Stuck` says so instead of hanging.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(RuntimeError):
    """Everybody waits, and no timer is set."""


class _NoWaiting(selectors.SelectSelector):
    """Selecting takes no time: it moves the clock on to the next timer instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck(f"at {self.now:.3f} s everybody waits and no timer is set")
        if timeout > 0:
            self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Invariant: `time()` never falls, and moves only when nobody has anything to do."""

    def __init__(self) -> None:
        self._virtual = _NoWaiting()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._virtual.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a fresh virtual loop, and cancel whatever it leaves behind."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
