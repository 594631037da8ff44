"""What a container changed: the upper directory of an OverlayFS, compared with the layers below it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from shoal.engine.storage.driver import Change, ChangeKind
from shoal.engine.storage.unpack import OPAQUE_XATTR

MADE_FOR_IT = frozenset({"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.init"})
"""What a start puts into every container to mount something on: none of the container's own doing."""


def changes(upper: Path, lower: Sequence[Path]) -> list[Change]:
    """By path. `lower`: the layers, the uppermost first. A folder in which something changed has changed."""
    found = {change.path: change for change in _written(str(upper), [str(layer) for layer in lower])}
    return [found[path] for path in sorted(found) if not _is_shell(upper, found, found[path])]


def _written(upper: str, layers: list[str]) -> Iterator[Change]:
    folders = [("", layers)]  # each with the folders that are merged below it: none where it is new
    while folders:
        path, lower = folders.pop()
        for name, status in _entries(f"{upper}{path}"):
            each = f"{path}/{name}"
            existed, below = _below(name, lower)
            if stat.S_ISDIR(status.st_mode):
                folders.append((each, below))
            kind = _kind(existed, _is_whiteout(status))
            if kind is not None and each not in MADE_FOR_IT:
                yield Change(path=each, kind=kind)


def _entries(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """None where there is no such folder: the container was never mounted, or has removed it meanwhile."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False)


def _kind(existed: bool, deleted: bool) -> ChangeKind | None:
    if deleted:
        return ChangeKind.DELETED if existed else None
    return ChangeKind.MODIFIED if existed else ChangeKind.ADDED


def _below(name: str, lower: list[str]) -> tuple[bool, list[str]]:
    """Whether the folders together have it, and which folders are merged there: down to the first that hides others."""
    existed, merged = False, []
    for folder in lower:
        place = f"{folder}/{name}"
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            continue
        if _is_whiteout(status):
            break
        existed = True
        if not stat.S_ISDIR(status.st_mode):
            break
        merged.append(place)
        if _is_opaque(place):
            break
    return existed, merged


def _is_shell(upper: Path, found: dict[str, Change], change: Change) -> bool:
    """A folder of the image that is here only for what a start made in it."""
    if change.kind is not ChangeKind.MODIFIED or not Path(f"{upper}{change.path}").is_dir():
        return False
    beneath = f"{change.path}/"
    return (any(made.startswith(beneath) for made in MADE_FOR_IT)
            and not any(path.startswith(beneath) for path in found))


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(folder: str) -> bool:
    try:
        return os.getxattr(folder, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError:
        return False
