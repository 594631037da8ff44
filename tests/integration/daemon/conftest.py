"""Fixtures: one machine for all tests of a module; each test leaves it without containers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine
from tests.integration.daemon.repository import repository

__all__ = ["host", "machine", "repository"]


@pytest.fixture(scope="package")
def machine() -> Iterator[Machine]:
    """Started, with the image busybox."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command on this machine")
    with Machine(Path(tempfile.mkdtemp(prefix="shoal-daemon-"))) as made:  # short: paths of sockets are limited
        yield made


@pytest.fixture
def host(machine: Machine) -> Iterator[Machine]:
    """The machine, cleared of containers, networks and volumes after the test."""
    yield machine
    if containers := machine.docker("ps", "--all", "--quiet").split():
        machine.docker("rm", "--force", "--volumes", *containers)
    machine.docker("network", "prune", "--force")
    if volumes := machine.docker("volume", "ls", "--quiet").split():  # a prune leaves those with options alone
        machine.docker("volume", "rm", "--force", *volumes)
