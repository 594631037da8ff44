"""mount(2), umount2(2), openat2(2) and syncfs(2): the system calls that Python lacks.

No `mount` process is started: a container's root file system is ready in about a millisecond.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: str | bytes | Path) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fspath(path))
    return result


def mount(source: str, target: Path, fstype: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError naming the target."""
    _check(
        _libc.mount(
            source.encode(), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), options.encode()
        ),
        target,
    )


def unmount(target: Path, flags: int = MNT_DETACH | UMOUNT_NOFOLLOW) -> bool:
    """umount2(2). False where nothing is mounted there."""
    if _libc.umount2(os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (22, 2):  # EINVAL: not a mount point; ENOENT
        return False
    raise OSError(code, os.strerror(code), os.fspath(target))


def is_mount_point(path: Path) -> bool:
    """Whether another file system is mounted at `path` (overlay mounts have a device of their own)."""
    try:
        return path.lstat().st_dev != path.parent.lstat().st_dev
    except FileNotFoundError:
        return False


def open_in_root(root_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """openat2(2) with every symbolic link and ".." resolved as if `root_fd` were "/".

    Whatever a layer's own links say, the result lies below the root.
    """
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return _check(_libc.syscall(_SYS_OPENAT2, root_fd, path, how, len(how)), path)


def sync_filesystem(path: Path) -> None:
    """syncfs(2): what was written to the file system of `path` is on its disk afterwards."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(_libc.syncfs(descriptor), path)
    finally:
        os.close(descriptor)
