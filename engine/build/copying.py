"""Sources into the root of an image that is being built, as COPY and ADD have them. Blocking.

The root is mounted for this step alone: nothing else changes it, and every path is resolved inside it.

Source of the rules: moby, builder/dockerfile/copy.go; Docker's reference of the Dockerfile.
"""

# Paths are plain text here: they are put together of roots and of what is inside them.
# ruff: noqa: PTH101, PTH102, PTH108, PTH112, PTH114, PTH115, PTH211

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.ignore import Ignored
from shoal.engine.build.sources import Source, inside
from shoal.engine.containers.oci import users
from shoal.engine.images.compression import decompressed
from shoal.engine.storage.trees import remove_tree, walk
from shoal.engine.storage.unpack import BoundedTarInfo, unpack


class Options(msgspec.Struct, frozen=True, kw_only=True):
    owner: tuple[int, int] | None = (0, 0)  # None: as the source has it
    mode: int | None = None  # None: as the source has it
    unpack: bool = False  # archives are unpacked (ADD)
    parents: bool = False
    excludes: tuple[str, ...] = ()


def destination(working_dir: str, path: str) -> str:
    """Absolute; a slash at its end stays, for it says that it is a folder."""
    joined = path if path.startswith("/") else posixpath.join("/", working_dir, path)
    is_folder = path.endswith(("/", "/.", "/..")) or path in (".", "..")
    cleaned = posixpath.normpath(joined).replace("//", "/")
    return cleaned if cleaned == "/" or not is_folder else cleaned + "/"


def copy(root: str, sources: Sequence[Source], target: str, options: Options) -> None:
    """All `sources` to `target` (absolute, in the root). Raises InvalidArgument where a kind forbids it."""
    for source in sources:
        into = target
        if options.parents:
            into = posixpath.join(target, posixpath.dirname(source.name)) + "/"
        _copy_one(root, source, into, options)


def _copy_one(root: str, source: Source, target: str, options: Options) -> None:
    place = inside(root, target)
    if os.path.isdir(source.place):
        _copy_folder(root, source, place, target, options)
    elif options.unpack and source.unpack and is_archive(source.place):
        _make_folder(root, place, (0, 0))
        _unpack(source.place, place)
    else:
        if os.path.isdir(place) or target.endswith("/"):
            place = f"{place}/{posixpath.basename(source.name)}"  # a link of that name is replaced
        _make_folder(root, posixpath.dirname(place), options.owner or (0, 0))
        _copy_entry(source.place, place, options)


def _copy_folder(root: str, source: Source, place: str, target: str, options: Options) -> None:
    if os.path.lexists(place) and not os.path.isdir(place):
        raise InvalidArgument(f"failed to copy files: cannot copy to non-directory: {target}")
    _make_folder(root, place, options.owner or (0, 0))
    left_out, targets = Ignored(options.excludes), {source.place: place}
    for folder, folders, files in walk(source.place):
        into, below = targets[folder], folder[len(source.place) :].lstrip("/")
        if os.path.islink(into):  # one that was left out may be a link there
            into = targets[folder] = inside(root, into[len(root):])
        folders[:] = [name for name in sorted(folders)
                      if left_out.has_exceptions or posixpath.join(source.path, below, name) not in left_out]
        targets |= {f"{folder}/{name}": f"{into}/{name}" for name in folders}
        for name in [*folders, *sorted(files)]:
            if posixpath.join(source.path, below, name) not in left_out:
                _make_folder(root, into, options.owner or (0, 0))
                _copy_entry(f"{folder}/{name}", f"{into}/{name}", options)
    for folder, into in reversed(targets.items()):  # last, for what is put in changes them
        if folder != source.place and os.path.isdir(into):
            _keep_times(folder, into)


def _copy_entry(source: str, place: str, options: Options) -> None:
    """One file, link, pipe or empty folder; takes the place of what is there, but a folder of a folder."""
    status = os.lstat(source)
    kind = stat.S_IFMT(status.st_mode)
    with suppress(FileNotFoundError):
        there = os.lstat(place)
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(place)
        elif kind != stat.S_IFDIR:
            remove_tree(Path(place))
    mode = options.mode if options.mode is not None else stat.S_IMODE(status.st_mode)
    if kind == stat.S_IFDIR:
        with suppress(FileExistsError):
            os.mkdir(place)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(source), place)
    elif kind == stat.S_IFREG:
        shutil.copyfile(source, place, follow_symlinks=False)
    elif kind == stat.S_IFSOCK:
        return
    else:
        os.mknod(place, kind | mode, status.st_rdev)
    os.lchown(place, *(options.owner or (status.st_uid, status.st_gid)))
    if kind != stat.S_IFLNK:
        os.chmod(place, mode)
        _keep_xattrs(source, place)
    if kind != stat.S_IFDIR:
        _keep_times(source, place)


def _keep_times(source: str, place: str) -> None:
    status = os.lstat(source)
    os.utime(place, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)


def _keep_xattrs(source: str, place: str) -> None:
    for name in os.listxattr(source, follow_symlinks=False):
        if name == "security.capability" or name.startswith("user."):
            with suppress(OSError):
                os.setxattr(place, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)


def make_folder(root: str, path: str) -> None:
    """A folder of root's with those above it (WORKDIR)."""
    place = inside(root, path)
    if os.path.lexists(place) and not os.path.isdir(place):
        raise InvalidArgument(f"cannot mkdir: {path} is not a directory")
    _make_folder(root, place, (0, 0))


def _make_folder(root: str, place: str, owner: tuple[int, int]) -> None:
    """`place` lies in the root, its links resolved."""
    missing = []
    while len(place) > len(root) and not os.path.lexists(place):
        missing.append(place)
        place = posixpath.dirname(place)
    if not os.path.isdir(place):
        raise InvalidArgument(f"failed to copy files: {place[len(root):]} is not a directory")
    for each in reversed(missing):
        os.mkdir(each)
        os.chmod(each, 0o755)  # noqa: S103 (as Docker makes them)
        os.lchown(each, *owner)


def is_archive(place: str) -> bool:
    """Whether it is a tar, compressed or not, by its content."""
    if not stat.S_ISREG(os.lstat(place).st_mode):
        return False
    try:
        with Path(place).open("rb") as file, tarfile.open(
                fileobj=decompressed(file)[0], mode="r|", tarinfo=BoundedTarInfo) as archive:
            return archive.next() is not None
    except (tarfile.TarError, InvalidArgument, EOFError):
        return False


def _unpack(archive: str, folder: str) -> None:
    with Path(archive).open("rb") as file:
        unpack(decompressed(file)[0], Path(folder))


def owner(root: str, text: str) -> tuple[int, int]:
    """uid and gid of --chown=user[:group]; a user alone is its group's name too. Raises InvalidArgument."""
    user, _, group = text.partition(":")
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return (_id(user, users.read(root_fd, "etc/passwd"), "user", "uid"),
                _id(group or user, users.read(root_fd, "etc/group"), "group", "gid"))
    finally:
        os.close(root_fd)


def _id(name: str, file: str, kind: str, number: str) -> int:
    if name.isdecimal():
        return int(name)
    for line in file.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[0] == name and fields[2].isdecimal():
            return int(fields[2])
    raise InvalidArgument(f"unable to convert uid/gid chown string to host mapping: can't find {number} for {kind} "
                          f"{name}: no such {kind}: {name}")


def mode(text: str) -> int | None:
    """Of --chmod. Raises InvalidArgument."""
    if not text:
        return None
    try:
        number = int(text, 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o7777:
        raise InvalidArgument(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
    return number
