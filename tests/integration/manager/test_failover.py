"""Three managers: a leader dies and the next write succeeds; all die and the state is there."""

from __future__ import annotations

from tests.integration.manager.hosts import Hosts, clock


async def test_a_killed_leader_costs_a_write_less_than_the_bound(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    assert (await second.create_service("before"))[0] == 201
    first.kill()
    began = clock()
    status, body = await second.create_service("after")
    took_s = clock() - began
    assert status == 201, body
    assert took_s < 0.25 * 12.7
    assert await third.services() == ["after", "before"]
    print(f"next write after {took_s:.2f} s")
