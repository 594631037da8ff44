"""Containers made: from what a client asks for and the image has, to a record and volumes that are filled."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec

from shoal.api.ids import new_container_id
from shoal.engine.containers import merge
from shoal.engine.containers.launcher import Launcher
from shoal.engine.containers.life import Emit
from shoal.engine.containers.mounts import Mounts
from shoal.engine.containers.nouns import Container, ContainerConfig, Created, HostConfig
from shoal.engine.containers.oci import blockio
from shoal.engine.containers.table import Table
from shoal.engine.images.images import Images
from shoal.engine.storage.rootfs import RootFSStore
from shoal.engine.volumes.volumes import Volumes

CPUS = os.cpu_count() or 1


class Creation:
    """See the module. `check_parent` raises InvalidArgument for a cgroup parent that cannot be one."""

    def __init__(
        self, table: Table, launcher: Launcher, images: Images, rootfs: RootFSStore, mounts: Mounts, volumes: Volumes,
        emit: Emit, *, check_parent: Callable[[str], None],
    ) -> None:
        self._table = table
        self._launcher = launcher
        self._images = images
        self._rootfs = rootfs
        self._mounts = mounts
        self._volumes = volumes
        self._emit = emit
        self._check_parent = check_parent

    async def create(self, name: str, config: ContainerConfig, host: HostConfig) -> Created:
        """Raises NotFound ("No such image: …"), Conflict (the name is in use), InvalidArgument."""
        image = self._images.resolve(config.image)
        merged = merge.merge(config, image.config)
        warnings = merge.check(merged, host, cpus=CPUS, real_time=self._launcher.cgroups.has_real_time)
        self._check_parent(host.cgroup_parent)
        limits, discarded = blockio.kept(host.limits, self._launcher.cgroups.block_limits)
        host = msgspec.structs.replace(host, limits=limits)
        container_id = new_container_id()
        name = self._table.reserve(name, container_id)
        try:
            host = self._with_ids(host)
            points = await self._mounts.resolve(merged, host, container_id)
            container = Container(id=container_id, name=name, created_ns=time.time_ns(), image_id=image.id,
                                  config=merged, host=host, mounts=points)
            await self._make(container)
        except BaseException:
            await self._volumes.abandon(container_id)
            self._table.free(name)
            raise
        self._volumes.settle(container_id)
        self._emit(container, "create", {})
        return Created(id=container_id, warnings=(*warnings, *discarded))

    def _with_ids(self, host: HostConfig) -> HostConfig:
        """The containers that the modes name by their ids: names may change. Raises NotFound, InvalidArgument."""
        changes: dict[str, Any] = {}
        for field in ("network_mode", "ipc_mode", "pid_mode"):
            kind, separator, ref = getattr(host, field).partition(":")
            if separator and kind == "container":
                changes[field] = f"container:{self._table.find(ref).id}"
        return msgspec.structs.replace(host, **changes, links=self._launcher.links.settled(host))

    async def _make(self, container: Container) -> None:
        """Fill its new volumes, and take it up. Nothing is left of it where that fails."""
        try:
            if wanting := self._mounts.to_fill(container.mounts):
                root = await self._rootfs.prepare(container.id, container.image_id)
                await self._mounts.fill(wanting, root, container.id)
                await self._rootfs.release(container.id)
            self._table.add(container)
        except BaseException:
            await self._rootfs.remove(container.id)
            raise
