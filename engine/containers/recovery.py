"""What an engine that was killed, or its host, left: taken up again or taken away, before anything is made."""

from __future__ import annotations

import asyncio

from shoal.engine.containers.life import Life
from shoal.engine.containers.mounts import Mounts
from shoal.engine.containers.nouns import Status
from shoal.engine.containers.oci.monitor import Monitors
from shoal.engine.containers.removal import Removal
from shoal.engine.containers.table import Table
from shoal.engine.storage.rootfs import RootFSStore
from shoal.engine.volumes.volumes import Volumes


async def recover(
    table: Table, life: Life, removal: Removal, mounts: Mounts, volumes: Volumes, rootfs: RootFSStore,
    monitors: Monitors,
) -> None:
    """Containers, and the volumes that they hold. No plugin that does not answer holds that up."""
    mounting = volumes.mounting
    mounting.let_go_s, patience_s = 0.0, mounting.let_go_s
    await life.recover()
    for container in table.all():
        if container.state.status is Status.REMOVING:
            await removal.resume(container.id)
        elif container.host.auto_remove and container.state.status is Status.EXITED:
            await removal.remove(container.id, force=True, volumes=True)  # it was about to
    await volumes.take_up(table.has)
    for container_id in life.monitors:
        mounts.adopt(table.get(container_id))
    await volumes.sweep(life.monitors)
    mounting.let_go_s = patience_s
    for root in rootfs.used():  # of containers that were being made, of images that were being read
        if not table.folder(root.partition("-")[0]).exists():
            await rootfs.remove(root)
    await asyncio.to_thread(_sweep_bundles, table, monitors)


def _sweep_bundles(table: Table, monitors: Monitors) -> None:
    for container_id in monitors.known():
        if not table.has(container_id):
            monitors.clear(container_id)
