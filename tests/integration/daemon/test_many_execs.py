"""Very many execs at once in one container. EXECS=1000 for as many as the project promises."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shoal.lab.processes import command_line
from tests.integration.daemon.host import CGROUPS, Machine, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

COUNT = int(os.environ.get("EXECS", "100"))
DEADLINE_S = 120.0
GATE = "exec 3< /gate; echo in; read line <&3; echo out; exit "
"""It can be read from as long as somebody has it open for writing."""


class Client:
    """Of the API, without Docker's: each exec takes a connection."""

    def __init__(self, machine: Machine) -> None:
        self._session = aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(
            str(machine.socket), limit=0), timeout=aiohttp.ClientTimeout(total=DEADLINE_S))

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        async with self._session.request(method, path, json=body) as answer:
            found = await answer.json()
            assert answer.status < 300, found
            return found

    async def run(self, container: str, code: int, entered: asyncio.Semaphore) -> tuple[list[bytes], int]:
        """What it said, piece by piece, and its code. `entered` is released once it is at the gate."""
        made = await self.call("POST", f"/containers/{container}/exec", {
            "Cmd": ["sh", "-c", f"{GATE}{code}"], "AttachStdout": True, "AttachStderr": True})
        said = []
        async with self._session.post(f"/exec/{made['Id']}/start", json={"Detach": False}) as answer:
            with suppress(asyncio.IncompleteReadError):
                while header := await answer.content.readexactly(8):
                    said.append(await answer.content.readexactly(int.from_bytes(header[4:])))
                    entered.release()
        return said, (await self.call("GET", f"/exec/{made['Id']}/json"))["ExitCode"]

    async def close(self) -> None:
        await self._session.close()


def processes(machine: Machine, container: str) -> list[int]:
    full_id = machine.inspect(container)["Id"]
    folders = [CGROUPS / "pids" / machine.cgroup / full_id, CGROUPS / machine.cgroup / full_id]
    group = next(one for one in folders if one.exists())
    return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]


def held(pid: int) -> tuple[int, int]:
    """Descriptors and children."""
    children = sum(len(task.read_text().split()) for task in Path(f"/proc/{pid}/task").glob("*/children"))
    return len(list(Path(f"/proc/{pid}/fd").iterdir())), children


async def test_all_end_as_they_should_and_leave_nothing(host: Machine) -> None:
    def state() -> tuple[int, ...]:
        return len(processes(host, "many")), *held(host.daemon_pid())

    host.docker("run", "--detach", "--name", "many", "busybox", "sh", "-c", "mkfifo /gate; exec sleep 10000")
    until(lambda: host.docker_run("exec", "many", "test", "-p", "/gate").returncode == 0, "the gate is there")
    before = state()
    host.docker("exec", "--detach", "many", "sh", "-c", "exec 3<> /gate; exec sleep 20000")
    gatekeeper = until(lambda: next((pid for pid in processes(host, "many") if command_line(pid) == ["sleep", "20000"]),
                                    0), "the gate is open")
    client, entered = Client(host), asyncio.Semaphore(0)
    try:
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            running = [group.create_task(client.run("many", number % 256, entered)) for number in range(COUNT)]
            for _ in running:
                await entered.acquire()
            assert len(processes(host, "many")) == before[0] + 1 + COUNT  # all of them at once
            os.kill(gatekeeper, signal.SIGKILL)
        for number, task in enumerate(running):
            assert task.result() == ([b"in\n", b"out\n"], number % 256)
    finally:
        await client.close()
    until(lambda: all(now <= then for now, then in zip(state(), before, strict=True)), f"no more is left than {before}")
