"""One manager process: how it begins, ends, comes back, and what it says where it cannot."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Callable

import msgspec
import pytest

from shoal.api.errors import ShoalError
from shoal.api.membership import InitRequest
from shoal.daemon.swarm.process import ManagerProcess
from tests.integration.manager.hosts import Host, Hosts, until


async def test_init_makes_a_swarm_of_one(hosts: Hosts) -> None:
    (first,) = await hosts.swarm(1)
    info = await first.info()
    assert info is not None and first.process is not None
    assert (info.pid, info.node_id) == (first.process.pid, first.node_id)
    assert (info.is_leader, info.leader_node_id, info.managers, info.nodes) == (True, first.node_id, 1, 1)
    swarm = await first.get("/swarm")
    assert swarm["ID"] == info.cluster_id
    assert swarm["JoinTokens"]["Worker"].startswith("SWMTKN-1-")
    (network,) = await first.get("/networks")
    assert (network["Name"], network["Ingress"]) == ("ingress", True)
    assert stat.S_IMODE((first.run_root / "manager.sock").stat().st_mode) == 0o600
    summary = await first.get("/internal/swarm-summary")
    assert (summary["Nodes"], summary["Managers"]) == (1, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_cleanly_and_comes_back_with_everything(hosts: Hosts, number: int) -> None:
    (first,) = await hosts.swarm(1)
    node_id = first.node_id
    assert (await first.create_service("kept"))[0] == 201
    assert await first.end(number) == 0
    first.spawn("run")
    info = await first.ready()
    assert info.node_id == node_id
    assert await first.services() == ["kept"]


async def test_killed_it_comes_back_with_everything(hosts: Hosts) -> None:
    (first,) = await hosts.swarm(1)
    for number in range(3):
        assert (await first.create_service(f"s{number}"))[0] == 201
        first.kill()
        first.spawn("run")
        await first.ready()
    assert await first.services() == ["s0", "s1", "s2"]


def certificate(host: Host) -> bool:
    return (host.data / "swarm" / "node.crt").exists()


def journal(host: Host) -> bool:
    return any((host.data / "swarm" / "raft").glob("*/journal"))


def leading(host: Host) -> bool:
    return host.said("event=leader ")


@pytest.mark.parametrize("moment", [certificate, journal, leading])
async def test_an_init_that_was_killed_leaves_no_swarm_or_a_whole_one(
    hosts: Hosts, moment: Callable[[Host], bool]
) -> None:
    first = hosts.new()
    first.spawn("init", _request(first))

    async def has_come() -> bool:
        return moment(first)

    await until(has_come)
    first.kill()
    if (first.data / "swarm" / "identity.json").exists():
        first.spawn("run")
        await first.ready()
    else:
        await first.init()
    assert (await first.create_service("works"))[0] == 201


# --- what it says where it cannot go on ---


def _request(host: Host) -> bytes:
    return msgspec.json.encode(
        InitRequest(advertise_addr=host.address, listen_addr=host.address, hostname=host.name))


async def _refusal(host: Host, command: str, stdin: bytes = b"") -> str:
    host.spawn(command, stdin)
    assert await host.ended() == 1
    assert not host.said("Traceback"), host.log.read_text()
    return host.last_words()


@pytest.mark.parametrize("port", [2377, 2378])
async def test_a_port_that_is_taken(hosts: Hosts, port: int) -> None:
    first = hosts.new()
    with socket.create_server((first.address, port)):
        said = await _refusal(first, "init", _request(first))
    assert said.startswith(f"the manager cannot listen on {first.address}:{port}")
    assert "address already in use" in said.lower()
    assert not (first.data / "swarm" / "identity.json").exists(), "there is no swarm"
    await first.init()


async def test_a_second_process_on_the_same_folder(hosts: Hosts) -> None:
    (first,) = await hosts.swarm(1)
    running = first.process
    assert running is not None
    (first.run_root / "other").mkdir()
    first.process, first.run_root = None, first.run_root / "other"
    said = await _refusal(first, "run")
    assert said == (f"{first.data} is in use by another manager process (pid {running.pid}): stop it first")
    first.process, first.run_root = running, first.run_root.parent
    assert (await first.create_service("works"))[0] == 201


async def test_init_where_there_is_a_swarm_already(hosts: Hosts) -> None:
    (first,) = await hosts.swarm(1)
    await first.end()
    assert await _refusal(first, "init", _request(first)) == "this host is part of a swarm already: leave it first"
    first.spawn("run")
    await first.ready()


@pytest.mark.parametrize("given", [b"", b"{", b"{}", b'{"advertise_addr": 7, "listen_addr": ""}'])
async def test_a_request_that_is_none(hosts: Hosts, given: bytes) -> None:
    said = await _refusal(hosts.new(), "init", given)
    assert said.startswith("standard input holds no request to make a swarm")


@pytest.mark.parametrize("command", ["run", "join"])
async def test_a_host_in_no_swarm(hosts: Hosts, command: str) -> None:
    assert "this host is in no swarm" in await _refusal(hosts.new(), command)


async def test_a_key_that_is_missing(hosts: Hosts) -> None:
    (first,) = await hosts.swarm(1)
    await first.end()
    (first.data / "swarm" / "node.key").unlink()
    assert (await _refusal(first, "run")).startswith(f"the certificate in {first.data / 'swarm'} cannot be used")


async def test_a_log_that_the_disk_has_damaged(hosts: Hosts) -> None:
    (first,) = await hosts.swarm(1)
    assert (await first.create_service("s"))[0] == 201
    await first.end()
    (path,) = (first.data / "swarm" / "raft").glob("*/journal")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    said = await _refusal(first, "run")
    assert "the disk has damaged it" in said and "join again" in said


# --- as the daemon runs it ---


async def test_the_daemons_own_code_starts_asks_and_ends_it(hosts: Hosts) -> None:
    host = hosts.new()
    process = ManagerProcess(host.data, host.run_root)
    try:
        process.spawn("init", InitRequest(advertise_addr=host.address, listen_addr=host.address, hostname="h"))
        info = await process.ready()
        assert info.is_leader
        await process.leave(force=True)
    finally:
        await process.stop()
        await process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(info.pid, 0)


async def test_the_daemon_hears_why_it_ended(hosts: Hosts) -> None:
    host = hosts.new()
    process = ManagerProcess(host.data, host.run_root)
    with socket.create_server((host.address, 2377)):
        process.spawn("init", InitRequest(advertise_addr=host.address, listen_addr=host.address))
        with pytest.raises(ShoalError, match="the manager cannot listen on"):
            await process.ready()
    await process.close()
