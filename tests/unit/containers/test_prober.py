"""Health checks go on whatever becomes of a single one."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from shoal.api.errors import ShoalError
from shoal.engine.containers.nouns import Container, ContainerConfig, Health, HealthCheck, HostConfig, State, Status
from shoal.engine.containers.prober import Prober

CHECK = HealthCheck(test=("CMD", "true"), interval_ns=1_000_000, retries=2)


class Table:
    """One container that runs."""

    def __init__(self):
        state = State(status=Status.RUNNING, pid=7, started_ns=time.time_ns(), health=Health())
        self.container = Container(
            id="c1", name="one", created_ns=1, image_id="i", config=ContainerConfig(health_check=CHECK),
            host=HostConfig(), state=state)

    def has(self, container_id):
        return True

    def get(self, container_id):
        return self.container

    def change_state(self, container_id, **changes):
        state = msgspec.structs.replace(self.container.state, **changes)
        self.container = msgspec.structs.replace(self.container, state=state)


class Execs:
    """Refuses every exec in the same way."""

    def __init__(self, error):
        self.error = error
        self.asked = 0

    def create(self, container, config):
        self.asked += 1
        raise self.error


@pytest.mark.parametrize("error", [
    pytest.param(ShoalError("the runtime said no"), id="refused"),
    pytest.param(OSError(24, "Too many open files"), id="no descriptor is left"),
])
async def test_a_check_that_cannot_be_run_has_failed(error):
    table, execs, told = Table(), Execs(error), []
    prober = Prober(table, execs, lambda container, action, about: told.append(action), lambda image: ())
    prober.start(table.container)
    async with asyncio.timeout(5):
        while execs.asked < 4:
            await asyncio.sleep(0)
    await prober.close()
    assert table.container.state.health.status == "unhealthy"
    assert told == ["health_status: unhealthy"]
    assert str(error) in table.container.state.health.log[-1].output
