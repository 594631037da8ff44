"""Folders with all that is in them, taken away however deep they are. Blocking."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path


def remove_tree(place: Path) -> None:
    """No error where there is nothing. Raises OSError for what cannot be removed, and stays on its file system.

    `shutil` goes down with a call and a descriptor for each level: what it leaves is taken apart level by level.
    """
    with suppress(RecursionError):
        shutil.rmtree(place, ignore_errors=True)
    if os.path.lexists(place):
        _take_apart(place)


def _take_apart(place: Path) -> None:
    """Every folder that is not empty becomes one of the top, so that no path grows long."""
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        waiting, count, mark = ["."], 0, os.urandom(6).hex()
        while waiting:
            name = waiting.pop()
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                for entry in os.listdir(folder):  # noqa: PTH208 (paths do not take descriptors)
                    if not stat.S_ISDIR(os.lstat(entry, dir_fd=folder).st_mode):
                        os.unlink(entry, dir_fd=folder)
                        continue
                    count += 1
                    moved = f".{mark}-{count}"
                    os.rename(entry, moved, src_dir_fd=folder, dst_dir_fd=top)
                    waiting.append(moved)
            finally:
                os.close(folder)
            if name != ".":
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    place.rmdir()
