"""The agent against a manager that follows a script: real certificates, real sessions, no containers."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from shoal.api.errors import InvalidArgument, PermissionDenied, Unavailable
from shoal.api.ids import base36
from shoal.api.messages import (
    Applied,
    Assignments,
    Attach,
    Detach,
    ManagerPeer,
    NetworkInfo,
    Release,
    Reply,
    StatusUpdates,
)
from shoal.api.objects import NetworkAttachment, Task, TaskStatus
from shoal.api.specs import ContainerSpec, TaskSpec
from shoal.api.states import Role, TaskState
from shoal.worker.credentials import Credentials
from shoal.worker.enroll import JoinRequest, enroll
from shoal.worker.hostserver import HostServer
from shoal.worker.taskmachine import Phase, Seen
from tests.integration.worker.conftest import Host
from tests.integration.worker.scripted import ScriptedManager, until, write_certificate
from tests.unit.manager.controlapi_store import MANAGER, Swarm

NET = NetworkInfo(id="n1", name="web", driver="overlay", vni=4097, subnet="10.0.1.0/24", gateway="10.0.1.1",
                  attachable=True)


def task(task_id: str = "t1", desired: TaskState = TaskState.RUNNING, networked: bool = False) -> Task:
    places = (NetworkAttachment(network_id="n1", addresses=("10.0.1.5/24",), mac="02:42:0a:00:01:05"),)
    return Task(id=task_id, service_id="s1", service_name="web", slot=1, node_id="w", desired=desired,
                spec=TaskSpec(container=ContainerSpec(image="web:1")),
                status=TaskStatus(state=TaskState.ASSIGNED), attachments=places if networked else ())


# --- joining ---


def request(token: str, *remotes: str) -> JoinRequest:
    return JoinRequest(token=token, remotes=remotes, advertise_addr="127.0.0.1", listen_addr="127.0.0.1")


async def test_a_token_gives_an_identity_that_is_found_again(tmp_path: Path, manager: ScriptedManager) -> None:
    credentials = Credentials(tmp_path / "h")
    identity = await enroll(credentials, request(manager.token(), "127.0.0.1:1", manager.addr))
    assert identity.role is Role.WORKER
    assert credentials.facts().node_id == identity.node_id
    again = Credentials(tmp_path / "h")
    assert again.load() == identity
    assert (tmp_path / "h" / "node.key").stat().st_mode & 0o777 == 0o600
    again.clear()
    assert list((tmp_path / "h").iterdir()) == []
    assert Credentials(tmp_path / "h").load() is None


async def test_a_managers_token_makes_a_manager(tmp_path: Path, manager: ScriptedManager) -> None:
    identity = await enroll(Credentials(tmp_path / "h"), request(manager.token(Role.MANAGER), manager.addr))
    assert identity.role is Role.MANAGER
    assert identity.raft_id


@pytest.mark.parametrize(("spoil", "says"), [
    pytest.param(lambda token: token[:-1], "truncated", id="truncated"),
    pytest.param(lambda token: "nonsense", "invalid join token", id="no token"),
    pytest.param(lambda token: token.replace(token.split("-")[2], base36(7, 50)), "another swarm", id="foreign"),
    pytest.param(lambda token: token[:-25] + base36(7, 25), "valid join token is necessary", id="wrong secret"),
])
async def test_wrong_tokens_are_refused_and_leave_nothing(tmp_path, manager, spoil, says) -> None:
    with pytest.raises(InvalidArgument, match=says):
        await enroll(Credentials(tmp_path / "h"), request(spoil(manager.token()), manager.addr))
    assert not (tmp_path / "h").exists()
    assert len(manager.swarm.store.view().nodes) == 2


async def test_nobody_there(tmp_path: Path, manager: ScriptedManager) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await enroll(Credentials(tmp_path / "h"), request(manager.token(), "127.0.0.1:1"))


# --- tasks ---


async def test_a_task_is_run_and_every_state_is_reported(host: Host, manager: ScriptedManager) -> None:
    agent = await host.start()
    assert await agent.joined(5)
    await manager.say(Assignments(sequence=2, tasks=(task(),)))
    await until(lambda: "running" in manager.states("t1"))
    assert host.executor.calls == [("prepare", "t1"), ("start", "t1")]
    last = manager.statuses["t1"][-1]
    assert last.container is not None and last.container.container_id == "ct1"
    await until(lambda: Applied(sequence=2) in manager.heard)
    host.executor.exit("t1", 1)
    await until(lambda: manager.states("t1")[-1] == "failed")
    assert manager.statuses["t1"][-1].err == "task: non-zero exit (1)"
    order = [status.state for status in manager.statuses["t1"]]
    assert order == sorted(order)


async def test_networks_are_told_before_tasks_start(host: Host, manager: ScriptedManager) -> None:
    await host.start()
    manager.first = [Assignments(sequence=1, complete=True, tasks=(task(networked=True),), networks=(NET,))]
    await until(lambda: "running" in manager.states("t1"))
    assert host.networks.known == {"n1": NET}
    assert host.networks.underlay == ("127.0.0.1", 4789)


async def test_no_image_is_a_rejection(host: Host, manager: ScriptedManager) -> None:
    host.executor.refuse["prepare"] = "No such image: web:1"
    manager.first = [Assignments(sequence=1, complete=True, tasks=(task(),))]
    await host.start()
    await until(lambda: manager.states("t1")[-1:] == ["rejected"])
    assert manager.statuses["t1"][-1].err == "No such image: web:1"


async def test_a_stop_waits_for_its_release(host: Host, manager: ScriptedManager) -> None:
    manager.first = [Assignments(sequence=1, complete=True, tasks=(task(networked=True),), networks=(NET,))]
    await host.start()
    await until(lambda: "running" in manager.states("t1"))
    await manager.say(Assignments(sequence=2, tasks=(task(desired=TaskState.SHUTDOWN, networked=True),)))
    await until(lambda: Applied(sequence=2) in manager.heard)
    assert ("stop", "t1") not in host.executor.calls
    began = time.monotonic()
    await manager.say(Release(task_ids=("t1",)))
    await until(lambda: manager.states("t1")[-1] == "shutdown")
    assert time.monotonic() - began < 1.5
    assert host.executor.seen("t1").phase is Phase.EXITED
    await manager.say(Assignments(sequence=3, removed_tasks=("t1",)))
    await until(lambda: not host.executor.containers)


async def test_without_a_release_it_stops_after_two_seconds(host: Host, manager: ScriptedManager) -> None:
    manager.first = [Assignments(sequence=1, complete=True, tasks=(task(networked=True),), networks=(NET,))]
    await host.start()
    await until(lambda: "running" in manager.states("t1"))
    began = time.monotonic()
    await manager.say(Assignments(sequence=2, tasks=(task(desired=TaskState.SHUTDOWN, networked=True),)))
    await until(lambda: manager.states("t1")[-1] == "shutdown")
    assert 1.9 < time.monotonic() - began < 4


async def test_leaving_removes_the_swarms_containers(host: Host, manager: ScriptedManager) -> None:
    host.executor.containers["unknown"] = Seen(phase=Phase.EXITED, container_id="cunknown")
    manager.first = [Assignments(sequence=1, complete=True, tasks=(task(networked=True), task("t2")),
                                 networks=(NET,))]
    agent = await host.start()
    await until(lambda: "running" in manager.states("t1") and "running" in manager.states("t2"))
    host.agent = None
    await agent.stop(leaving=True)
    assert host.executor.containers == {}
    assert host.networks.known == {}


# --- sessions ---


async def test_statuses_that_were_not_acknowledged_are_sent_again(host: Host, manager: ScriptedManager) -> None:
    manager.acking = False
    manager.first = [Assignments(sequence=1, complete=True, tasks=(task(),))]
    await host.start()
    await until(lambda: "running" in manager.states("t1"))
    manager.statuses.clear()
    manager.acking = True
    await manager.drop()
    await until(lambda: manager.states("t1") == ["running"])


async def test_a_missed_message_begins_a_new_session(host: Host, manager: ScriptedManager) -> None:
    await host.start()
    await until(lambda: len(manager.hellos) == 1)
    await manager.say(Assignments(sequence=7, tasks=(task(),)))
    await until(lambda: len(manager.hellos) == 2)
    assert not host.executor.calls
    assert manager.hellos[1].session_id == "s0"


async def test_a_follower_sends_it_to_the_leader(
    host: Host, manager: ScriptedManager, swarm: Swarm, tmp_path: Path
) -> None:
    follower = ScriptedManager(tmp_path / "follower", swarm, redirect_to=manager.addr)
    await follower.start()
    try:
        identity = host.credentials.identity
        assert identity is not None
        host.credentials.save(msgspec.structs.replace(
            identity, managers=(ManagerPeer(node_id="f", addr=follower.addr),)))
        agent = await host.start()
        assert await agent.joined(5)
        assert agent.addresses() == [manager.addr]
    finally:
        await follower.stop()


async def test_a_silent_manager_is_left_within_about_a_second(
    host: Host, manager: ScriptedManager, swarm: Swarm, tmp_path: Path
) -> None:
    other = ScriptedManager(tmp_path / "other", swarm)
    await other.start()
    manager.peers = other.peers = (*manager.peers, *other.peers)
    other.redirect_to = manager.addr
    try:
        await host.start()
        await until(lambda: manager.heartbeats >= 2)
        began = time.monotonic()
        manager.mute, other.redirect_to, manager.redirect_to = True, None, other.addr
        await until(lambda: other.hellos)
        assert time.monotonic() - began < 2.0
    finally:
        await other.stop()


async def test_all_managers_gone_containers_stay_and_the_end_is_reported_later(
    host: Host, manager: ScriptedManager
) -> None:
    manager.first = [Assignments(sequence=1, complete=True, tasks=(task(), task("t2")))]
    await host.start()
    await until(lambda: "running" in manager.states("t1") and "running" in manager.states("t2"))
    await manager.stop()
    manager.sockets.clear()
    host.executor.exit("t1", 9)
    await host.restart()
    assert host.executor.calls == []
    assert host.executor.seen("t2").phase is Phase.RUNNING
    await web_again(manager)
    manager.first = [Assignments(sequence=1, complete=True, tasks=(task(), task("t2", TaskState.SHUTDOWN)))]
    identity = host.credentials.identity
    assert identity is not None
    host.credentials.save(msgspec.structs.replace(
        identity, managers=(ManagerPeer(node_id=MANAGER, addr=manager.addr),)))
    await until(lambda: manager.states("t1")[-1] == "failed" and manager.states("t2")[-1] == "shutdown")
    assert manager.statuses["t1"][-1].err == "task: non-zero exit (9)"
    assert ("start", "t1") not in host.executor.calls


async def web_again(manager: ScriptedManager) -> None:
    manager.peers = ()
    await manager.start()


async def test_a_container_nobody_wants_any_more_is_removed(host: Host, manager: ScriptedManager) -> None:
    host.executor.containers["old"] = Seen(phase=Phase.RUNNING, container_id="cold")
    await host.start()
    await until(lambda: not host.executor.containers)
    assert host.executor.calls == [("stop", "old"), ("remove", "old")]


async def test_a_new_role_is_taken_at_once(host: Host, manager: ScriptedManager, swarm: Swarm) -> None:
    from shoal.manager.store.changes import Update

    identity = host.credentials.identity
    assert identity is not None
    node = swarm.store.view().nodes[identity.node_id]
    promoted = msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, role=Role.MANAGER))
    swarm.store.apply(Update(record=promoted, wanted=True))
    manager.role = Role.MANAGER
    await host.start()
    await until(lambda: host.credentials.facts().role is Role.MANAGER)
    await until(lambda: host.credentials.identity is not None and host.credentials.identity.raft_id)
    assert swarm.store.view().nodes[identity.node_id].role is Role.MANAGER


# --- what others on the host ask ---


async def test_attaching_and_detaching(host: Host, manager: ScriptedManager) -> None:
    attached = Task(id="a1", spec=TaskSpec(attachment="c" * 64), attachments=task(networked=True).attachments)

    def answer(message: object) -> Reply | None:
        if isinstance(message, Attach):
            if message.network != "web":
                return Reply(id=message.id, status=404, error=f"network {message.network} not found")
            return Reply(id=message.id, attachment=attached, network=NET)
        return Reply(id=message.id) if isinstance(message, Detach) else None

    manager.on_request = answer
    agent = await host.start()
    endpoint = await agent.attach("web", "c" * 64, "box", ("alias",))
    assert (endpoint.network, endpoint.address, endpoint.mac) == ("n1", "10.0.1.5/24", "02:42:0a:00:01:05")
    assert host.networks.known == {"n1": NET}
    await manager.say(Assignments(sequence=2, tasks=(attached,)))
    await until(lambda: manager.states("a1") == ["running"])
    await agent.detach("c" * 64)
    assert [each.task_id for each in manager.heard if isinstance(each, Detach)] == ["a1"]
    assert agent.attachments() == {}
    with pytest.raises(Exception, match="network nope not found"):
        await agent.attach("nope", "d" * 64, "box")


# --- port 7946 ---


async def test_only_managers_of_this_swarm_read_logs(
    host: Host, manager: ScriptedManager, swarm: Swarm, tmp_path: Path
) -> None:
    host.executor.containers["t1"] = Seen(phase=Phase.RUNNING, container_id="ct1")
    server = HostServer(host.credentials, host.executor)
    await server.start("127.0.0.1", 0)
    assert server.port
    url = f"https://127.0.0.1:{server.port}/tasks/t1/logs?stdout=1&tail=all&since=0"
    worker = write_certificate(tmp_path / "w", swarm, "w9", Role.WORKER)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=manager.tls.client)) as session:
            async with session.get(url) as answer:
                assert (answer.status, await answer.read()) == (200, b"\x01\0\0\0\0\0\0\x06hello\n")
            async with session.get(url.replace("t1", "t2")) as answer:
                assert answer.status == 404
            async with session.get(url.replace("since=0", "since=x")) as answer:
                assert answer.status == 400
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=worker.client)) as session,
            session.get(url) as answer,
        ):
            assert answer.status == PermissionDenied.status
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=nobody)) as session:
            with pytest.raises(aiohttp.ClientError):
                async with session.get(url):
                    pass
    finally:
        await server.stop()


async def test_a_reader_of_logs_that_goes_away_is_no_error(
    host: Host, manager: ScriptedManager, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def endless(task_id: str, query: object) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 16)
                await asyncio.sleep(0)
        finally:
            ended.set()

    monkeypatch.setattr(host.executor, "logs", endless)
    server = HostServer(host.credentials, host.executor)
    await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=manager.tls.client)) as session:
            answer = await session.get(f"https://127.0.0.1:{server.port}/tasks/t1/logs?stdout=1&follow=1")
            await answer.content.readexactly(10)
            answer.close()
            async with asyncio.timeout(10):
                await ended.wait()
    finally:
        await server.stop()
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []


async def test_a_task_costs_little(host: Host, manager: ScriptedManager) -> None:
    """5 ms of CPU for each task, the manager of the test and its end of the session included."""
    count = 200
    await host.start()
    await until(lambda: manager.hellos)
    began = time.process_time()
    await manager.say(Assignments(sequence=2, tasks=tuple(task(f"t{number}") for number in range(count))))
    await until(lambda: sum("running" in manager.states(f"t{number}") for number in range(count)) == count)
    assert (time.process_time() - began) / count < 0.005
    assert any(isinstance(message, StatusUpdates) for message in manager.heard)
    await asyncio.sleep(0)
