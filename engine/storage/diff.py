"""What a container changed: the upper directory of an OverlayFS, compared with the layers below it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from shoal.engine.storage.driver import Change, ChangeKind
from shoal.engine.storage.unpack import OPAQUE_XATTR

MADE_FOR_IT = frozenset({"/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.init"})
"""What a start puts into every container to mount something on: none of the container's own doing."""


def changes(upper: Path, lower: Sequence[Path]) -> list[Change]:
    """By path. `lower`: the layers, the uppermost first. A folder in which something changed has changed."""
    found: dict[str, Change] = {}
    for parent, folders, files in os.walk(upper):
        for name in [*folders, *files]:
            path = f"/{Path(parent, name).relative_to(upper)}"
            kind = _kind(Path(parent, name), path, lower)
            if kind is not None and path not in MADE_FOR_IT:
                found[path] = Change(path=path, kind=kind)
    return [found[path] for path in sorted(found) if not _is_shell(upper, found, found[path])]


def _kind(entry: Path, path: str, lower: Sequence[Path]) -> ChangeKind | None:
    below = _exists_below(path, lower)
    if _is_whiteout(entry):
        return ChangeKind.DELETED if below else None
    return ChangeKind.MODIFIED if below else ChangeKind.ADDED


def _is_shell(upper: Path, found: dict[str, Change], change: Change) -> bool:
    """A folder of the image that is here only for what a start made in it."""
    if change.kind is not ChangeKind.MODIFIED or not Path(f"{upper}{change.path}").is_dir():
        return False
    beneath = f"{change.path}/"
    return (any(made.startswith(beneath) for made in MADE_FOR_IT)
            and not any(path.startswith(beneath) for path in found))


def _is_whiteout(entry: Path) -> bool:
    status = entry.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _exists_below(path: str, lower: Sequence[Path]) -> bool:
    """Whether the layers together have it: the first that speaks of it, or of a folder above it, decides."""
    for layer in lower:
        entry = Path(f"{layer}{path}")
        if os.path.lexists(entry):
            return not _is_whiteout(entry)
        if _hidden_by(layer, path):
            return False
    return False


def _hidden_by(layer: Path, path: str) -> bool:
    """Whether the layer hides what is below it at `path`: a parent deleted, replaced, or opaque."""
    parts = path.strip("/").split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        parent = Path(layer, *parts[:depth])
        if not os.path.lexists(parent):
            return False
        if not stat.S_ISDIR(parent.lstat().st_mode):
            return True
        try:
            if os.getxattr(parent, OPAQUE_XATTR, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False
