"""The few system calls that durability hangs on.

A class, so that a test can put one in its place that fails, or that forgets
what was not synced, as a power cut does.
"""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """Real files. Every method raises OSError."""

    def create(self, path: Path) -> int:
        """An empty file, open for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def open_at(self, path: Path, size: int) -> int:
        """An existing or new file cut to `size`, open for writing at its end."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, size)
        os.lseek(fd, size, os.SEEK_SET)
        return fd

    def write(self, fd: int, data: bytes) -> None:
        """All of it, or OSError."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def sync(self, fd: int) -> None:
        """Returns once what was written will survive a power cut."""
        os.fdatasync(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Atomically, and it stays so after a power cut."""
        source.replace(target)
        self.sync_folder(target.parent)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        os.close(fd)
