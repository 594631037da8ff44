"""The one host that all operations are called on."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.bed import Bed
from tests.integration.daemon.host import Machine


@pytest.fixture(scope="package")
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    machine = Machine(Path(tempfile.mkdtemp(prefix="shoal-contract-")))  # short: paths of sockets are limited
    made = Bed(machine)
    try:
        machine.on()
        machine.start()
        machine.load_image()
        made.found()
        yield made
    finally:
        made.thaw()
        machine.off()
