"""shoald is killed at random moments while twenty clients use it: what it answered holds, and nothing is left over.

SURVIVAL_KILLS sets how often (15 by default; 100 take two and a half minutes), SURVIVAL_SEED when and under what load.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine, until
from tests.integration.daemon.load import Client, Service
from tests.integration.daemon.traces import mentions, traces

KILLS = int(os.environ.get("SURVIVAL_KILLS", "15"))
SEED = int(os.environ.get("SURVIVAL_SEED", "4"))
CLIENTS = 20
LONGEST_LIFE_S, LONGEST_DEATH_S = 1.5, 0.4

_ID = re.compile(r"\b[0-9a-f]{64}\b")

pytestmark = [pytest.mark.root, pytest.mark.clients, pytest.mark.timeout(300 + 30 * KILLS)]


@pytest.fixture
def own_machine() -> Iterator[Machine]:
    """One that nobody else has left anything on."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command on this machine")
    with Machine(Path(tempfile.mkdtemp(prefix="shoal-daemon-"))) as made:
        yield made


async def test_killed_under_load(own_machine: Machine) -> None:
    machine = own_machine
    machine.docker("network", "create", "app")
    machine.docker("run", "--rm", "--network", "app", "--publish", "80", "--volume", "/etc", "busybox", "true")
    until(lambda: not used(machine), "the first one is gone")
    before = traces(machine)
    service = Service(machine.socket)
    service.up.set()
    clients = [Client(service, number, SEED, "app") for number in range(CLIENTS)]
    done = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(done.is_set))
            await _kill_again_and_again(machine, service)
            done.set()
    except* AssertionError as failed:
        what = str(failed.exceptions[0])
        raise AssertionError(f"seed {SEED}, {service.deaths} kills: {what}\n{logged(machine, what)}") from failed
    print(f"seed {SEED}: {service.deaths} kills, {sum(client.lives for client in clients)} lives, "
          f"answers: {dict(service.answers)}")
    assert all(client.lives for client in clients)
    assert used(machine) == []
    until(lambda: traces(machine) == before, f"all is as it was: {sorted(traces(machine) ^ before)[:20]}")
    words = {client.name for client in clients}.union(*(client.ids for client in clients))
    assert mentions(machine, words) == []


def logged(machine: Machine, what: str) -> str:
    """What shoald said of the containers that are named there."""
    ids = set(_ID.findall(what))
    lines = (machine.root / "shoald.log").read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if any(each in line for each in ids))


def used(machine: Machine) -> list[str]:
    """The containers and volumes that there are."""
    return [*machine.docker("ps", "--all", "--quiet").split(), *machine.docker("volume", "ls", "--quiet").split()]


async def _kill_again_and_again(machine: Machine, service: Service) -> None:
    chance = random.Random(SEED)
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.0, LONGEST_LIFE_S))
        service.up.clear()
        service.deaths += 1
        await asyncio.to_thread(machine.kill)
        await asyncio.sleep(chance.uniform(0.0, LONGEST_DEATH_S))
        await asyncio.to_thread(machine.start)
        service.up.set()
