"""A layer's tar stream, unpacked below one directory and nowhere else.

A layer is written by strangers. Parents are opened with every link resolved
inside the layer's root (openat2), the last component is never followed, and
names with ".." are refused. AUFS whiteouts become what OverlayFS understands.

Source: OCI image specification, layer.md; kernel, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from shoal.api.errors import InvalidArgument
from shoal.engine.storage.driver import Readable
from shoal.engine.storage.forward import PIECE_BYTES
from shoal.engine.storage.mount import open_in_root
from shoal.engine.storage.tar import BoundedTarInfo, faults_named, forget_members, open_stream, sparse_parts
from shoal.engine.storage.trees import remove_tree

__all__ = ["OPAQUE_XATTR", "BoundedTarInfo", "apply", "components", "unpack"]

WHITEOUT = ".wh."
WHITEOUT_META = ".wh..wh."
OPAQUE = ".wh..wh..opq"
OPAQUE_XATTR = "trusted.overlay.opaque"

MAX_PATH_LENGTH = 4096
MAX_DIGESTS = 1_000_000

Digests = dict[int, bytes]
"""SHA-256 of the content of files, by inode."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_XATTR_PREFIX = "SCHILY.xattr."
_XATTRS_KEPT = ("user.", "security.capability")


def unpack(stream: Readable, root: Path, digests: Digests | None = None) -> int:
    """Unpack the (uncompressed) tar `stream` into the existing directory `root`.

    Returns the bytes of the files' content. `digests` is given those of what was written, but for sparse files and
    what is beyond MAX_DIGESTS. Raises InvalidArgument for a tar that is malformed or reaches outside; `root` is then
    to be thrown away.
    """
    return _run(lambda archive, root_fd: _Unpacker(archive, root_fd, digests), stream, root)


def apply(stream: Readable, root: Path) -> int:
    """As `unpack`, but over what is in `root`: whiteouts delete there."""
    return _run(_Applier, stream, root)


def _run(unpacker: Callable[[tarfile.TarFile, int], _Unpacker], stream: Readable, root: Path) -> int:
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with faults_named(), open_stream(stream) as archive:
            return unpacker(archive, root_fd).run()
    finally:
        os.close(root_fd)


def components(name: str) -> list[str]:
    """The parts of a member's name, relative to the root. Raises InvalidArgument for ".." and NUL."""
    if len(name) > MAX_PATH_LENGTH:
        raise InvalidArgument(f"archive has a member with a name of {len(name)} characters")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise InvalidArgument(f"archive member {name!r} reaches outside of the layer")
    return parts


class _Unpacker:
    """One run over one archive. Directory times are set last, for files change them."""

    def __init__(self, archive: tarfile.TarFile, root_fd: int, digests: Digests | None = None) -> None:
        self._archive = archive
        self._root_fd = root_fd
        self._digests = digests
        self._parent: tuple[str, int] | None = None  # the last parent, open: members come grouped
        self._directories: list[tuple[list[str], float]] = []
        self._bytes = 0

    def run(self) -> int:
        try:
            for member in self._members():
                self._one(member)
            self._close_parent()
            for parts, mtime in reversed(self._directories):
                with suppress(OSError):
                    self._touch(self._open_parent(parts[:-1]), parts[-1] if parts else ".", mtime)
        finally:
            self._close_parent()
        return self._bytes

    def _members(self) -> Iterator[tarfile.TarInfo]:
        while (member := self._archive.next()) is not None:
            yield member
            forget_members(self._archive)

    def _one(self, member: tarfile.TarInfo) -> None:
        parts = components(member.name)
        if not parts:
            if member.isdir():
                os.fchmod(self._root_fd, member.mode & 0o7777)
                os.fchown(self._root_fd, member.uid, member.gid)
            return
        *above, name = parts
        if name == OPAQUE:
            self._opaque(above)
        elif name.startswith(WHITEOUT_META):
            return  # AUFS's own bookkeeping
        elif name.startswith(WHITEOUT):
            self._whiteout(self._open_parent(above), name.removeprefix(WHITEOUT))
        else:
            self._entry(member, self._open_parent(above), parts)

    def _opaque(self, above: list[str]) -> None:
        descriptor = self._open_directory("/".join(above) or ".", os.O_RDONLY)
        try:
            os.setxattr(descriptor, OPAQUE_XATTR, b"y")
        finally:
            os.close(descriptor)

    def _whiteout(self, parent: int, name: str) -> None:
        if name in ("", ".", ".."):
            raise InvalidArgument(f"archive has an invalid whiteout of {name!r}")
        self._clear(parent, name, keep_directory=False)
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)

    def _entry(self, member: tarfile.TarInfo, parent: int, parts: list[str]) -> None:
        name = parts[-1]
        if member.isreg():
            self._file(member, parent, name)
            return
        self._clear(parent, name, keep_directory=member.isdir())
        mode = member.mode & 0o7777
        if member.isdir():
            with suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=parent)
            self._directories.append((parts, member.mtime))
        elif member.islnk():
            self._hard_link(member, parent, name)
            return  # owner, mode and times are those of what it links to
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.isfifo():
            os.mkfifo(name, mode, dir_fd=parent)
        elif member.ischr() or member.isblk():
            if not member.devmajor and not member.devminor:
                return  # would be a whiteout to OverlayFS
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | mode, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
        else:
            return
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            os.chmod(name, mode, dir_fd=parent)
            self._xattrs(member, parent, name)
        if not member.isdir():
            self._touch(parent, name, member.mtime)

    def _file(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        """By its descriptor, as far as that goes: each name that is looked up takes its time."""
        try:
            target = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name, keep_directory=False)
            target = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            self._content(member, target)
            os.fchown(target, member.uid, member.gid)
            os.fchmod(target, member.mode & 0o7777)
            self._xattrs(member, parent, name)
            os.utime(target, (member.mtime, member.mtime))
        finally:
            os.close(target)
        self._bytes += member.size

    def _content(self, member: tarfile.TarInfo, target: int) -> None:
        """A sparse file stays one: a hole takes no room, whatever its length. The parts lie one after the other."""
        source = cast("IO[bytes]", self._archive.fileobj)
        source.seek(member.offset_data)
        sparse = member.issparse()
        digest = hashlib.sha256() if self._digests is not None and not sparse else None
        for offset, size in sparse_parts(member) if sparse else [(0, member.size)]:
            if offset:
                os.lseek(target, offset, os.SEEK_SET)
            for piece in _pieces(source, size, member.name):
                _write(target, piece)
                if digest is not None:
                    digest.update(piece)
        if sparse:
            os.ftruncate(target, member.size)
        if self._digests is not None:
            _note(self._digests, os.fstat(target).st_ino, digest.digest() if digest is not None else b"")

    def _hard_link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        target = components(member.linkname)
        if not target:
            raise InvalidArgument(f"archive member {member.name!r} links to the root")
        source = self._open_directory("/".join(target[:-1]) or ".", os.O_PATH)
        try:
            os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:
            raise InvalidArgument(f"archive member {member.name!r} links to nothing") from error
        finally:
            os.close(source)

    def _xattrs(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        """Set what a layer may set: never trusted.overlay.*, which would redirect the mount.

        What it is set on is not opened: it may be a device of this host.
        """
        for key, value in member.pax_headers.items():
            attribute = key.removeprefix(_XATTR_PREFIX)
            if key == attribute or not attribute.startswith(_XATTRS_KEPT):
                continue
            try:
                os.setxattr(f"/proc/self/fd/{parent}/{name}", attribute, value.encode("utf-8", "surrogateescape"),
                            follow_symlinks=False)
            except OSError as error:  # of the user's: only files and folders have them, and not everywhere
                if error.errno not in (errno.EPERM, errno.ENOTSUP):
                    raise

    def _clear(self, parent: int, name: str, *, keep_directory: bool) -> None:
        """Remove what an earlier member of this layer put at `name`."""
        try:
            found = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=parent)
        elif not keep_directory:
            remove_tree(Path(f"/proc/self/fd/{parent}") / name)

    def _touch(self, parent: int, name: str, mtime: float) -> None:
        os.utime(name, (mtime, mtime), dir_fd=parent, follow_symlinks=False)

    def _open_parent(self, parts: list[str]) -> int:
        path = "/".join(parts) or "."
        if self._parent is not None:
            if self._parent[0] == path:
                return self._parent[1]
            self._close_parent()
        descriptor = self._open_directory(path, os.O_PATH)
        self._parent = (path, descriptor)
        return descriptor

    def _close_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _open_directory(self, path: str, flags: int) -> int:
        """Open a directory of the layer, made (as root's, 0755) where the archive did not list it."""
        flags |= os.O_DIRECTORY
        try:
            with suppress(FileNotFoundError):
                return open_in_root(self._root_fd, os.fsencode(path), flags)
            parts = path.split("/")
            for depth in range(1, len(parts) + 1):
                self._make_directory("/".join(parts[:depth - 1]) or ".", parts[depth - 1])
            return open_in_root(self._root_fd, os.fsencode(path), flags)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            raise InvalidArgument(f"archive has members below {path!r}, which is no directory") from error

    def _make_directory(self, above: str, name: str) -> None:
        parent = open_in_root(self._root_fd, os.fsencode(above), os.O_PATH | os.O_DIRECTORY)
        try:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
        finally:
            os.close(parent)


def _pieces(source: IO[bytes], size: int, name: str) -> Iterator[bytes]:
    """The next `size` bytes. Raises InvalidArgument where they end before."""
    while size > 0 and (piece := source.read(min(size, PIECE_BYTES))):
        yield piece
        size -= len(piece)
    if size:
        raise InvalidArgument(f"archive member {name!r} is truncated")


def _note(digests: Digests, inode: int, digest: bytes) -> None:
    """b"": that there is none. The inode may be that of a file that was replaced."""
    digests.pop(inode, None)
    if digest and len(digests) < MAX_DIGESTS:
        digests[inode] = digest


def _write(target: int, piece: bytes) -> None:
    """All of it: a disk that is almost full takes a part, and says that it is full only to the next."""
    written = os.write(target, piece)
    while written < len(piece):
        written += os.write(target, piece[written:])


class _Applier(_Unpacker):
    """What a layer deletes is deleted; what it brings itself stays, in whatever order they come."""

    def __init__(self, archive: tarfile.TarFile, root_fd: int) -> None:
        super().__init__(archive, root_fd)
        self._brought: set[str] = set()
        self._above: set[str] = set()  # the folders that something of it is in

    def _entry(self, member: tarfile.TarInfo, parent: int, parts: list[str]) -> None:
        self._brought.add("/".join(parts))
        self._above.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        super()._entry(member, parent, parts)

    def _opaque(self, above: list[str]) -> None:
        descriptor = self._open_directory("/".join(above) or ".", os.O_RDONLY)
        try:
            for name in os.listdir(descriptor):  # noqa: PTH208 (paths do not take descriptors)
                self._delete(descriptor, [*above, name])
        finally:
            os.close(descriptor)

    def _whiteout(self, parent: int, name: str) -> None:
        if name in ("", ".", ".."):
            raise InvalidArgument(f"archive has an invalid whiteout of {name!r}")
        assert self._parent is not None
        self._delete(parent, [*(self._parent[0].split("/") if self._parent[0] != "." else []), name])

    def _delete(self, parent: int, parts: list[str]) -> None:
        path = "/".join(parts)
        if path not in self._brought and path not in self._above:
            self._clear(parent, parts[-1], keep_directory=False)
            return
        try:  # it stays itself; what was in it before does not
            descriptor = open_in_root(parent, os.fsencode(parts[-1]), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            for name in os.listdir(descriptor):  # noqa: PTH208 (paths do not take descriptors)
                self._delete(descriptor, [*parts, name])
        finally:
            os.close(descriptor)
