"""Started, stopped, killed, paused, started again, removed."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from shoal.api.errors import Conflict, InvalidArgument, NotFound
from shoal.api.specs import HealthCheck
from shoal.engine.containers.nouns import (
    DeviceLimit,
    HostConfig,
    Limits,
    MountRequest,
    RestartPolicy,
    Status,
    Ulimit,
)
from shoal.engine.containers.oci.cgroups import Cgroups

pytestmark = pytest.mark.root

IGNORES_TERM = ("sh", "-c", "trap '' TERM; echo ready; while true; do sleep 0.05; done")
ANSWERS_TERM = ("sh", "-c", "trap 'exit 42' TERM; echo ready; while true; do sleep 0.05; done")


async def _ready(host, *command, asked=None, **more):
    """Start it, and wait until it has said so."""
    container_id = await host.create(*command, host=asked, **more)
    attachment = await host.engine.attach(container_id)
    await host.engine.start(container_id)
    async with asyncio.timeout(10):
        assert await attachment.read() == (1, b"ready\n")
    await attachment.detach()
    return container_id


async def test_stop_waits_for_the_program(host):
    container_id = await _ready(host, *ANSWERS_TERM)
    await host.engine.stop(container_id, 10)
    state = host.engine.get(container_id).state
    assert (state.status, state.exit_code, state.pid) == (Status.EXITED, 42, 0)
    assert state.finished_ns > state.started_ns
    await host.engine.stop(container_id)  # no error


async def test_stop_kills_after_the_grace(host):
    container_id = await _ready(host, *IGNORES_TERM)
    begun = time.monotonic()
    await host.engine.stop(container_id, 1)
    assert 0.9 < time.monotonic() - begun < 5
    assert host.engine.get(container_id).state.exit_code == 137


async def test_stop_signal(host):
    container_id = await _ready(
        host, "sh", "-c", "trap 'exit 9' USR1; echo ready; while true; do sleep 0.05; done", stop_signal="SIGUSR1")
    await host.engine.stop(container_id, 10)
    assert host.engine.get(container_id).state.exit_code == 9


async def test_kill(host):
    container_id = await _ready(host, *ANSWERS_TERM)
    with pytest.raises(InvalidArgument):
        await host.engine.kill(container_id, "NOSUCH")
    ended = host.engine.wait(container_id)
    await host.engine.kill(container_id, "TERM")
    assert (await ended).exit_code == 42
    with pytest.raises(Conflict, match=f"container {container_id} is not running"):
        await host.engine.kill(container_id)


async def test_pause_and_stop(host):
    container_id = await _ready(host, *ANSWERS_TERM)
    await host.engine.pause(container_id)
    assert host.engine.get(container_id).state.status is Status.PAUSED
    with pytest.raises(Conflict, match="is already paused"):
        await host.engine.pause(container_id)
    await host.engine.stop(container_id, 10)  # wakes it
    assert host.engine.get(container_id).state.exit_code == 42


async def test_start_again(host):
    container_id = await host.create("sh", "-c", "echo x >> /count; wc -l < /count")
    for count in (1, 2):
        ended = host.engine.wait(container_id, "next-exit")
        await host.engine.start(container_id)
        await ended
        assert (await host.logs(container_id)).split()[-1] == str(count).encode()


async def test_restart_by_hand(host):
    container_id = await _ready(host, *ANSWERS_TERM, asked=HostConfig(auto_remove=True))
    pid = host.engine.get(container_id).state.pid
    await host.engine.restart(container_id, 10)
    state = host.engine.get(container_id).state
    assert state.running and state.pid != pid


async def test_a_restart_by_hand_does_not_undo_another(host):
    container_id = await _ready(host, *IGNORES_TERM, asked=HostConfig(auto_remove=True))
    restart = asyncio.create_task(host.engine.restart(container_id, 1))
    await host.until(lambda: host.engine.get(container_id).state.has_been_manually_stopped, "its signal was sent")
    with pytest.raises(InvalidArgument):
        await host.engine.restart(container_id, 1, "NOSUCH")
    await restart
    assert host.engine.get(container_id).state.running


async def test_whose_client_goes_while_it_is_made_keeps_its_name(host):
    creating = asyncio.create_task(host.create("true", name="mine"))
    stop_watching = host.engine.watch(lambda container_id: creating.cancel())
    with pytest.raises(asyncio.CancelledError):
        await creating
    stop_watching()
    assert host.engine.get("mine").name == "mine"
    with pytest.raises(Conflict, match="already in use"):
        await host.create("true", name="mine")


async def test_names(host):
    await host.create("true", name="one")
    with pytest.raises(Conflict) as raised:
        await host.create("true", name="one")
    holder = host.engine.get("one").id
    assert raised.value.message == (
        f'Conflict. The container name "/one" is already in use by container "{holder}". You have to remove (or '
        "rename) that container to be able to reuse that name.")
    await host.engine.rename("one", "two")
    assert host.engine.get("/two").id == holder == host.engine.get(holder[:10]).id
    with pytest.raises(NotFound, match="No such container: one"):
        host.engine.get("one")
    made_up = host.engine.get(await host.create("true")).name
    assert "_" in made_up


async def test_remove_refuses_what_runs(host):
    container_id = await _ready(host, *IGNORES_TERM)
    with pytest.raises(Conflict, match="stop the container before removing or force remove"):
        await host.engine.remove(container_id)
    removed = host.engine.wait(container_id, "removed")
    await host.engine.remove(container_id, force=True)
    assert (await removed).exit_code == 137


async def test_auto_remove(host):
    container_id = await host.create("sh", "-c", "exit 4", host=HostConfig(auto_remove=True))
    removed = host.engine.wait(container_id, "removed")
    await host.engine.start(container_id)
    assert (await removed).exit_code == 4
    with pytest.raises(NotFound):
        host.engine.get(container_id)


# --- restart policies ---


async def test_on_failure_gives_up(host):
    container_id = await host.create("sh", "-c", "echo x; exit 1", host=HostConfig(
        restart=RestartPolicy(name="on-failure", max_retries=2)))
    await host.engine.start(container_id)
    await host.until(lambda: host.engine.get(container_id).state.status is Status.EXITED, "it gives up")
    assert host.engine.get(container_id).state.restart_count == 2
    assert await host.logs(container_id) == b"x\nx\nx\n"


async def test_always_until_stopped(host):
    container_id = await host.create("sh", "-c", "exit 0", host=HostConfig(restart=RestartPolicy(name="always")))
    await host.engine.start(container_id)
    await host.until(lambda: host.engine.get(container_id).state.restart_count >= 2, "it is started again")
    await host.engine.stop(container_id)
    assert host.engine.get(container_id).state.status is Status.EXITED
    count = host.engine.get(container_id).state.restart_count
    await asyncio.sleep(0)
    assert host.engine.get(container_id).state.restart_count == count


async def test_always_also_when_a_start_fails(host, tmp_path):
    """What it needs is not there for a while, as a network may not be when a host boots."""
    source = tmp_path / "source"
    source.mkdir()
    asked = HostConfig(restart=RestartPolicy(name="always"), mounts=(MountRequest(source=str(source), target="/in"),))
    container_id = await host.create("sleep", "1000", host=asked)
    await host.engine.start(container_id)
    source.rename(tmp_path / "away")
    os.kill(host.engine.get(container_id).state.pid, signal.SIGKILL)
    await host.until(lambda: "does not exist" in host.engine.get(container_id).state.error, "its start fails")
    (tmp_path / "away").rename(source)
    await host.until(lambda: host.engine.get(container_id).state.status is Status.RUNNING, "it runs again")


# --- limits ---


async def test_limits_in_the_cgroup(host):
    container_id = await host.create("sleep", "1000", host=HostConfig(limits=Limits(
        memory_bytes=64 << 20, nano_cpus=500_000_000, pids=33, cpu_shares=512)))
    await host.engine.start(container_id)
    assert _limit(host, container_id, "memory", "memory.limit_in_bytes", "memory.max") == 64 << 20
    assert _limit(host, container_id, "pids", "pids.max", "pids.max") == 33
    if host.engine.cgroup_version == 1:
        assert _limit(host, container_id, "cpu", "cpu.cfs_quota_us", "") == 50_000
        assert _limit(host, container_id, "cpu", "cpu.shares", "") == 512
    await host.engine.update(container_id, Limits(memory_bytes=96 << 20, pids=44))
    assert _limit(host, container_id, "memory", "memory.limit_in_bytes", "memory.max") == 96 << 20
    assert _limit(host, container_id, "pids", "pids.max", "pids.max") == 44
    assert host.engine.get(container_id).host.limits.nano_cpus == 500_000_000
    usage = await host.engine.usage(container_id)
    assert usage.pids == 1 and usage.pids_limit == 44 and 0 < usage.memory_bytes < usage.memory_limit_bytes == 96 << 20


def _limit(host, container_id, controller, v1, v2):
    folder = Path("/sys/fs/cgroup")
    if host.engine.cgroup_version == 1:
        folder, name = folder / controller, v1
    else:
        name = v2
    return int((folder / host.parent[1:] / container_id / name).read_text())


async def test_limits_of_a_block_device(host, tmp_path):
    """Of the first that the kernel has, by a node of our own: there may be none in /dev."""
    numbers = next(Path("/sys/block").iterdir()).joinpath("dev").read_text().strip()
    node = tmp_path / "disk"
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(*map(int, numbers.split(":"))))
    limit = DeviceLimit(path=str(node), value=1 << 20)
    container_id = await host.create("sleep", "1000", host=HostConfig(limits=Limits(
        blkio_read_bps=(limit,), blkio_write_iops=(limit,))))
    await host.engine.start(container_id)
    cgroups = Cgroups()
    folder = cgroups.folder(f"{host.parent}/{container_id}", "blkio")
    if cgroups.version == 1:
        assert (folder / "blkio.throttle.read_bps_device").read_text() == f"{numbers} {1 << 20}\n"
        assert (folder / "blkio.throttle.write_iops_device").read_text() == f"{numbers} {1 << 20}\n"
    else:
        assert (folder / "io.max").read_text() == f"{numbers} rbps={1 << 20} wbps=max riops=max wiops={1 << 20}\n"


async def test_out_of_memory(host):
    code, _, _ = await host.run("sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M count=1", host=HostConfig(
        limits=Limits(memory_bytes=16 << 20)))
    container = host.engine.all()[0]
    assert code == 137
    assert container.state.oom_killed


async def test_ulimit_above_our_own_is_lowered(host):
    _, output, _ = await host.run("sh", "-c", "ulimit -n", host=HostConfig(
        ulimits=(Ulimit(name="nofile", soft=123, hard=1 << 30),)))
    assert output == b"123\n"


# --- health ---


async def test_health(host):
    check = HealthCheck(test=("CMD-SHELL", "echo checked; test -e /well"), interval_ns=50_000_000, retries=2)
    container_id = await host.create("sleep", "1000", health_check=check)
    with host.engine.events.subscribe() as events:
        await host.engine.start(container_id)
        await host.until(lambda: host.engine.get(container_id).state.health.status == "unhealthy", "it is unhealthy")
        Path(f"/proc/{host.engine.get(container_id).state.pid}/root/well").touch()
        await host.until(lambda: host.engine.get(container_id).state.health.status == "healthy", "it is healthy")
        seen = []
        while "health_status: healthy" not in seen:
            seen.append((await events.next()).action)
    assert host.engine.get(container_id).state.health.log[-1].output == "checked\n"
    assert seen[0] == "start" and "health_status: unhealthy" in seen
