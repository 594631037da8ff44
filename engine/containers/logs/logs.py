"""`Logs`: what containers wrote, for whoever asks, and kept within the bounds that each asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.engine.containers.logs import reader
from shoal.engine.containers.logs.inotify import Watches
from shoal.engine.containers.logs.rotation import Rotation
from shoal.engine.containers.nouns import Container, LogConfig, LogQuery
from shoal.engine.containers.oci.monitor import Monitor
from shoal.engine.containers.table import Table


class Logs:
    """`start` it once `monitors`, of the containers that run, is known; `close` it."""

    def __init__(self, table: Table) -> None:
        self._table = table
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
        """(stream, whole line), as many at once as are there. Raises ShoalError at the call where none are kept."""
        if container.host.log.driver == "none":
            raise ShoalError("configured logging driver does not support reading")
        return reader.read(self._table.folder(container.id), query, runs=lambda: self._runs(container.id),
                           watches=self._watches)

    def lines(self, container: Container, query: LogQuery) -> AsyncIterator[tuple[int, bytes]]:
        """The same, one by one."""
        return _one_by_one(self.batches(container, query))

    def _runs(self, container_id: str) -> bool:
        return self._table.has(container_id) and self._table.get(container_id).state.running

    def limited(self) -> Iterable[tuple[LogConfig, Path, Monitor]]:
        """Those that are not to outgrow something, while they are written."""
        for container_id, monitor in self._monitors.items():
            container = self._table.get(container_id)
            if container.host.log.options:
                yield container.host.log, self._table.folder(container_id), monitor


async def _one_by_one(batches: AsyncIterator[list[tuple[int, bytes]]]) -> AsyncIterator[tuple[int, bytes]]:
    async for batch in batches:
        for line in batch:
            yield line
