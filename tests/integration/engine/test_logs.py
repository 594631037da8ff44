"""Logs of containers that run, that ended, and whose log was put aside."""

from __future__ import annotations

import asyncio
import re

import pytest

from shoal.engine.containers.logs import rotation
from shoal.engine.containers.nouns import ExecConfig, HostConfig, LogConfig, LogQuery
from tests.integration.engine.conftest import DEADLINE_S

pytestmark = pytest.mark.root


async def _ended(host, *command, asked=None, **config):
    container_id = await host.create(*command, host=asked, **config)
    ended = host.engine.wait(container_id, "next-exit")
    await host.engine.start(container_id)
    await ended
    return container_id


async def test_streams_tail_and_times(host):
    container_id = await _ended(host, "sh", "-c", "echo a; echo b; echo c; echo oops >&2; printf end")
    assert await host.logs(container_id, stderr=False) == b"a\nb\nc\nend"
    assert await host.logs(container_id, stdout=False) == b"oops\n"
    assert await host.logs(container_id, tail=0) == b""
    assert await host.logs(container_id, tail=1000, stderr=False) == b"a\nb\nc\nend"
    stamped = await host.logs(container_id, timestamps=True, stderr=False)
    assert re.fullmatch(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z [abc]\n){3}\S+Z end", stamped)


async def test_long_lines_are_joined(host):
    container_id = await _ended(host, "sh", "-c", "head -c 12000 /dev/zero | tr '\\0' x; echo; echo next")
    lines = [line async for _, line in host.engine.logs(container_id, LogQuery())]
    assert lines == [b"x" * 12000 + b"\n", b"next\n"]


async def test_follow_ends_with_the_container(host):
    container_id = await host.create("sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done")
    await host.engine.start(container_id)
    async with asyncio.timeout(DEADLINE_S):
        assert await host.logs(container_id, follow=True) == b"1\n2\n3\n4\n5\n"


async def test_follow_of_a_tail(host):
    container_id = await host.create("sh", "-c", "echo old; echo seen; read x; echo new", open_stdin=True)
    await host.engine.start(container_id)
    lines = host.engine.logs(container_id, LogQuery(follow=True))
    assert [await anext(lines), await anext(lines)] == [(1, b"old\n"), (1, b"seen\n")]
    later = host.engine.logs(container_id, LogQuery(follow=True, tail=1))
    assert await anext(later) == (1, b"seen\n")
    attachment = await host.engine.attach(container_id, stdin=True)
    await attachment.write(b"go\n")
    async with asyncio.timeout(DEADLINE_S):
        assert await anext(lines) == await anext(later) == (1, b"new\n")
        assert [one async for one in lines] == [one async for one in later] == []
    await attachment.detach()


async def test_since_and_until(host):
    container_id = await _ended(host, "sh", "-c", "echo first; sleep 0.2; echo second")
    state = host.engine.get(container_id).state
    middle = (state.finished_ns + state.started_ns) // 2
    assert await host.logs(container_id, since_ns=middle) == b"second\n"
    assert await host.logs(container_id, until_ns=middle) == b"first\n"


async def test_rotation_loses_no_line(host):
    """A follower sees every line, across files that are put aside while it reads; what is kept is bounded."""
    count = 60_000
    container_id = await host.create(
        "sh", "-c", f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line-$i; "
        f"[ $i -ne {count // 2} ] || while [ ! -e /go ]; do sleep 0.02; done; done",
        host=HostConfig(log=LogConfig(options={"max-size": "100k", "max-file": "3"})))
    engine = host.engine
    await engine.start(container_id)
    followed = asyncio.create_task(host.logs(container_id, follow=True))
    folder = engine.log_path(container_id).parent
    going_on = False
    async with asyncio.timeout(60):
        while engine.get(container_id).state.running:
            for config, place, monitor in engine._logs.limited():
                rotation.check(config, place, monitor)
            if (folder / "log.1").exists() and not going_on:
                going_on = True
                record = await engine.exec_create(container_id, ExecConfig(command=("touch", "/go")))
                await engine.exec_start(record.id, detach=True)
            await asyncio.sleep(0.02)
        lines = (await followed).split()
    assert lines == [b"line-%d" % number for number in range(1, count + 1)]
    assert {path.name for path in folder.glob("log*")} <= {"log", "log.1", "log.2"}
    kept = (await host.logs(container_id)).split()[1:]  # the first may have been cut by the rotation
    assert kept == lines[-len(kept):] and len(kept) < count
    assert (await host.logs(container_id, tail=5000)).split() == lines[-5000:]


async def test_no_log(host):
    container_id = await _ended(host, "echo", "x", asked=HostConfig(log=LogConfig(driver="none")))
    with pytest.raises(Exception, match="does not support reading"):
        host.engine.logs(container_id, LogQuery())
