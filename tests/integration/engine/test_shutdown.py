"""The host goes down: containers stop as they wish, and are started again with it."""

import asyncio

import pytest

from shoal.engine.containers.nouns import HostConfig, RestartPolicy
from tests.integration.engine.conftest import DEADLINE_S, Host

pytestmark = pytest.mark.root

TRAPS = "trap 'exit 7' USR1; echo ready; while true; do sleep 0.1; done"


async def test_what_ran_runs_again_after_the_next_start(host: Host) -> None:
    """Each is stopped with its own signal and patience; nobody has stopped it by hand."""
    policy = HostConfig(restart=RestartPolicy(name="unless-stopped"))
    polite = await host.create("sh", "-c", TRAPS, name="polite", host=policy, stop_signal="USR1")
    deaf = await host.create("sleep", "1000", name="deaf", stop_timeout_s=0)  # process 1 of its namespace
    left = await host.create("true", host=policy)
    engine = host.engine
    for container_id in (polite, deaf):
        await engine.start(container_id)
    async with asyncio.timeout(DEADLINE_S):
        while b"ready" not in await host.logs(polite):
            await asyncio.sleep(0.01)
    assert 0 < engine.shutdown_s < 60
    await engine.shut_down()
    ended = {container.name: container.state for container in engine.all()}
    assert (ended["polite"].exit_code, ended["deaf"].exit_code) == (7, 137)
    assert not any(state.running or state.restart_count for state in ended.values())
    await engine.close()

    again = await host.boot()
    await host.until(lambda: again.get(polite).state.running, "it runs again")
    assert not again.get(deaf).state.running  # it has no policy
    assert not again.get(left).state.running  # it never ran


async def test_a_stop_without_end_is_given_none(host: Host) -> None:
    container_id = await host.create("sleep", "1000", stop_timeout_s=-1)
    await host.engine.start(container_id)
    assert host.engine.shutdown_s < 60
