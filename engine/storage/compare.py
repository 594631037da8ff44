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
    return sorted(_below(str(root), str(tree), ""), key=lambda change: change.path)


def _below(root: str, tree: str, path: str) -> Iterator[Change]:
    now, before = _entries(f"{root}{path}"), _entries(f"{tree}{path}")
    for name in sorted(now.keys() | before.keys()):
        each = f"{path}/{name}"
        if each in MADE_FOR_IT:
            continue
        if name not in now:
            yield Change(path=each, kind=ChangeKind.DELETED)
            continue
        folder = now[name].is_dir(follow_symlinks=False)
        was_folder = name in before and before[name].is_dir(follow_symlinks=False)
        inside = list(_below(root, tree if was_folder else os.devnull, each)) if folder else []
        if name not in before:
            yield Change(path=each, kind=ChangeKind.ADDED)
        elif inside or folder != was_folder or _differs(now[name], before[name], folder):
            yield Change(path=each, kind=ChangeKind.MODIFIED)
        yield from inside


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
