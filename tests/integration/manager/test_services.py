"""All the way round: a client's service, the loops, a session, an agent, and back."""

from __future__ import annotations

from typing import Any

from shoal.api.states import Role
from tests.integration.manager.hosts import Host, Hosts, until


async def running(host: Host, count: int) -> list[dict[str, Any]]:
    """The tasks that run and should, once there are so many."""
    async def has() -> list[dict[str, Any]] | None:
        found = [task for task in await host.get("/tasks")
                 if task["Status"]["State"] == "running" and task["DesiredState"] == "running"]
        return found if len(found) == count else None

    result: list[dict[str, Any]] = await until(has)
    return result


async def test_a_service_runs_on_the_node_of_its_only_manager(hosts: Hosts) -> None:
    (first,) = await hosts.swarm(1)
    await first.start_agent()
    assert (await first.create_service("web", replicas=3))[0] == 201
    assert {task["NodeID"] for task in await running(first, 3)} == {first.node_id}
    node = await first.get("/nodes/self")
    assert (node["Status"]["State"], node["Description"]["Resources"]["MemoryBytes"]) == ("ready", 8 << 30)


async def test_a_service_spreads_and_survives_the_leader(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    worker = hosts.new()
    await worker.enroll(await first.token(Role.WORKER), second)
    for host in (second, third, worker):
        await host.start_agent()

    async def are_ready() -> bool:
        return sum(node["Status"]["State"] == "ready" for node in await third.get("/nodes")) == 3

    await until(are_ready)
    assert (await third.create_service("web", replicas=6))[0] == 201
    placed = await running(third, 6)
    assert {task["NodeID"] for task in placed} == {second.node_id, third.node_id, worker.node_id}
    first.kill()
    assert (await third.create_service("more", replicas=3))[0] == 201
    after = await running(third, 9)
    assert {task["ID"] for task in placed} <= {task["ID"] for task in after}, "nobody was restarted for it"
