"""The lab of five hosts that tests share: one for the whole run. Tests leave it as they found it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.lab import lab as labs
from tests.cluster import Cluster

NAME = f"tests-{os.getpid()}"
"""Runs at the same time have labs of their own."""


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Cluster]:
    """Three managers and two workers. Labs that killed runs left are taken down first."""
    if os.geteuid() != 0:
        pytest.fail("labs need root: they make namespaces, links and mounts")
    for left in labs.names():
        if left.startswith("tests-") and not Path(f"/proc/{left.rpartition('-')[2]}").exists():
            labs.down(left)
    try:
        yield Cluster(labs.up(NAME, managers=3, workers=2))
    finally:
        if not os.environ.get("KEEP_LAB"):  # to look at after a failure
            labs.down(NAME)


@pytest.fixture
def cluster(shared_lab: Cluster) -> Iterator[Cluster]:
    """The shared lab, whole and empty before and after."""
    yield shared_lab
    shared_lab.restore()
    shared_lab.sweep()
