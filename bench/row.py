"""The lines of the table: what is measured, how, how often, and what is to be reached."""

from __future__ import annotations

from collections.abc import Callable

from bench.peers.hosts import Peer

Measure = Callable[[Peer, str], float]


class Goal:
    """`limit`: the ratio Shoal / peer that is to be reached; None: at least as high."""

    def __init__(self, title: str, unit: str, limit: float | None) -> None:
        self.title, self.unit, self.limit = title, unit, limit

    def met(self, ratio: float) -> bool:
        return ratio >= 1.0 if self.limit is None else ratio <= self.limit


class Row(Goal):
    """One that is measured of a Docker host, or of a swarm of them, by itself."""

    def __init__(self, title: str, unit: str, measure: Measure, limit: float | None, repeat: int) -> None:
        super().__init__(title, unit, limit)
        self.measure, self.repeat = measure, repeat
