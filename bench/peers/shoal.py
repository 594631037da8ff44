"""Shoal in its own lab."""

from __future__ import annotations

from pathlib import Path

from bench.peers.hosts import Namespaced
from shoal.lab import lab as labs

NAME = "bench"


class Shoal(Namespaced):
    name = "shoal"
    data = labs.DATA / NAME

    def up(self, managers: int, workers: int, image: Path) -> None:
        self.lab = labs.up(NAME, managers, workers)
        self.load(image)

    def down(self) -> None:
        labs.down(NAME)

    def daemon_pids(self, host: str) -> list[int]:
        return self.processes_named(host, "shoal.daemon", "shoal.manager")
