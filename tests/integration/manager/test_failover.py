"""Three managers: any of them answers; a leader dies and the next write succeeds; all die and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
from time import monotonic as clock

from shoal.api.states import Role
from tests.integration.manager.hosts import Hosts, until

DOCKER_S = 12.7
"""What dockerd takes from the crash of a leader to the next write."""

ELECTION_S = 0.6
"""For so long at least followers wait for a leader that is silent."""


async def test_any_manager_answers_alike(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    status, made = await second.create_service("one", replicas=2)
    assert status == 201
    for host in (first, second, third):
        assert await host.services() == ["one"], "a write is seen at once, wherever it is read"
    status, refused = await third.create_service("one")
    assert (status, "already exists" in refused["message"]) == (409, True)
    assert (await third.call("GET", "/services/nothing"))[0] == 404
    assert (await third.call("DELETE", f"/services/{made['ID']}")) == (200, None)
    assert await first.services() == []


async def test_self_is_the_host_that_was_asked(hosts: Hosts) -> None:
    _, second = await hosts.swarm(2)
    headers = {"X-Shoal-Node-Id": second.node_id}
    status, node = await second.call("GET", "/nodes/self", **headers)
    assert (status, node["Description"]["Hostname"]) == (200, "m2")


async def test_a_killed_leader_costs_a_write_less_than_the_bound(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    assert (await second.create_service("before"))[0] == 201
    first.kill()
    began = clock()
    status, body = await second.create_service("after")
    took_s = clock() - began
    assert status == 201, body
    assert took_s < 0.25 * DOCKER_S
    assert await third.services() == ["after", "before"]
    print(f"next write after {took_s:.2f} s")


async def test_a_write_under_way_when_the_leader_stops_answering_is_done_once(hosts: Hosts) -> None:
    """SIGSTOP: connections stay open and nothing comes, as from a host that lost its power."""
    first, second, third = await hosts.swarm(3)
    assert await second.services() == []  # a connection to the leader is kept from here on
    assert first.process is not None
    first.process.send_signal(signal.SIGSTOP)
    began = clock()
    results = await asyncio.gather(*(second.create_service(f"s{number}") for number in range(20)))
    took_s = clock() - began
    first.process.send_signal(signal.SIGCONT)
    assert [status for status, _ in results] == [201] * 20, results
    assert took_s < 0.25 * DOCKER_S
    names = sorted(f"s{number}" for number in range(20))
    assert await third.services() == names
    assert await first.services() == names, "a leader that slept finds out that it leads no more"


async def test_a_host_that_joins_while_the_leader_dies_joins_once(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    token = await second.token(Role.WORKER)
    assert first.process is not None
    first.process.send_signal(signal.SIGSTOP)
    worker = hosts.new()
    await worker.enroll(token, second)
    first.kill()
    nodes = await third.get("/nodes")
    assert len(nodes) == 4
    assert worker.node_id in {node["ID"] for node in nodes}


async def test_a_leader_that_is_asked_to_end_is_replaced_at_once(hosts: Hosts) -> None:
    first, second, _ = await hosts.swarm(3)
    began = clock()
    assert await first.end() == 0
    assert (await second.create_service("after"))[0] == 201
    assert clock() - began < ELECTION_S, "nobody had to wait for an election"


async def test_without_a_majority_there_is_no_leader(hosts: Hosts) -> None:
    first, second, third = await hosts.swarm(3)
    first.kill()
    second.kill()

    async def says_so() -> bool:
        status, body = await third.call("GET", "/services")
        return status == 503 and "The swarm does not have a leader" in body["message"]

    assert await until(says_so)
    status, body = await third.create_service("lost")
    assert (status, "The swarm does not have a leader" in body["message"]) == (503, True)
    info = await third.info()
    assert info is not None and not info.is_ready
    second.spawn("run")
    await hosts.leader(second, third)
    assert (await third.create_service("found"))[0] == 201
    assert await second.services() == ["found"], "what was refused did not happen later"


async def test_all_killed_and_started_again_have_what_was_acknowledged(hosts: Hosts) -> None:
    swarm = await hosts.swarm(3)
    for number in range(10):
        assert (await swarm[number % 3].create_service(f"s{number}"))[0] == 201
    for host in swarm:
        host.kill()
    for host in swarm:
        host.spawn("run")
    for host in swarm:
        await host.ready()
    assert await swarm[2].services() == sorted(f"s{number}" for number in range(10))
    assert (await swarm[1].create_service("new"))[0] == 201


async def test_writes_go_on_while_managers_are_killed_in_turn(hosts: Hosts) -> None:
    """Every write that was answered 201 is there in the end, once; none takes longer than the bound."""
    swarm = await hosts.swarm(3)
    acknowledged: list[str] = []
    slowest_s = 0.0
    for round_number in range(3):
        victim = await hosts.leader(*swarm)
        asked = swarm[(swarm.index(victim) + 1) % 3]
        victim.kill()
        for number in range(5):
            name, began = f"r{round_number}s{number}", clock()
            status, body = await asked.create_service(name)
            slowest_s = max(slowest_s, clock() - began)
            assert status == 201, body
            acknowledged.append(name)
        victim.spawn("run")
        await victim.ready()
    assert await swarm[0].services() == sorted(acknowledged)
    assert slowest_s < 0.25 * DOCKER_S
    print(f"slowest write {slowest_s:.2f} s")
