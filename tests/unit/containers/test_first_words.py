"""The log of a container that was started just now: what it says at once is in it, and nobody waits for more."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from shoal.engine.containers.logs.logs import Logs
from shoal.engine.containers.nouns import Container, ContainerConfig, HostConfig, LogQuery, State, Status
from shoal.engine.containers.table import Table

LINE = b"2026-01-01T00:00:00.000000000+00:00 stdout F hello\n"
FOREVER_S = 1e6
QUERY = LogQuery(stdout=True, stderr=True)


def started(table: Table, *, ago_s: float = 0) -> Container:
    state = State(status=Status.RUNNING, started_ns=time.time_ns() - int(ago_s * 1e9))
    container = Container(id="c" * 64, name="short", created_ns=1, image_id="sha256:1", config=ContainerConfig(),
                          host=HostConfig(), state=state)
    table.add(container)
    return container


async def read(logs: Logs, container: Container, query: LogQuery = QUERY) -> list[bytes]:
    async with asyncio.timeout(30):
        return [content async for _, content in logs.lines(container, query)]


async def test_what_a_short_command_says_is_in_its_log_though_it_was_asked_for_before(tmp_path: Path) -> None:
    table = Table(tmp_path)
    logs = Logs(table, first_words_s=FOREVER_S)
    container = started(table)
    reading = asyncio.ensure_future(read(logs, container))
    await asyncio.sleep(0)
    assert not reading.done()
    logs.path(container).write_bytes(LINE)
    table.change_state(container.id, status=Status.EXITED)
    assert await reading == [b"hello\n"]
    await logs.close()


async def test_one_that_runs_on_is_not_waited_for(tmp_path: Path) -> None:
    table = Table(tmp_path)
    logs = Logs(table, first_words_s=0.05)
    container = started(table)
    logs.path(container).write_bytes(LINE)
    assert await read(logs, container) == [b"hello\n"]
    await logs.close()


async def test_one_that_was_started_long_ago_is_answered_at_once(tmp_path: Path) -> None:
    table = Table(tmp_path)
    logs = Logs(table, first_words_s=FOREVER_S)
    container = started(table, ago_s=2 * FOREVER_S)
    logs.path(container).write_bytes(LINE)
    assert await read(logs, container) == [b"hello\n"]
    await logs.close()


async def test_one_that_is_removed_meanwhile_has_no_log(tmp_path: Path) -> None:
    table = Table(tmp_path)
    logs = Logs(table, first_words_s=FOREVER_S)
    container = started(table)
    reading = asyncio.ensure_future(read(logs, container))
    await asyncio.sleep(0)
    table.drop(container.id)
    assert await reading == []
    await logs.close()
