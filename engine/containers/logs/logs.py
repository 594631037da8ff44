"""`Logs`: what containers wrote, for whoever asks, and kept within the bounds that each asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.engine.containers.logs import journal, reader
from shoal.engine.containers.logs.drivers import JOURNALD
from shoal.engine.containers.logs.inotify import Watches
from shoal.engine.containers.logs.logline import Line, time_ns
from shoal.engine.containers.logs.rotation import Rotation
from shoal.engine.containers.nouns import Container, LogConfig, LogQuery
from shoal.engine.containers.oci.monitor import Monitor
from shoal.engine.containers.table import Table

FIRST_WORDS_S = 0.2
"""What a program says within this time of its start is in every answer: clients ask for the log of a short command
right after they started it, and dockerd's start lasts until such a command has ended. Ours does not."""


class Logs:
    """`start` it once `monitors`, of the containers that run, is known; `close` it."""

    def __init__(self, table: Table, first_words_s: float = FIRST_WORDS_S) -> None:
        self._table = table
        self._first_words_s = first_words_s
        self._watches = Watches()
        self._monitors: Mapping[str, Monitor] = {}
        self._rotation = Rotation(self.limited)

    def start(self, monitors: Mapping[str, Monitor]) -> None:
        self._monitors = monitors
        self._rotation.start()

    async def close(self) -> None:
        await self._rotation.close()
        self._watches.close()

    def path(self, container: Container) -> Path:
        return self._table.folder(container.id) / reader.NAME

    def batches(self, container: Container, query: LogQuery) -> AsyncIterator[list[tuple[int, bytes]]]:
        """(stream, whole line), as many at once as are there. Raises ShoalError at the call where none can be read."""
        driver = container.host.log.driver
        if driver == "none":
            raise ShoalError("configured logging driver does not support reading")
        if driver == JOURNALD:
            journal.check_readable()
            return _shown(self._once_spoken(container, query, self._of_journal(container, query)), query)
        return _shown(self._once_spoken(container, query, reader.lines(
            self._table.folder(container.id), query, runs=lambda: self._runs(container.id),
            watches=self._watches)), query)

    async def _once_spoken(self, container: Container, query: LogQuery, lines: AsyncGenerator[list[Line], None]
                           ) -> AsyncGenerator[list[Line], None]:
        async with aclosing(lines):
            if not query.follow:  # who follows misses nothing anyway
                await self._first_words(container)
            async for batch in lines:
                yield batch

    async def _first_words(self, container: Container) -> None:
        """Returns once the container has ended, or has run for a moment."""
        ran_s = (time.time_ns() - container.state.started_ns) / 1e9
        until = time.monotonic() + min(self._first_words_s, self._first_words_s - ran_s)  # clocks may go back
        if not self._runs(container.id) or time.monotonic() >= until:
            return
        with self._watches.watch(self._table.folder(container.id)) as changed:  # its record changes when it ends
            while self._runs(container.id) and (left := until - time.monotonic()) > 0:
                changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), left)

    async def _of_journal(self, container: Container, query: LogQuery) -> AsyncGenerator[list[Line], None]:
        with self._watches.watch(self._table.folder(container.id)) as changed:  # its record changes when it ends
            found = journal.lines(container.id, query, runs=lambda: self._runs(container.id), changed=changed)
            async with aclosing(found):
                async for lines in found:
                    yield lines

    def lines(self, container: Container, query: LogQuery) -> AsyncIterator[tuple[int, bytes]]:
        """The same, one by one."""
        return _one_by_one(self.batches(container, query))

    def _runs(self, container_id: str) -> bool:
        return self._table.has(container_id) and self._table.get(container_id).state.running

    def limited(self) -> Iterable[tuple[LogConfig, Path, Monitor]]:
        """Those that are not to outgrow something, while they are written."""
        for container_id, monitor in self._monitors.items():
            container = self._table.get(container_id)
            if container.host.log.options and container.host.log.driver != JOURNALD:
                yield container.host.log, self._table.folder(container_id), monitor


async def _shown(
    batches: AsyncGenerator[list[Line], None], query: LogQuery
) -> AsyncIterator[list[tuple[int, bytes]]]:
    """What was asked for, of these streams and within these times."""
    async with aclosing(batches):
        async for lines in batches:
            shown, late = _selected(lines, query)
            if shown:
                yield shown
            if late:
                return


def _selected(lines: list[Line], query: LogQuery) -> tuple[list[tuple[int, bytes]], bool]:
    """Also whether that was the end of it."""
    wanted = {stream for stream, asked in ((1, query.stdout), (2, query.stderr)) if asked}
    if query.since_ns:
        lines = [line for line in lines if time_ns(line.time) >= query.since_ns]
    late = bool(query.until_ns) and any(time_ns(line.time) > query.until_ns for line in lines)
    if late:
        lines = [line for line in lines if time_ns(line.time) <= query.until_ns]
    return [(line.stream, line.stamp + b" " + line.content if query.timestamps else line.content)
            for line in lines if line.stream in wanted], late


async def _one_by_one(batches: AsyncIterator[list[tuple[int, bytes]]]) -> AsyncIterator[tuple[int, bytes]]:
    async for batch in batches:
        for line in batch:
            yield line
