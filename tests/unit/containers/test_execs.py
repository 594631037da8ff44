"""An exec whose start takes its time: it stays known, and whoever asked for it may go."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event

import pytest

from shoal.api.errors import NotFound, ShoalError
from shoal.engine.containers.execruntime import RuntimeEntry
from shoal.engine.containers.execs import KEPT, KEPT_S, MOST_KEPT, Execs
from shoal.engine.containers.nouns import Container, ContainerConfig, ExecConfig, HostConfig, State, Status
from shoal.engine.containers.oci.process import start_child
from shoal.engine.containers.oci.runtime import Runtime

DEADLINE_S = 60

RUNTIME = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && pid_file=$2; shift; done
read answer < {fifo}
[ "$answer" = go ] || exit 1
sleep 1000 > /dev/null 2>&1 &
echo $! > $pid_file
"""


class Known:
    """Execs that nobody has started yet."""

    def __init__(self, folder: Path) -> None:
        self.fifo = folder / "fifo"
        os.mkfifo(self.fifo)
        script = folder / "runtime"
        script.write_text(RUNTIME.format(fifo=self.fifo))
        script.chmod(0o755)
        self.container = Container(
            id="c1", name="one", created_ns=1, image_id="i", config=ContainerConfig(), host=HostConfig(),
            state=State(status=Status.RUNNING, pid=os.getpid()))
        self.now = 0.0
        self.execs = Execs(RuntimeEntry(folder / "execs", Runtime("fake", str(script), str(folder))),
                           lambda _: self.container, lambda *_: None, lambda _: [], lambda: self.now)

    def create(self) -> str:
        return self.execs.create(self.container, ExecConfig(command=("sleep",), attach_stdout=True)).id


class Started(Known):
    """And one that a runtime is just starting, until it is told how that ends."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.id = self.create()
        self.starting = asyncio.create_task(self.execs.start(self.id))


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    made = Started(tmp_path)
    yield made
    await made.execs.close()


async def test_one_that_is_starting_is_not_forgotten(started: Started) -> None:
    writer = os.open(started.fifo, os.O_RDWR)  # keeps the runtime waiting
    try:
        await asyncio.sleep(0)
        started.now = KEPT_S
        for _ in range(KEPT):
            started.create()
            started.now += KEPT_S
        assert started.execs.get(started.id).id == started.id
        os.write(writer, b"fail\n")
        with pytest.raises(ShoalError):
            await started.starting
    finally:
        os.close(writer)
    assert started.execs.get(started.id).exit_code == 128


def test_of_many_the_longest_idle_are_forgotten_but_not_at_once(tmp_path: Path) -> None:
    """A client is about to start it, or to ask how it ended."""
    known = Known(tmp_path)
    first, second, *_ = [known.create() for _ in range(KEPT + 100)]
    assert known.execs.get(first)
    known.now = KEPT_S
    known.create()
    assert len(known.execs.of("c1")) == KEPT
    for gone in (first, second):
        with pytest.raises(NotFound):
            known.execs.get(gone)


def test_and_at_once_of_very_many(tmp_path: Path) -> None:
    known = Known(tmp_path)
    first = known.create()
    for _ in range(MOST_KEPT):
        known.create()
    assert len(known.execs.of("c1")) == MOST_KEPT
    with pytest.raises(NotFound):
        known.execs.get(first)


async def test_whoever_wants_its_start_may_go(started: Started) -> None:
    """The program is known all the same, and a kill that came too early reaches it."""
    writer = os.open(started.fifo, os.O_RDWR)
    try:
        await asyncio.sleep(0)
        started.starting.cancel()
        started.execs.kill(started.id)
        os.write(writer, b"go\n")
        async with asyncio.timeout(DEADLINE_S):
            assert await started.execs.wait(started.id) == 137
    finally:
        os.close(writer)


LEAVING = {
    "runtime": """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --pid-file ] && export PID_FILE=$2; shift; done
exec unshare --pid {folder}/fake
""",
    "fake": """#!/bin/sh
(read line < {folder}/fifo) &
echo $! | tee -a {folder}/pids > $PID_FILE
[ $(wc -l < {folder}/pids) = 1 ]
"""}
"""Its part in the container has its name. The second one fails, and leaves that."""


@pytest.mark.root
async def test_what_a_runtime_that_fails_leaves_in_the_container_is_reaped(tmp_path: Path) -> None:
    """Else the container could not end. What another exec runs in it, whatever its name, goes on."""
    os.mkfifo(tmp_path / "fifo")
    for name, script in LEAVING.items():
        (tmp_path / name).write_text(script.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    container = Container(id="c1", name="one", created_ns=1, image_id="i", config=ContainerConfig(), host=HostConfig(),
                          state=State(status=Status.RUNNING, pid=os.getpid()))
    execs = Execs(RuntimeEntry(tmp_path / "execs", Runtime("fake", str(tmp_path / "runtime"), str(tmp_path))),
                  lambda _: container, lambda *_: None, lambda _: [])
    runs, fails = (execs.create(container, ExecConfig(command=("program",))).id for _ in range(2))
    try:
        await execs.start(runs, detach=True)
        with pytest.raises(ShoalError):
            await execs.start(fails)
        program, left = (tmp_path / "pids").read_text().split()
        assert Path("/proc", program).exists()
        assert not Path("/proc", left).exists()
        execs.kill(runs)
        async with asyncio.timeout(DEADLINE_S):
            assert await execs.wait(runs) == 137
    finally:
        await execs.close()


async def test_no_child_is_left_where_its_starter_goes() -> None:
    children: list[subprocess.Popen[bytes]] = []
    began, go = Event(), Event()

    def begin() -> subprocess.Popen[bytes]:
        began.set()
        go.wait(DEADLINE_S)
        children.append(subprocess.Popen(["sleep", "1000"]))
        return children[0]

    starting = asyncio.create_task(start_child(begin))
    await asyncio.to_thread(began.wait, DEADLINE_S)
    starting.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert children[0].returncode == -9
