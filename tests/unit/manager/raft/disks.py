"""Disks that fail where a test wants it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tests.property.raft.disk import ForgetfulDisk


class Died(Exception):
    """The process is gone, or the power."""


class DyingDisk(ForgetfulDisk):
    """Dies before the step number `at`; the steps are create, write, sync and rename."""

    def __init__(self) -> None:
        super().__init__()
        self.at: int | None = None
        self.steps = 0

    def _step(self) -> None:
        self.steps += 1
        if self.at is not None and self.steps >= self.at:
            raise Died

    def create(self, path: Path) -> int:
        self._step()
        return super().create(path)

    def write(self, fd: int, data: bytes) -> None:
        self._step()
        super().write(fd, data)

    def sync(self, fd: int) -> None:
        self._step()
        super().sync(fd)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)


class SyncingDisk(ForgetfulDisk):
    """Really syncs."""

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)
        super().sync(fd)


class FullDisk(ForgetfulDisk):
    """Takes no more once `full`; part of the last write is there."""

    full = False

    def write(self, fd: int, data: bytes) -> None:
        if self.full:
            os.write(fd, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(fd, data)
