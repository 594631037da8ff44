"""How much is in a folder, however deep it is: without a call or a descriptor for each level. Blocking."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

KEPT_OPEN = 64
"""Levels whose folders stay open. From those below `..` leads up, unless who writes there moves them meanwhile."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

_Identity = tuple[int, int]


def tree_bytes(place: Path) -> int:
    """The bytes of the files below, each once however many names it has. What goes away meanwhile is nothing."""
    try:
        top = os.open(place, _FOLDER)
    except FileNotFoundError:
        return 0
    return Measuring(top).run()


class Measuring:
    """Stands in one folder after the other. Those that it has yet to see of a level are told by their names."""

    def __init__(self, top: int, kept_open: int = KEPT_OPEN) -> None:
        self._here = top
        self._kept_open = kept_open
        self._above: list[tuple[int, _Identity, list[str]]] = []  # descriptor or -1, which folder it is, what is left
        self._linked: set[_Identity] = set()
        self._bytes = 0

    def run(self) -> int:
        try:
            left: list[str] | None = self._look()
            while left is not None:
                left = self._down(left) if left else self._up()
        finally:
            for descriptor in (self._here, *(kept for kept, _, _ in self._above if kept >= 0)):
                os.close(descriptor)
        return self._bytes

    def _down(self, left: list[str]) -> list[str]:
        """Into one of those that are left; those in it."""
        try:
            below = os.open(left.pop(), _FOLDER, dir_fd=self._here)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return left
        kept = self._here if len(self._above) < self._kept_open else -1
        self._above.append((kept, _identity(os.fstat(self._here)), left))
        if kept < 0:
            os.close(self._here)
        self._here = below
        return self._look()

    def _up(self) -> list[str] | None:
        """Those that are left in the folder above; None at the top. One that cannot be found again is passed over."""
        while self._above:
            kept, known, left = self._above.pop()
            if kept < 0:
                with suppress(FileNotFoundError):
                    kept = os.open("..", _FOLDER, dir_fd=self._here)
            if kept < 0:
                continue
            os.close(self._here)
            self._here = kept
            if _identity(os.fstat(kept)) == known:
                return left
        return None

    def _look(self) -> list[str]:
        """Count the files here; the names of the folders."""
        folders = []
        with os.scandir(self._here) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                    continue
                with suppress(FileNotFoundError):
                    self._count(entry.stat(follow_symlinks=False))
        return folders

    def _count(self, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            if _identity(status) in self._linked:
                return
            self._linked.add(_identity(status))
        self._bytes += status.st_size


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino
