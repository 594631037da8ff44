"""A container that waits for its start is let go in either runtime's way, and the FIFO is gone then."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Thread

import pytest

from shoal.engine.containers.oci.monitor import Monitor
from shoal.engine.containers.oci.process import Handle


@pytest.fixture
async def conmon() -> AsyncIterator[Handle]:
    """Any process that runs."""
    process = subprocess.Popen(["sleep", "1000"])
    handle = Handle(process.pid)
    yield handle
    handle.close()
    process.kill()
    process.wait()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "exec.fifo")
    return tmp_path / "exec.fifo"


async def test_runc_waits_for_a_reader(fifo: Path, conmon: Handle) -> None:
    container = Thread(target=fifo.write_bytes, args=(b"0",), daemon=True)
    container.start()
    await Monitor(fifo.parent, fifo.parent, conmon, None, 0).release()
    container.join(10)
    assert not container.is_alive()
    assert not fifo.exists()


async def test_crun_waits_for_a_writer(fifo: Path, conmon: Handle) -> None:
    container = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await Monitor(fifo.parent, fifo.parent, conmon, None, 0).release()
        assert os.read(container, 2) == b"\0"
    finally:
        os.close(container)
    assert not fifo.exists()


async def test_what_has_begun_is_left_alone(tmp_path: Path, conmon: Handle) -> None:
    await Monitor(tmp_path, tmp_path, conmon, None, 0).release()
