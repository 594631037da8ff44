"""The exec spawner as the way into a container, and the runtime where the spawner cannot do it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from shoal.engine.containers.execruntime import START_TIMEOUT_S, RuntimeEntry
from shoal.engine.containers.nouns import Container
from shoal.engine.containers.oci.cgroups import Cgroups
from shoal.engine.containers.oci.filters import Unsupported
from shoal.engine.containers.oci.monitor import Monitor, RuntimeFailed
from shoal.engine.containers.oci.process import Handle
from shoal.engine.containers.oci.runtime import Runtime
from shoal.engine.containers.spawner.client import Spawner, Unavailable
from shoal.engine.containers.spawner.order import Order
from shoal.engine.containers.spawner.orders import Confinement, make_order, read_confinement
from shoal.engine.containers.stdio.execstdio import ExecStdio

log = logging.getLogger(__name__)

RUNTIME = "runc"
"""The one whose ways the spawner has."""

_REASONS = 100
"""Told at most: a profile that a user brings is part of some."""

Start = Callable[[ExecStdio], Awaitable[Handle]]


def way_in(
    root: Path, runtime: Runtime, cgroups: Cgroups, monitor: Callable[[Container], Monitor],
    group: Callable[[Container], str], *, spawner: bool,
) -> RuntimeEntry | SpawnerEntry:
    """The way into containers of this runtime: without `spawner` always by it. `root`: for files of the runtime's."""
    by_runtime = RuntimeEntry(root, runtime)
    if not spawner or runtime.name != RUNTIME:
        return by_runtime
    return SpawnerEntry(Spawner(), by_runtime, cgroups, monitor, group)


class SpawnerEntry:
    """Implements `execs.Entry`. `monitor` and `group` give a container's monitor and cgroup while it runs."""

    def __init__(
        self, spawner: Spawner, runtime: RuntimeEntry, cgroups: Cgroups, monitor: Callable[[Container], Monitor],
        group: Callable[[Container], str],
    ) -> None:
        self._spawner = spawner
        self._runtime = runtime
        self._cgroups = cgroups
        self._monitor = monitor
        self._group = group
        self._known: dict[str, tuple[int, Confinement]] = {}  # container → its init, and what holds for it
        self._said: set[str] = set()

    def forget(self, container_id: str) -> None:
        self._known.pop(container_id, None)

    async def close(self) -> None:
        await self._spawner.close()

    def prepare(self, container: Container, exec_id: str, process: Mapping[str, Any], home: str) -> Start:
        """See `execs.Entry`."""
        by_runtime = partial(self._runtime.prepare, container, exec_id, process, home)
        try:
            confinement = self._confinement(container)
        except Unsupported as reason:
            self._say(reason.message)
            return by_runtime()
        group, pid = self._group(container), container.state.pid
        order = make_order(
            process, confinement, keyring=f"_ses.{container.id}", home=home,
            task_files=self._cgroups.task_files(group), unified=self._cgroups.unified_folders(group, pid))
        return partial(self._start, container, order, by_runtime)

    def _confinement(self, container: Container) -> Confinement:
        init, found = self._known.get(container.id, (0, None))
        if found is None or init != container.state.pid:
            bundle: Path = self._monitor(container).bundle
            found = read_confinement(bundle / "config.json")
            self._known[container.id] = container.state.pid, found
        return found

    async def _start(self, container: Container, order: Order, by_runtime: Callable[[], Start], stdio: ExecStdio
                     ) -> Handle:
        try:
            await self._spawner.ready()
        except Unavailable as reason:
            self._say(reason.message)
            return await (await asyncio.to_thread(by_runtime))(stdio)
        init = self._monitor(container).init_fd
        if init < 0:
            raise RuntimeFailed("exec failed: cannot exec in a stopped container")
        init = os.dup(init)  # it may end while the order is on its way
        try:
            ends = () if order["tty"] else stdio.open_pipes()
            handle, terminal = await self._spawner.spawn(order, init, ends, START_TIMEOUT_S)
        finally:
            os.close(init)
        stdio.close_theirs()
        if terminal >= 0:
            stdio.take_terminal(terminal)
        return handle

    def _say(self, reason: str) -> None:
        if reason not in self._said and len(self._said) < _REASONS:
            self._said.add(reason)
            log.warning("event=exec-by-runtime reason=%r", reason)
