"""The daemon's swarm part with real manager processes: init, join, promotion, demotion, leaving, restarts, logs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shoal.api.membership import MANAGER_PORT, InitRequest, SwarmEvent, at_port
from shoal.api.objects import NodeDescription
from shoal.api.specs import Resources
from shoal.api.states import Role
from shoal.daemon.swarm.host import SwarmHost
from shoal.worker.enroll import JoinRequest
from tests.integration.manager.hosts import until
from tests.integration.worker.scripted import NoContainers, NotedNetworks

_NETWORK = f"127.81.{os.getpid() % 250}"
DESCRIPTION_RESOURCES = Resources(nano_cpus=4 * 10**9, memory_bytes=8 << 30)


class Daemon:
    """One host's `SwarmHost`, with containers that are entries in a dict."""

    def __init__(self, root: Path, number: int) -> None:
        self.name, self.address, self.port = f"d{number}", f"{_NETWORK}.{number}", MANAGER_PORT
        self._root = root / self.name
        (self._root / "run").mkdir(parents=True)
        self.pids: set[int] = set()
        self.events: list[SwarmEvent] = []
        self.begin()

    def begin(self) -> None:
        self.host = SwarmHost(
            data_root=self._root, run_root=self._root / "run", networks=NotedNetworks(),
            executor=lambda node_id: NoContainers(), publish=self.events.append,
            describe=lambda: NodeDescription(hostname=self.name, resources=DESCRIPTION_RESOURCES))

    async def init(self) -> None:
        await self.host.start()
        await self.host.init(InitRequest(
            advertise_addr=self.address, advertise_port=self.port, listen_addr=self.address, listen_port=self.port,
            hostname=self.name))
        await self.manager_pid()

    async def join(self, other: Daemon, role: Role) -> None:
        await self.host.start()
        tokens = (await other.get("/swarm"))["JoinTokens"]
        await self.host.join(JoinRequest(
            token=tokens["Manager" if role is Role.MANAGER else "Worker"],
            remotes=(at_port(other.address, other.port),),
            advertise_addr=self.address, advertise_port=self.port, listen_addr=self.address, listen_port=self.port,
            hostname=self.name))
        if role is Role.MANAGER:
            await self.manager_pid()

    async def manager_pid(self) -> int:
        async def find() -> int | None:
            info = await self.host.manager.info()
            return info.pid if info is not None else None

        pid: int = await until(find)
        self.pids.add(pid)
        return pid

    async def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        client = self.host.manager.client()
        async with client.request(method, f"http://manager{path}", json=body) as answer:
            data = await answer.read()
            return answer.status, json.loads(data) if data else None

    async def get(self, path: str) -> Any:
        status, found = await self.request("GET", path)
        assert status == 200, found
        return found

    async def set_role(self, node_id: str, role: str) -> None:
        node = await self.get(f"/nodes/{node_id}")
        status, answer = await self.request(
            "POST", f"/nodes/{node_id}/update?version={node['Version']['Index']}", {**node["Spec"], "Role": role})
        assert status == 200, answer

    @property
    def node_id(self) -> str:
        assert self.host.identity is not None
        return self.host.identity.node_id

    async def close(self) -> None:
        await self.host.stop()
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def new() -> AsyncIterator[Callable[[], Daemon]]:
    root = Path(tempfile.mkdtemp(prefix="shoal-"))
    made: list[Daemon] = []

    def make() -> Daemon:
        made.append(Daemon(root, len(made) + 1))
        return made[-1]

    yield make
    for daemon in made:
        await daemon.close()
    shutil.rmtree(root, ignore_errors=True)


async def managers(asked: Daemon, *expected: Daemon) -> None:
    """Wait until exactly these are shown as managers, and have a manager process that is ready."""
    async def are() -> bool:
        infos = [await each.host.manager.info() for each in (asked, *expected)]
        if not all(info and info.is_ready for info in infos):
            return False
        with suppress(aiohttp.ClientError):  # one that was killed a moment ago may be asked
            status, nodes = await asked.request("GET", "/nodes")
            shown = {node["ID"] for node in nodes if node.get("ManagerStatus")} if status == 200 else set()
            return shown == {each.node_id for each in expected}
        return False

    await until(are)
    for each in expected:
        await each.manager_pid()


async def test_hosts_join_in_both_roles_and_run_a_service(new: Callable[[], Daemon]) -> None:
    first, second, third = new(), new(), new()
    await first.init()
    await second.join(first, Role.MANAGER)
    await third.join(second, Role.WORKER)
    await managers(second, first, second)
    status, _ = await second.request("POST", "/services/create", {
        "Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}, "Mode": {"Global": {}}})
    assert status == 201
    await runs_on(second, first, second, third)
    for manager in (first, second):  # each is told by its own
        await until(partial(was_told, manager, "create"))
    assert (await second.request("DELETE", "/services/web"))[0] == 200
    for manager in (first, second):
        await until(partial(was_told, manager, "remove"))
    assert not third.events


async def test_managers_serve_on_ports_of_their_own(new: Callable[[], Daemon]) -> None:
    first, second, third = new(), new(), new()
    first.port, second.port, third.port = 12377, MANAGER_PORT, 13377
    await first.init()
    await second.join(first, Role.MANAGER)
    await third.join(second, Role.WORKER)
    await second.set_role(third.node_id, "manager")
    await managers(second, first, second, third)
    shown = {node["ID"]: node["ManagerStatus"]["Addr"] for node in await third.get("/nodes")}
    assert shown == {each.node_id: at_port(each.address, each.port) for each in (first, second, third)}

    await first.set_role(first.node_id, "worker")  # who has led tells its agent where the others are
    await managers(second, second, third)
    await second.host.stop()
    second.begin()
    await second.host.start()
    await managers(third, second, third)
    status, _ = await third.request("POST", "/services/create", {
        "Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}, "Mode": {"Global": {}}})
    assert status == 201
    await runs_on(third, first, second, third)


async def was_told(manager: Daemon, action: str) -> bool:
    return any((event.type, event.action, event.attributes["name"]) == ("service", action, "web")
               for event in manager.events)


async def runs_on(asked: Daemon, *expected: Daemon) -> None:
    async def do() -> bool:
        return ({task["NodeID"] for task in await asked.get("/tasks") if task["Status"]["State"] == "running"}
                == {each.node_id for each in expected})

    await until(do)


async def test_a_role_that_changes_is_followed(new: Callable[[], Daemon]) -> None:
    first, second = new(), new()
    await first.init()
    await second.join(first, Role.WORKER)
    for _ in range(2):
        await first.set_role(second.node_id, "manager")
        await managers(first, first, second)
        assert await second.get("/services") == []
        pid = await second.manager_pid()
        await first.set_role(second.node_id, "worker")
        await managers(first, first)
        await until(ended(pid))


def ended(pid: int) -> Callable[[], Awaitable[bool]]:
    async def has_ended() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    return has_ended


async def test_a_leader_that_is_demoted_becomes_a_worker(new: Callable[[], Daemon]) -> None:
    first, second, third = new(), new(), new()
    await first.init()
    await second.join(first, Role.MANAGER)
    await third.join(first, Role.MANAGER)
    pid = await first.manager_pid()
    await first.set_role(first.node_id, "worker")
    await managers(second, second, third)
    await until(ended(pid))
    assert first.host.identity is not None and first.host.identity.role is Role.WORKER

    async def is_there() -> bool:
        node = await second.get(f"/nodes/{first.node_id}")
        return bool(node["Status"]["State"] == "ready" and node["Spec"]["Role"] == "worker")

    await until(is_there)


async def test_a_manager_leaves_and_comes_back_as_another_node(new: Callable[[], Daemon]) -> None:
    first, second = new(), new()
    await first.init()
    await second.join(first, Role.MANAGER)
    left = second.node_id
    await second.host.leave(force=True)
    assert second.host.identity is None
    await managers(first, first)

    async def is_down() -> bool:
        return bool((await first.get(f"/nodes/{left}"))["Status"]["State"] == "down")

    await until(is_down)
    await second.join(first, Role.MANAGER)
    assert second.node_id != left
    await managers(first, first, second)


async def test_a_manager_process_that_dies_is_started_again(new: Callable[[], Daemon]) -> None:
    first, second, third = new(), new(), new()
    await first.init()
    await second.join(first, Role.MANAGER)
    await third.join(first, Role.MANAGER)
    for daemon in (second, first):
        os.kill(await daemon.manager_pid(), signal.SIGKILL)
        await managers(second, first, second, third)


async def test_logs_come_through_a_follower_and_end_with_their_reader(new: Callable[[], Daemon]) -> None:
    first, second = new(), new()
    await first.init()
    await second.join(first, Role.MANAGER)
    status, _ = await second.request("POST", "/services/create", {
        "Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}, "Mode": {"Global": {}}})
    assert status == 201
    await runs_on(second, first, second)
    client = second.host.manager.client()
    async with client.get("http://manager/services/web/logs?stdout=1") as answer:
        assert (await answer.read()).count(b"hello") == 2
    leader = await first.manager_pid()
    before = descriptors(leader)
    async with AsyncExitStack() as followers:
        for _ in range(5):
            answer = await followers.enter_async_context(
                client.get("http://manager/services/web/logs?stdout=1&follow=1"))
            async with asyncio.timeout(5):
                while b"hello" not in await answer.content.readany():
                    pass
        assert descriptors(leader) >= before + 4

    async def are_closed() -> bool:
        return descriptors(leader) <= before

    await until(are_closed)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def test_the_daemon_begins_again_and_finds_its_manager(new: Callable[[], Daemon]) -> None:
    (first,) = (new(),)
    await first.init()
    pid = await first.manager_pid()
    await first.host.stop()
    first.begin()
    await first.host.start()
    assert await first.manager_pid() == pid
    assert [node["ID"] for node in await first.get("/nodes")] == [first.node_id]


