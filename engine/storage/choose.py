"""Which storage driver this host gets: what was asked for, what its data is in already, or what works."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.storage.driver import StorageDriver
from shoal.engine.storage.mount import mount, unmount
from shoal.engine.storage.overlay2 import Overlay2
from shoal.engine.storage.unpack import OPAQUE_XATTR
from shoal.engine.storage.vfs import Vfs

log = logging.getLogger(__name__)

DRIVERS: dict[str, Callable[[Path], StorageDriver]] = {"overlay2": Overlay2, "vfs": Vfs}
"""The best first."""


def choose(data_root: Path, wanted: str = "") -> StorageDriver:
    """Raises InvalidArgument for a driver that there is not, ShoalError for one that does not work here.

    Images and containers are one driver's: a host that has some keeps to it.
    """
    if wanted and wanted not in DRIVERS:
        raise InvalidArgument(f"there is no storage driver {wanted!r}: choose {' or '.join(DRIVERS)}")
    used = [name for name in DRIVERS if _has_something(data_root / name)]
    name = wanted or next(iter(used), "")
    if name == "vfs":
        return Vfs(data_root / name)
    reason = overlay_trial(data_root)
    if not reason:
        return Overlay2(data_root / "overlay2")
    if name:
        raise ShoalError(f"the storage driver {name} does not work in {data_root}: {reason}. Choose vfs by "
                         "storage-driver; what was kept with the other driver is not seen then")
    log.warning("event=storage-fallback driver=vfs reason=%s effect=every container is a copy of its image", reason)
    return Vfs(data_root / "vfs")


def _has_something(root: Path) -> bool:
    return any(place.is_dir() and any(place.iterdir()) for place in (root / "layers", root / "containers"))


def overlay_trial(data_root: Path) -> str:
    """Try all that overlay2 needs: a mount, whiteouts, opaque folders. Why it does not work; "" where it does."""
    trial = data_root / f"overlay-trial-{os.getpid()}"
    lower, upper, work, merged = (trial / name for name in ("lower", "upper", "work", "merged"))
    try:
        for folder in (lower / "folder", upper, work, merged):
            folder.mkdir(parents=True)
        (lower / "file").write_text("")
        os.mknod(upper / "file", stat.S_IFCHR, os.makedev(0, 0))
        (upper / "folder").mkdir()
        os.setxattr(upper / "folder", OPAQUE_XATTR, b"y")
        mount("overlay", merged, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")
        try:
            if (merged / "file").exists():
                return "whiteouts have no effect"
            (merged / "new").write_text("")  # as some file systems let one mount, and then not write
        finally:
            unmount(merged)
    except OSError as error:
        return str(error)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    return ""
