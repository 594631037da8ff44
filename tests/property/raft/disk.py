"""Files that forget what was not synced, as a power cut makes them."""

from __future__ import annotations

import os
import random
from pathlib import Path

from shoal.manager.store.raft.disk import Disk


class PowerCut(BaseException):
    """The lights went out in the middle of a sync."""


class ForgetfulDisk(Disk):
    """Real files of one member; `power_cut` takes back what was written and not synced, or tears it."""

    def __init__(self) -> None:
        self.doomed = False  # the next sync never returns
        self._open: set[int] = set()
        self._synced: dict[int, int] = {}  # inode → bytes that survive

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._open.add(fd)
        self._synced[os.fstat(fd).st_ino] = 0
        return fd

    def open_at(self, path: Path, size: int) -> int:
        fd = super().open_at(path, size)
        self._open.add(fd)
        self._synced[os.fstat(fd).st_ino] = size
        return fd

    def sync(self, fd: int) -> None:
        if self.doomed:
            raise PowerCut
        state = os.fstat(fd)
        self._synced[state.st_ino] = state.st_size

    def sync_folder(self, folder: Path) -> None:
        """Renames are taken as durable: the simulation is about data."""

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        super().close(fd)

    def close_all(self) -> None:
        """The process is gone; what it wrote is with the kernel, and stays."""
        for fd in self._open:
            os.close(fd)
        self._open.clear()

    def power_cut(self, folder: Path, chance: random.Random) -> None:
        self.close_all()
        self.doomed = False
        for path in folder.iterdir():
            state = path.stat()
            synced = self._synced.get(state.st_ino, state.st_size)
            if state.st_size > synced:
                self._tear(path, synced, state.st_size, chance)

    def _tear(self, path: Path, synced: int, size: int, chance: random.Random) -> None:
        """Nothing of the rest arrived, or a part of it, or all of it with a sector that did not."""
        fate = chance.choice(["lost", "part", "hole"])
        with path.open("r+b") as file:
            if fate == "hole":
                file.seek(chance.randrange(synced, size))
                file.write(bytes(min(64, size - file.tell())))
            else:
                file.truncate(synced if fate == "lost" else chance.randrange(synced, size))
