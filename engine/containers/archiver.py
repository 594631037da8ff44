"""A program of its own: reads and writes one container's files from inside its root, as tar.

It enters the root before it looks at a single name, so that no link in a container
leads outside. It imports nothing of ours: run it by its path, with the request as
JSON in the first argument (see `archive`). Stat and errors are lines of JSON on
stderr; tar goes out on stdout, or comes in on stdin.
"""

# Paths are plain text here: a slash at their end means something.
# ruff: noqa: PTH103, PTH108, PTH112, PTH114, PTH116, PTH123, PTH208

from __future__ import annotations

import bz2  # noqa: F401 - imported now: tarfile needs it, and cannot import it once the root is entered
import ctypes
import errno
import gzip  # noqa: F401
import json
import lzma
import os
import posixpath
import stat
import sys
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, NoReturn

_NEWNS, _PRIVATE, _REMOUNT_READ_ONLY = 0x20000, 0x4000 | 0x40000, 0x20 | 0x1000 | 0x1
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_TREE_FLAGS, _MOVE_FLAGS = 0x1 | 0x80000 | 0x1000 | 0x8000, 0x4
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)

_BLOCK_BYTES = 64 << 10
"""tarfile's own pieces are slow for being small; beyond 128 KiB each would be memory mapped anew."""

_MOVED_BYTES = 1 << 20
"""At once, from the pipe into a file."""

STATUS = {errno.ENOENT: 404, errno.EROFS: 403, errno.EPERM: 403, **dict.fromkeys((
    errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY,
    errno.EBUSY, errno.EMLINK, errno.EFBIG, errno.EXDEV), 400)}

DAMAGED = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, IndexError, OverflowError, RecursionError,
           ValueError)
"""What tarfile raises for archives that are no good."""


class Tar(tarfile.TarFile):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"copybufsize": _BLOCK_BYTES, **options})

    def makefile(self, tarinfo: tarfile.TarInfo, targetpath: Any) -> None:
        """A large file goes from the pipe into its place without passing through this process."""
        stream: Any = self.fileobj
        if tarinfo.sparse is not None or tarinfo.size < _MOVED_BYTES or stream.comptype != "tar":
            super().makefile(tarinfo, targetpath)
            return
        with open(targetpath, "wb", buffering=0) as target:
            stream.seek(tarinfo.offset_data)
            ahead = stream.read(min(tarinfo.size, len(stream.buf)))  # what was read with the header
            left = tarinfo.size - len(ahead)
            while ahead:
                ahead = ahead[target.write(ahead):]
            while left:
                if not (moved := move(target.fileno(), left)):
                    raise tarfile.ReadError("unexpected end of data")
                left -= moved
                stream.pos += moved


def move(target: int, most: int) -> int:
    """From stdin. The bytes moved; 0 at its end."""
    try:
        return os.splice(0, target, min(most, _MOVED_BYTES))
    except OSError as error:
        if error.errno != errno.EINVAL:  # one of the two cannot
            raise
    data = os.read(0, min(most, _BLOCK_BYTES))
    view = memoryview(data)
    while view:
        view = view[os.write(target, view):]
    return len(data)


class Input:
    """stdin, of which no more is read than is asked for: what follows may go elsewhere."""

    def read(self, size: int) -> bytes:
        """As many, but at its end."""
        parts = []
        while size and (data := os.read(0, size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def main() -> None:
    request: dict[str, Any] = json.loads(sys.argv[1])
    try:
        enter(request)
        {"stat": tell, "pack": pack, "export": export, "unpack": unpack}[request["do"]](request)
    except Refused as error:
        fail(error.status, str(error))
    except DAMAGED as error:
        fail(400, f"cannot read the archive: {error}")
    except OSError as error:
        fail(STATUS.get(error.errno or 0, 500), f"{error.filename or request['path']}: {error.strerror}")


def fail(status: int, message: str) -> NoReturn:
    say({"status": status, "message": message})
    sys.exit(1)


def say(value: dict[str, Any]) -> None:
    sys.stderr.write(json.dumps(value) + "\n")
    sys.stderr.flush()


# --- the root ---


def enter(request: dict[str, Any]) -> None:
    """Make the container's root ours; of one that does not run, with its volumes in their places."""
    if "root_fd" in request:
        os.fchdir(request["root_fd"])
        os.chroot(".")
        os.chdir("/")
        return
    check(_libc.unshare(_NEWNS))
    check(_libc.mount(None, b"/", None, _PRIVATE, None))
    trees = [(clone(source), target, read_only) for source, target, read_only in request["binds"]]
    os.chroot(request["root"])
    os.chdir("/")
    for tree, target, read_only in trees:
        place(tree, os.fsencode(target), read_only)


def clone(source: str) -> int:
    return check(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _TREE_FLAGS))


def place(tree: int, target: bytes, read_only: bool) -> None:
    """Mount a cloned tree where the container would have it; not where it never ran, and has no such folder."""
    if not os.path.lexists(target):
        if not stat.S_ISDIR(os.fstat(tree).st_mode):
            return
        os.makedirs(target, 0o755)
    check(_libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target, _MOVE_FLAGS))
    if read_only:
        check(_libc.mount(None, target, None, _REMOUNT_READ_ONLY, None))


def check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# --- out ---


def tell(request: dict[str, Any]) -> None:
    """What is at the path; a link at its end is not followed, unless a slash follows it."""
    path = request["path"]
    found = os.lstat(path)
    shown: dict[str, Any] = {"name": posixpath.basename(posixpath.normpath(path)) or "/", "size": found.st_size,
                             "mode": found.st_mode, "mtime_ns": found.st_mtime_ns, "link": ""}
    if stat.S_ISLNK(found.st_mode):
        shown["link"] = os.path.realpath(path)
    say(shown)


def pack(request: dict[str, Any]) -> None:
    path = request["path"]
    tell(request)
    base = "." if path.endswith("/.") else posixpath.basename(posixpath.normpath(path)) or "/"
    with Tar.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=_BLOCK_BYTES, format=tarfile.PAX_FORMAT) as tar:
        add(tar, path if base == "." else path.rstrip("/") or "/", base)


def export(request: dict[str, Any]) -> None:
    with Tar.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=_BLOCK_BYTES, format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(os.listdir("/")):
            add(tar, f"/{name}", name)


def add(tar: tarfile.TarFile, top: str, top_name: str) -> None:
    """A file, or a folder with what is in it. What goes away meanwhile, and sockets, are left out."""
    for path, name in tree(top, top_name):
        try:
            member = tar.gettarinfo(path, name)
            if member is None:
                continue
            member.uname = member.gname = ""
            if not member.isreg():
                tar.addfile(member)
                continue
            with open(path, "rb") as content:
                tar.addfile(member, content)
        except FileNotFoundError:
            continue


def tree(path: str, name: str) -> Iterator[tuple[str, str]]:
    waiting = [(path, name)]
    while waiting:
        path, name = waiting.pop()
        yield path, name
        if os.path.isdir(path) and (not os.path.islink(path) or path.endswith(("/", "/."))):
            try:
                children = sorted(os.listdir(path), reverse=True)
            except FileNotFoundError:
                continue
            waiting += [(posixpath.join(path, child), posixpath.join(name, child)) for child in children]


# --- in ---


def unpack(request: dict[str, Any]) -> None:
    """Into a folder that is there, over what is there."""
    path = os.path.realpath(request["path"])
    if not stat.S_ISDIR(os.stat(path).st_mode):
        raise Refused(400, "extraction point is not a directory")
    with Tar.open(fileobj=Input(), mode="r|*", bufsize=_BLOCK_BYTES) as tar:  # type: ignore[call-overload]
        for member in tar:
            check_parts(member)
            make_room(posixpath.join(path, member.name.lstrip("/")), member, request["keep_kinds"])
            tar.extract(member, path, numeric_owner=True, filter="fully_trusted")


def check_parts(member: tarfile.TarInfo) -> None:
    """Of a sparse file: tarfile trusts the map, and where it is wrong reads the same piece for ever."""
    parts: Any = member.sparse or ()
    end = 0
    for offset, size in parts:
        if size < 0 or (size and offset < end):
            raise Refused(400, f"cannot read the archive: {member.name!r} has sparse parts that overlap")
        end = max(end, offset + size)
    if not end <= member.size < 1 << 50:
        raise Refused(400, f"cannot read the archive: {member.name!r} has {member.size} bytes")


def make_room(target: str, member: tarfile.TarInfo, keep_kinds: bool) -> None:
    """Take away what the member replaces: a file is not written through a link or into one that runs."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(target).st_mode)
    except OSError:
        return
    if is_folder != member.isdir() and keep_kinds:
        kinds = ("directory", "non-directory") if is_folder else ("non-directory", "directory")
        raise Refused(400, f'cannot overwrite {kinds[0]} "{target}" with {kinds[1]}')
    if not is_folder:
        os.unlink(target)


if __name__ == "__main__":
    main()
