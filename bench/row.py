"""One line of the table: what is measured, how, how often, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable

from bench.peers.hosts import Peer

Measure = Callable[[Peer, str], float]


class Row:
    """`limit`: the ratio Shoal / dockerd that is to be reached; None: at least as high."""

    def __init__(self, title: str, unit: str, measure: Measure, limit: float | None, repeat: int) -> None:
        self.title, self.unit, self.measure, self.limit, self.repeat = title, unit, measure, limit, repeat

    def met(self, ratio: float) -> bool:
        return ratio >= 1.0 if self.limit is None else ratio <= self.limit
