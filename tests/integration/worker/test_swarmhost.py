"""What the daemon does with its manager process, and its routes. The process is scripted; it is a real process."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from shoal.api.errors import ShoalError, Unavailable
from shoal.api.membership import InitRequest
from shoal.api.objects import ManagerInfo, NodeDescription
from shoal.api.states import Role
from shoal.daemon.http.errors import errors
from shoal.daemon.swarm.host import SwarmHost
from shoal.daemon.swarm.info import SwarmInfo
from shoal.daemon.swarm.routes import add_routes
from shoal.manager.store.changes import Update
from tests.integration.worker.scripted import NoContainers, NotedNetworks, ScriptedManager, until
from tests.unit.manager.controlapi_store import MANAGER, Swarm

PROGRAM = (sys.executable, "-c",
           f"import sys; sys.path.insert(0, {str(Path.cwd())!r}); sys.argv[0] = 'manager_program'; "
           "import runpy; runpy.run_module('tests.integration.worker.manager_program', run_name='__main__')")


class Hosts:
    """Daemons one after the other on the same roots."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pids: set[int] = set()

    def new(self) -> SwarmHost:
        (self.root / "run").mkdir(exist_ok=True)
        return SwarmHost(
            data_root=self.root, run_root=self.root / "run", networks=NotedNetworks(), host_port=0,
            executor=lambda node_id: NoContainers(), describe=lambda: NodeDescription(hostname="h"),
            publish=lambda event: None, program=PROGRAM)

    async def pid(self, host: SwarmHost) -> int:
        async with asyncio.timeout(15):
            while (info := await host.manager.info()) is None:
                await asyncio.sleep(0.02)
        self.pids.add(info.pid)
        return info.pid

    def starts(self) -> list[str]:
        return sorted(path.name.split("-")[1] for path in (self.root / "swarm" / "raft").glob("started-*"))


@pytest.fixture
async def hosts() -> AsyncIterator[Hosts]:
    root = Path(tempfile.mkdtemp(prefix="shoal-"))  # short: the path of a socket has 107 bytes
    one = Hosts(root)
    yield one
    for pid in one.pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
async def host(hosts: Hosts) -> AsyncIterator[SwarmHost]:
    one = hosts.new()
    await one.start()
    yield one
    await one.stop()


def request(hostname: str = "h") -> InitRequest:
    return InitRequest(advertise_addr="127.0.0.1", listen_addr="127.0.0.1", hostname=hostname)


def client_of(host: SwarmHost) -> TestClient[web.Request, web.Application]:
    app = web.Application(middlewares=[errors])
    add_routes(app, host)
    return TestClient(TestServer(app))


async def test_init_makes_a_node_with_an_open_session(hosts: Hosts, host: SwarmHost) -> None:
    assert (host.state, SwarmInfo(host).ping()) == ("inactive", "inactive")
    assert await host.init(request()) == MANAGER
    await hosts.pid(host)
    assert host.agent is not None
    assert host.agent.connected
    assert SwarmInfo(host).ping() == "active/manager"
    shown = await SwarmInfo(host).info()
    assert (shown["NodeID"], shown["LocalNodeState"], shown["ControlAvailable"]) == (MANAGER, "active", True)
    assert shown["Nodes"] == 2
    with pytest.raises(Unavailable, match="already part of a swarm"):
        await host.init(request())
    await host.leave(force=True)


async def test_an_init_that_fails_says_why_and_leaves_nothing(hosts: Hosts, host: SwarmHost) -> None:
    with pytest.raises(ShoalError, match="the address is already in use"):
        await host.init(request("refused"))
    assert host.state == "inactive"
    assert host.identity is None
    assert not list((hosts.root / "swarm").glob("*"))


async def test_the_manager_outlives_the_daemon_and_is_adopted(hosts: Hosts, host: SwarmHost) -> None:
    await host.init(request())
    pid = await hosts.pid(host)
    await host.stop()
    again = hosts.new()
    await again.start()
    try:
        assert await hosts.pid(again) == pid
        assert hosts.starts() == ["init"]
        assert again.agent is not None
        assert await again.agent.joined(10)
    finally:
        await again.leave(force=True)
        await again.stop()


async def test_a_killed_manager_is_started_again(hosts: Hosts, host: SwarmHost) -> None:
    await host.init(request())
    first = await hosts.pid(host)
    os.kill(first, signal.SIGKILL)
    await until(lambda: "run" in hosts.starts())
    assert await hosts.pid(host) != first
    await host.leave(force=True)


async def test_leaving_needs_force_on_a_manager_and_forgets_everything(hosts: Hosts, host: SwarmHost) -> None:
    with pytest.raises(Unavailable, match="not part of a swarm"):
        await host.leave(force=False)
    await host.init(request())
    pid = await hosts.pid(host)
    with pytest.raises(Unavailable, match="Removing the last manager erases all current state"):
        await host.leave(force=False)
    await host.leave(force=True)
    assert host.state == "inactive"
    assert not list((hosts.root / "swarm").glob("*"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert await host.init(request()) == MANAGER
    await hosts.pid(host)
    await host.leave(force=True)


async def test_routes_outside_a_swarm(host: SwarmHost) -> None:
    async with client_of(host) as client:
        for method, path in (("GET", "/swarm"), ("GET", "/nodes"), ("POST", "/services/create"), ("GET", "/tasks")):
            answer = await client.request(method, path)
            assert answer.status == 503
            assert (await answer.json())["message"].startswith("This node is not a swarm manager. Use ")
        answer = await client.post("/swarm/leave")
        assert (answer.status, await answer.json()) == (503, {"message": "This node is not part of a swarm"})


@pytest.mark.parametrize(("path", "body", "says"), [
    ("/swarm/init", {"ListenAddr": "nonsense"}, "listen address must be"),
    ("/swarm/init", {"AdvertiseAddr": "0.0.0.0"}, "advertise address must be a non-zero"),
    ("/swarm/init", {"AdvertiseAddr": "127.0.0.1", "DataPathPort": 1}, "not in range"),
    ("/swarm/init", {"AdvertiseAddr": "127.0.0.1", "Availability": "asleep"}, "invalid Availability"),
    ("/swarm/init", {"AdvertiseAddr": 7}, "invalid JSON"),
    ("/swarm/join", {}, "at least 1 RemoteAddr"),
    ("/swarm/join", {"RemoteAddrs": ["127.0.0.1:1"], "JoinToken": "x", "AdvertiseAddr": "127.0.0.1"},
     "invalid join token"),
])
async def test_bad_requests_change_nothing(host: SwarmHost, hosts: Hosts, path: str, body: object, says: str) -> None:
    async with client_of(host) as client:
        answer = await client.post(path, json=body)
        assert answer.status == 400
        assert says in (await answer.json())["message"]
    assert host.state == "inactive"
    assert not (hosts.root / "swarm").exists() or not list((hosts.root / "swarm").glob("*"))


async def test_requests_are_passed_on_with_body_version_and_node(hosts: Hosts, host: SwarmHost) -> None:
    async with client_of(host) as client:
        answer = await client.post("/swarm/init", json={
            "ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1:2377"})
        assert (answer.status, await answer.json()) == (200, MANAGER)
        await hosts.pid(host)
        answer = await client.post("/services/create?a=b%20c", json={"Name": "web"})
        assert answer.status == 201
        assert await answer.json() == {
            "method": "POST", "path": "/services/create", "query": "a=b%20c", "version": "1.50", "node": MANAGER,
            "body": '{"Name": "web"}'}
        async with asyncio.timeout(5):
            stream = await client.get("/services/s1/logs?follow=1")
            assert await stream.content.readany() == b"first"
            stream.close()
        answer = await client.post("/swarm/join", json={"RemoteAddrs": ["127.0.0.1"], "JoinToken": "x"})
        assert answer.status == 503
    await host.leave(force=True)


async def test_a_worker_joins_is_promoted_demoted_and_leaves(hosts: Hosts, host: SwarmHost, tmp_path: Path) -> None:
    swarm = Swarm()
    leader = ScriptedManager(tmp_path / "leader", swarm)
    await leader.start()
    swarm.store.apply(Update(record=msgspec.structs.replace(
        swarm.store.view().nodes[MANAGER], manager=ManagerInfo(raft_id="r", addr=leader.addr))))
    try:
        async with client_of(host) as client:
            answer = await client.post("/swarm/join", json={
                "RemoteAddrs": [leader.addr], "JoinToken": leader.token(), "AdvertiseAddr": "127.0.0.1",
                "ListenAddr": "127.0.0.1"})
            assert (answer.status, await answer.text()) == (200, "")
            assert SwarmInfo(host).ping() == "active/worker"
            answer = await client.get("/nodes")
            assert answer.status == 503
            assert "Worker nodes can't be used" in (await answer.json())["message"]
        await change_role(swarm, leader, host, Role.MANAGER)
        await until(lambda: "join" in hosts.starts())
        pid = await hosts.pid(host)
        assert host.identity is not None
        assert host.identity.raft_id
        assert SwarmInfo(host).ping() == "active/manager"
        await change_role(swarm, leader, host, Role.WORKER)
        await until(lambda: not (hosts.root / "swarm" / "raft").exists())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert SwarmInfo(host).ping() == "active/worker"
        await host.leave(force=False)
        assert host.state == "inactive"
    finally:
        await leader.stop()


async def change_role(swarm: Swarm, leader: ScriptedManager, host: SwarmHost, role: Role) -> None:
    """What a promotion does: the store wants it, and the leader says so to the node."""
    assert host.identity is not None
    node = swarm.store.view().nodes[host.identity.node_id]
    spec = msgspec.structs.replace(node.spec, role=role)
    swarm.store.apply(Update(record=msgspec.structs.replace(node, spec=spec), wanted=True))
    leader.role = role
    await leader.drop()
    await until(lambda: leader.sockets)
