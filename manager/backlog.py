"""Work through a whole view in bounded steps, so that a new leader's first turn is as short as any. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

STEP = 500
"""Records that a decider takes in, or looks at, in one turn."""


class Backlog:
    """What a decider has still to take in since it was loaded.

    It walks an immutable view; who takes an id looks it up in the newest one,
    where it may be gone.
    """

    def __init__(self) -> None:
        self._left: Iterator[str] = iter(())
        self.done = True

    def start(self, *ids: Iterable[str]) -> None:
        """Begin anew with these ids, in this order."""
        self._left = itertools.chain(*ids)
        self.done = False

    def take(self, count: int = STEP) -> list[str]:
        """The next ids; `done` once there are no more."""
        taken = list(itertools.islice(self._left, count))
        self.done = len(taken) < count
        return taken
