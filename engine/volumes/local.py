"""The `local` driver: folders that outlive containers, and file systems that are mounted at them.

    <root>/<name>/_data          what containers see

Options `type`, `device` and `o` are mounted at `_data` while somebody holds the volume (`mounter`).
"""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.engine.storage.mount import unmount
from shoal.engine.storage.trees import remove_tree
from shoal.engine.volumes import options as rules
from shoal.engine.volumes.mounter import Mounter, is_mounted
from shoal.engine.volumes.nouns import LOCAL, Told, Volume


class LocalDriver:
    """See the module."""

    name = LOCAL

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mounter = Mounter()

    async def scope(self) -> str:
        return "local"

    def check(self, name: str, options: dict[str, str]) -> None:
        rules.check_name(name)
        rules.check_options(name, options)

    def mounts(self, volume: Volume) -> bool:
        return rules.is_file_system(volume.options)

    def place(self, name: str) -> Path:
        return self._root / name / "_data"

    async def create(self, name: str, options: dict[str, str]) -> None:
        try:
            await asyncio.to_thread(_make, self.place(name))
        except OSError as error:
            await asyncio.to_thread(remove_tree, self._root / name, ignore_errors=True)
            raise ShoalError(f"create {name}: {error}") from error

    async def remove(self, name: str) -> None:
        """What is mounted at it. Its folder goes with its record (`sweep`)."""
        await self._mounter.unmount(self.place(name))

    def sweep(self, name: str) -> None:
        """Delete the folder; never what is mounted in it. Blocking. Raises OSError."""
        place = self.place(name)
        while unmount(place):
            pass
        if is_mounted(place):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(place))
        remove_tree(self._root / name, ignore_errors=True)

    async def get(self, name: str) -> Told | None:
        place = self.place(name)
        return Told(name=name, mountpoint=str(place)) if place.parent.is_dir() else None

    async def list(self) -> list[Told]:
        return [Told(name=each.name, mountpoint=str(each / "_data")) for each in self._root.iterdir()]

    async def mount(self, volume: Volume, holder: str) -> str:
        place = self.place(volume.name)
        if self.mounts(volume):
            await self._mounter.mount(volume.options, place)
        return str(place)

    async def unmount(self, volume: Volume, holder: str, *, last: bool) -> None:
        if last and self.mounts(volume):
            await self._mounter.unmount(self.place(volume.name))

    async def close(self) -> None:
        await self._mounter.close()


def _make(place: Path) -> None:
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.chmod(0o755)
    place.parent.chmod(0o701)
