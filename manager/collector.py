"""The garbage collector, kept from walking the whole state over and over.

At 100,000 tasks one full collection takes a tenth of a second and more, in which no
heartbeat goes out; while tasks are made there is one every few seconds. So what has
survived one is frozen, and the next looks only at what is new. Cycles among frozen
objects would stay for ever: every so often one collection walks all.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

WALK_ALL_S = 3600.0


class Collector:
    """`install` once, after the state was loaded; `remove` undoes it (tests)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._walked_all_at = clock()

    def install(self) -> None:
        gc.collect()
        gc.freeze()
        self._walked_all_at = self._clock()
        gc.callbacks.append(self._on_collection)

    def remove(self) -> None:
        gc.callbacks.remove(self._on_collection)
        gc.unfreeze()

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase != "stop" or info["generation"] < 2:
            return
        now = self._clock()
        if now - self._walked_all_at >= WALK_ALL_S:
            self._walked_all_at = now
            gc.unfreeze()  # the next one looks at everything
        else:
            gc.freeze()
