"""Folders with all that is in them, walked and taken away however deep they are. Blocking.

What `os.walk` and `shutil.rmtree` do as well, but by a call of themselves for each level.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def walk(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """(folder, its folders, the rest) of each folder, those above first. What is taken out of `folders` is not entered.

    Links are among the rest. Raises OSError for what cannot be read, which `os.walk` leaves out.
    """
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        folders: list[str] = []
        rest: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if entry.is_dir(follow_symlinks=False) else rest).append(entry.name)
        yield folder, folders, rest
        waiting += [f"{folder}/{name}" for name in reversed(folders)]


def remove_tree(place: Path, *, ignore_errors: bool = False) -> None:
    """No error where there is nothing. Raises OSError for what cannot be removed, and stays on its file system.

    What `shutil` leaves, which has a descriptor open for each level, is taken apart level by level.
    """
    with suppress(RecursionError):
        shutil.rmtree(place, ignore_errors=True)
    if os.path.lexists(place):
        try:
            _take_apart(place)
        except OSError:
            if not ignore_errors:
                raise


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
