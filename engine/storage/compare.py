"""What differs between a container's root and the tree that it is a copy of."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shoal.engine.storage.diff import MADE_FOR_IT
from shoal.engine.storage.driver import Change, ChangeKind


def changes(root: Path, tree: Path) -> list[Change]:
    """By path. A folder in which something changed has changed; of a folder that went, only itself is told."""
    found = dict(_different(str(root), str(tree)))
    for path in list(found):
        while (path := path.rpartition("/")[0]) and path not in found:
            found[path] = ChangeKind.MODIFIED
    return [Change(path=path, kind=found[path]) for path in sorted(found)]


def _different(root: str, tree: str) -> Iterator[tuple[str, ChangeKind]]:
    """What differs by itself."""
    folders = [("", tree)]  # each with the tree that it is looked for in: nothing where it is new
    while folders:
        path, before_in = folders.pop()
        now, before = _entries(f"{root}{path}"), _entries(f"{before_in}{path}")
        for name in now.keys() | before.keys():
            each = f"{path}/{name}"
            if each in MADE_FOR_IT:
                continue
            if name not in now:
                yield each, ChangeKind.DELETED
                continue
            folder = now[name].is_dir(follow_symlinks=False)
            was_folder = name in before and before[name].is_dir(follow_symlinks=False)
            if folder:
                folders.append((each, tree if was_folder else os.devnull))
            if name not in before:
                yield each, ChangeKind.ADDED
            elif folder != was_folder or _differs(now[name], before[name], folder):
                yield each, ChangeKind.MODIFIED


def _entries(folder: str) -> dict[str, os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return {entry.name: entry for entry in found}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _differs(now: os.DirEntry[str], before: os.DirEntry[str], folder: bool) -> bool:
    """By what a change leaves behind: contents are not read. A folder's times tell of what is in it."""
    one, other = now.stat(follow_symlinks=False), before.stat(follow_symlinks=False)
    if (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid):
        return True
    if folder:
        return False
    if stat.S_ISLNK(one.st_mode):
        return Path(now.path).readlink() != Path(before.path).readlink()
    return (one.st_size, one.st_mtime_ns, one.st_rdev) != (other.st_size, other.st_mtime_ns, other.st_rdev)
