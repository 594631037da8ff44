"""A scale to 100,000 tasks causes no election: three managers as processes, over TLS on loopback, real deciders.

`tests/property/manager/test_turns.py` counts what single turns do; here it all comes
together with Raft, its disk, its snapshots and the garbage collector.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from shoal.manager.ca.issue import new_root
from tests.integration.raft.trio import certify, free_address

TASKS = 100_000
REPOSITORY = Path(__file__).parents[3]
PATIENCE_S = 240.0


class Manager:
    """One process, asked over its standard input."""

    def __init__(self, process):
        self.process = process
        self.terms = set()
        self.latest = {}

    @classmethod
    async def start(cls, folder, number, addresses):
        return cls(await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.integration.raft.member", str(folder), str(number), *addresses,
            cwd=REPOSITORY, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE))

    async def ask(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        line = await self.process.stdout.readline()
        assert line, "a manager died"
        self.latest = json.loads(line)
        self.terms.add(self.latest.get("term"))
        return self.latest

    async def stop(self):
        self.process.stdin.close()
        await self.process.wait()


@pytest.fixture
async def managers(tmp_path):
    root, addresses = new_root(time.time()), [free_address() for _ in range(3)]
    started = []
    for number in (1, 2, 3):
        certify(tmp_path / f"n{number}", root, f"n{number}")
        started.append(await Manager.start(tmp_path / f"n{number}", number, addresses))
    yield started
    for manager in started:
        await manager.stop()


async def all_answer(managers, wanted):
    """Ask everybody until it is so; a look every now and then."""
    async with asyncio.timeout(PATIENCE_S):
        while not wanted([await manager.ask("status") for manager in managers]):
            await asyncio.sleep(0.25)


@pytest.mark.timeout(PATIENCE_S + 60)
async def test_a_scale_to_100_000_tasks_causes_no_election(managers):
    await all_answer(managers, lambda each: any(one["leads"] for one in each))
    leader = next(manager for manager in managers if manager.latest["leads"])
    await leader.ask("prepare")
    for manager in managers:
        manager.terms.clear()
    term = (await leader.ask(f"scale {TASKS}"))["term"]
    began = time.monotonic()
    await all_answer(managers, lambda each: all(one["tasks"] > TASKS // 2 for one in each))
    for manager in managers:
        await manager.ask("compact")
    await all_answer(managers, lambda each: all(one["tasks"] == TASKS and one["snapshot"] for one in each))
    async with asyncio.timeout(PATIENCE_S):
        while (await leader.ask("count"))["assigned"] < TASKS:
            await asyncio.sleep(1)
    for manager in managers:
        manager.terms.discard(None)
        print(round(time.monotonic() - began), await manager.ask("status"))
        assert manager.terms == {term}, "there was an election"
    assert leader.latest["leads"]
