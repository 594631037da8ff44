"""Starts, stops and removes containers at random until it is killed: `python churn.py ROOT SEED`."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.engine.containers.nouns import HostConfig, RestartPolicy
from tests.integration.engine.conftest import Host

WORKERS = 4
KEPT = 6
COMMANDS = (("true",), ("sh", "-c", "exit 3"), ("sleep", "1000"), ("sh", "-c", "echo x; sleep 0.1; echo y"))


async def churn(host: Host, chance: random.Random) -> None:
    while True:
        containers = host.engine.all()
        try:
            if len(containers) < KEPT:
                policy = chance.choice(("no", "no", "always", "on-failure"))
                container_id = await host.create(
                    *chance.choice(COMMANDS), host=HostConfig(restart=RestartPolicy(name=policy)))
                await host.engine.start(container_id)
            else:
                chosen = chance.choice(containers).id
                action = chance.choice(("start", "stop", "restart", "remove"))
                if action == "start":
                    await host.engine.start(chosen)
                elif action == "stop":
                    await host.engine.stop(chosen, 0)
                elif action == "restart":
                    await host.engine.restart(chosen, 0)
                else:
                    await host.engine.remove(chosen, force=True, volumes=True)
        except ShoalError as error:  # two of us chose the same
            assert error.status in (404, 409), error


async def main(root: Path, seed: int) -> None:
    host = Host(root, parent=sys.argv[3])
    await host.boot()
    print("ready", flush=True)
    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(churn(host, random.Random(seed * WORKERS + number)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
