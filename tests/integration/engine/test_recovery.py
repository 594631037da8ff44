"""The daemon is killed at any instant and comes again: no container, exit code or line of a log is lost."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from shoal.engine.containers.nouns import HostConfig, RestartPolicy, Status
from tests.integration.engine.conftest import DEADLINE_S, drain

pytestmark = pytest.mark.root

ROUNDS = 12


async def _forget(host):
    """As a SIGKILL would: nothing is written, nothing is told, descriptors are closed."""
    await host.engine.close()


async def test_what_runs_is_found_again(host):
    container_id = await host.create("sh", "-c", "while true; do echo tick; sleep 0.05; done")
    await host.engine.start(container_id)
    pid = host.engine.get(container_id).state.pid
    await _forget(host)
    await host.boot()
    state = host.engine.get(container_id).state
    assert state.status is Status.RUNNING and state.pid == pid
    attachment = await host.engine.attach(container_id)
    assert await attachment.read() == (1, b"tick\n")
    await attachment.detach()
    await host.engine.stop(container_id, 0)
    assert host.engine.get(container_id).state.exit_code == 137


async def test_what_ended_meanwhile_has_its_exit_code(host):
    container_id = await host.create("sh", "-c", "read x; echo last words; exit 23", open_stdin=True, stdin_once=True)
    attachment = await host.engine.attach(container_id, stdin=True)
    await host.engine.start(container_id)
    pid = host.engine.get(container_id).state.pid
    await _forget(host)  # the client's input ends with us, and so the program
    await attachment.detach()
    await host.until(lambda: not _runs(pid), "the program ends")
    await host.until(lambda: (host.root / "run/containers" / container_id / "exit").exists(), "conmon writes it down")
    await host.boot()
    state = host.engine.get(container_id).state
    assert (state.status, state.exit_code) == (Status.EXITED, 23)
    assert await host.logs(container_id) == b"last words\n"


def _runs(pid):
    return Path(f"/proc/{pid}").exists()


async def test_end_after_the_restart_is_seen(host):
    container_id = await host.create("sleep", "1000")
    await host.engine.start(container_id)
    await _forget(host)
    await host.boot()
    ended = host.engine.wait(container_id, "next-exit")
    os.kill(host.engine.get(container_id).state.pid, signal.SIGTERM)
    os.kill(host.engine.get(container_id).state.pid, signal.SIGKILL)
    assert (await ended).exit_code == 137


async def test_killed_between_the_record_and_the_release(host):
    """The program has not begun yet: it begins now."""
    container_id = await host.create("sh", "-c", "echo begun; exec sleep 1000")
    life = host.engine._life
    monitor = await life._launcher.launch(host.engine.get(container_id))
    await _forget(host)
    monitor.close()
    await host.boot()
    assert host.engine.get(container_id).state.status is Status.RUNNING
    lines = host.engine.logs(container_id, _follow())
    async with asyncio.timeout(10):
        assert await anext(lines) == (1, b"begun\n")
    await lines.aclose()


def _follow():
    from shoal.engine.containers.nouns import LogQuery

    return LogQuery(follow=True)


async def test_power_off(host):
    """The run root is gone with the boot, and so is every process."""
    lost = await host.create("sleep", "1000")
    kept = await host.create("sleep", "1000", host=HostConfig(restart=RestartPolicy(name="always")))
    by_hand = await host.create("sleep", "1000", host=HostConfig(restart=RestartPolicy(name="unless-stopped")))
    for container_id in (lost, kept, by_hand):
        await host.engine.start(container_id)
    await host.engine.stop(by_hand, 0)
    pids = [host.engine.get(each).state.pid for each in (lost, kept)]
    await _forget(host)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        await host.until(lambda pid=pid: not _runs(pid), "it is dead")
    for container_id in (lost, kept):
        await host.until((host.root / "run/containers" / container_id / "exit").exists, "conmon is done")
        shutil.rmtree(host.root / "run/containers" / container_id)
    await host.boot()
    assert host.engine.get(lost).state.exit_code == 255
    assert host.engine.get(lost).state.status is Status.EXITED
    await host.until(lambda: host.engine.get(kept).state.status is Status.RUNNING, "it is started again")
    assert host.engine.get(by_hand).state.status is Status.EXITED


async def test_conmon_is_killed(host):
    """Nobody holds the container's stdio any more: it is ended, and said to be lost."""
    container_id = await host.create("sleep", "1000")
    await host.engine.start(container_id)
    pid = host.engine.get(container_id).state.pid
    ended = host.engine.wait(container_id, "next-exit")
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().split()[3]), signal.SIGKILL)
    assert (await ended).exit_code == 255
    await host.until(lambda: not _runs(pid), "the program is dead")


async def test_created_stays_created(host):
    container_id = await host.create("echo", "hi", name="kept")
    await _forget(host)
    await host.boot()
    assert host.engine.get("kept").id == container_id
    attachment = await host.engine.attach(container_id)
    await host.engine.start(container_id)
    assert (await drain(attachment))[1] == b"hi\n"


@pytest.mark.parametrize("with_volumes", [True, False])
async def test_a_removal_that_was_cut_off_goes_on(host, with_volumes):
    """With the anonymous volumes only where that was asked for."""
    container_id = await host.create("true", volumes=("/data",))
    (volume,) = (point.name for point in host.engine.get(container_id).mounts)
    if with_volumes:
        host.engine.volumes.doom(container_id, [volume])
    host.engine._table.change_state(container_id, status=Status.REMOVING)
    await _forget(host)
    await host.boot()
    assert host.engine.all() == []
    assert [each.name for each in host.engine.volumes.all()] == ([] if with_volumes else [volume])


async def test_what_was_about_to_remove_itself_goes(host):
    container_id = await host.create("true", host=HostConfig(auto_remove=True))
    never_ran = await host.create("true", host=HostConfig(auto_remove=True))
    host.engine._table.change_state(container_id, status=Status.EXITED)
    await _forget(host)
    await host.boot()
    assert [each.id for each in host.engine.all()] == [never_ran]


async def test_killed_at_any_instant(host):
    """Containers are started, stopped and removed at random, and the daemon is killed in the midst of it, again and
    again. Then: what is said to run does run, what does not has nothing left, and everything can be removed."""
    await _forget(host)
    chance = random.Random(7)
    program = Path(__file__).with_name("churn.py")
    for round_ in range(ROUNDS):
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, str(program), str(host.root), str(round_), host.parent, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])})
        try:
            async with asyncio.timeout(DEADLINE_S):
                assert await daemon.stdout.readline() == b"ready\n", "it did not come up after a kill"
        except TimeoutError:
            daemon.kill()
            raise
        try:
            await asyncio.wait_for(daemon.wait(), chance.uniform(0.05, 0.6))
            raise AssertionError(f"it ended by itself, with {daemon.returncode}")
        except TimeoutError:
            daemon.kill()
            await daemon.wait()
    await host.boot()
    assert host.engine.all()
    for container in host.engine.all():  # some end by themselves just now, and are said to run a moment longer
        await host.until(partial(_is_as_said, host, container.id), f"it is as is said: {container}")


def _is_as_said(host, container_id):
    state = host.engine.get(container_id).state
    if state.status is Status.RUNNING:
        return _runs(state.pid)
    assert state.status in (Status.CREATED, Status.EXITED, Status.RESTARTING), state
    left = [line for line in host.leftovers() if container_id in line and "data/containers" not in line]
    return state.status is Status.RESTARTING or not left
