"""The root file systems of containers: prepared before a start, released after an exit.

The one door between containers and the storage driver. It takes the layers from
the image (injected), so that the driver knows no images and containers no layers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from shoal.engine.storage.driver import Change, StorageDriver, chain_ids


class RootFSStore:
    """A writable root for each container id. Every call is idempotent."""

    def __init__(self, driver: StorageDriver, layers_of: Callable[[str], Sequence[str]]) -> None:
        """`layers_of(image_id)` gives the diff ids of an image, lowest first, or raises NotFound."""
        self._driver = driver
        self._layers_of = layers_of

    @property
    def driver_name(self) -> str:
        return self._driver.name

    async def prepare(self, container_id: str, image_id: str) -> Path:
        """Mount the root of a container and return where. About a millisecond.

        A container keeps the layers of its first mount, also when its image was removed since.
        """
        return await asyncio.to_thread(self._mount, container_id, image_id)

    def _mount(self, container_id: str, image_id: str) -> Path:
        chain = self._driver.lower(container_id)
        if chain is None:
            chain = chain_ids(self._layers_of(image_id))
        return self._driver.mount(container_id, chain)

    async def release(self, container_id: str) -> None:
        """Unmount; what the container wrote stays."""
        await asyncio.to_thread(self._driver.unmount, container_id)

    async def remove(self, container_id: str) -> None:
        """Unmount and throw away what the container wrote."""
        await asyncio.to_thread(self._driver.remove, container_id)

    def used(self) -> list[str]:
        """The containers that have something here."""
        return self._driver.containers()

    async def changes(self, container_id: str) -> list[Change]:
        """What the container changed of its image, by path."""
        return await asyncio.to_thread(self._driver.changes, container_id)

    async def pack(self, container_id: str, target: IO[bytes]) -> None:
        """Write what the container changed as the tar of a layer."""
        await asyncio.to_thread(self._driver.pack, container_id, target)

    async def written_bytes(self, container_id: str) -> int:
        """Bytes that the container wrote on top of its image."""
        return await asyncio.to_thread(self._driver.written_bytes, container_id)
