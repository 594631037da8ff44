"""Containers taken away: what they wrote, their records, and the volumes that were theirs alone."""

from __future__ import annotations

import logging

from shoal.api.errors import Conflict, ShoalError
from shoal.engine.containers.launcher import Launcher
from shoal.engine.containers.life import Emit, Life
from shoal.engine.containers.nouns import Container, Status
from shoal.engine.containers.table import Table
from shoal.engine.containers.waits import Waits
from shoal.engine.volumes.volumes import Volumes

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""With force: so often is one killed that others start meanwhile."""


class Removal:
    """See the module."""

    def __init__(
        self, table: Table, launcher: Launcher, life: Life, waits: Waits, volumes: Volumes, emit: Emit
    ) -> None:
        self._table = table
        self._launcher = launcher
        self._life = life
        self._waits = waits
        self._volumes = volumes
        self._emit = emit

    async def remove(self, container_id: str, *, force: bool, volumes: bool) -> None:
        """No error where it removed itself meanwhile. Raises Conflict where it runs, NotFound where there is none."""
        for _ in range(ATTEMPTS):
            container = self._table.get(container_id)
            if container.state.running:
                await self._end(container, force)
            async with self._life.lock(container_id):
                if not self._table.has(container_id):
                    return
                container = self._table.get(container_id)
                if container.state.running:
                    continue
                await self._take_away(container, volumes)
            self._life.forget(container_id)
            self._waits.removed(container)
            self._emit(container, "destroy", {})
            await self._volumes.abandon(container_id)
            return
        raise Conflict(f"container {container_id} is started again and again while it is being removed")

    async def _end(self, container: Container, force: bool) -> None:
        if not force:
            prefix = f'cannot remove container "/{container.name}"'
            if container.state.status is Status.PAUSED:
                raise Conflict(f"{prefix}: container is paused and must be unpaused first")
            raise Conflict(f"{prefix}: container is {container.state.status}: stop the container before removing or "
                           "force remove")
        try:
            await self._life.kill(container.id, "KILL")
        except Conflict:
            log.debug("event=ended-by-itself container=%s", container.id)

    async def resume(self, container_id: str) -> None:
        """Of one that a killed daemon was removing: with its volumes where that was wanted."""
        await self.remove(container_id, force=True, volumes=self._volumes.is_doomed(container_id))

    async def _take_away(self, container: Container, volumes: bool) -> None:
        """Its lock is held."""
        if volumes and not self._volumes.is_doomed(container.id):
            self._volumes.doom(container.id, (point.name for point in container.mounts if point.anonymous))
        self._table.change_state(container.id, status=Status.REMOVING)
        try:
            await self._launcher.discard(container)
        except (ShoalError, OSError) as error:
            self._volumes.settle(container.id)
            self._table.change_state(container.id, status=Status.DEAD, error=str(error))
            raise ShoalError(f"container {container.id} cannot be removed: {error}") from error
        self._table.drop(container.id)
