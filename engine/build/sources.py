"""The files that a COPY or an ADD takes: found in the context, in a stage or an image, and hashed. Blocking.

Every path is resolved inside its root, links too: the root belongs to strangers, and nothing changes it meanwhile.
"""

# Paths are plain text here: they are put together of roots and of what is inside them.
# ruff: noqa: PTH112, PTH114, PTH115

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import msgspec

from shoal.api.errors import InvalidArgument, NotFound
from shoal.api.ignore import Ignored, has_wildcards, wildcard
from shoal.engine.build.keys import combined
from shoal.engine.storage.trees import walk

_PIECE_BYTES = 256 << 10
_MAX_LINKS = 255
_NONE: Mapping[int, bytes] = MappingProxyType({})


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One file or folder to be copied. `root` and `path`: where it is; `name`: its path as it was asked for."""

    root: str
    path: str
    name: str
    hash: str
    unpack: bool = True  # whether an ADD may take it for an archive

    @property
    def place(self) -> str:
        return f"{self.root}/{self.path}".rstrip("/")


def inside(root: str, path: str, *, follow: bool = True) -> str:
    """Where a path leads with `root` as "/", every link on the way followed; at its end with `follow`.

    What is not there is taken as it is written. Raises InvalidArgument for a loop.
    """
    waiting, done, links = [part for part in path.split("/") if part not in ("", ".")][::-1], "", 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        here = f"{root}{done}/{part}"
        if (waiting or follow) and os.path.islink(here):
            links += 1
            if links > _MAX_LINKS:
                raise InvalidArgument(f"too many links in {path}")
            target = os.readlink(here)
            done = "" if target.startswith("/") else done
            waiting += [piece for piece in target.split("/") if piece not in ("", ".")][::-1]
            continue
        done = f"{done}/{part}"
    return f"{root}{done}"


def select(root: str, patterns: Iterable[str], excludes: Iterable[str] = (), *, context: bool = True,
           digests: Mapping[int, bytes] = _NONE) -> list[Source]:
    """What the patterns mean, in their order. `digests`: what is known of the content of files, by inode.

    Raises NotFound naming a pattern that means nothing (wildcards may), ...
    """
    left_out = Ignored(excludes)
    found: list[Source] = []
    for pattern in patterns:
        path = pattern.lstrip("/").removeprefix("./")
        if has_wildcards(path):
            found += [_source(root, each, left_out, digests) for each in _matching(root, path) if each not in left_out]
            continue
        name = posixpath.normpath(path).lstrip("/") if path else "."
        if name.startswith(".."):
            raise InvalidArgument(f"forbidden path outside the build context: {pattern} ()")
        if not os.path.lexists(inside(root, name)):
            raise NotFound(
                f"file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
                if context else f"stat {path}: file does not exist")
        if name not in left_out:
            found.append(_source(root, name, left_out, digests))
    if not found:
        raise InvalidArgument("no source files were specified")
    return found


def _matching(root: str, pattern: str) -> list[str]:
    wanted, depth = wildcard(pattern), pattern.count("/")
    return sorted((path for path in _walk(root, "", depth) if wanted.fullmatch(path)), key=lambda path: path.split("/"))


def _walk(root: str, below: str, depth: int) -> Iterator[str]:
    for entry in sorted(os.scandir(f"{root}/{below}"), key=lambda entry: entry.name):
        path = f"{below}/{entry.name}".lstrip("/")
        yield path
        if depth and entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path, depth - 1)


def _source(root: str, name: str, left_out: Ignored, digests: Mapping[int, bytes]) -> Source:
    place = inside(root, name)
    path = place[len(root) :].lstrip("/")
    if not os.path.isdir(place):
        return Source(root=root, path=path, name=name, hash=f"file:{file_hash(place, name, digests)}")
    hashes = sorted(file_hash(f"{root}/{each}", each, digests) for each in tree(root, path) if each not in left_out)
    return Source(root=root, path=path, name=name, hash=combined("dir", hashes))


def tree(root: str, path: str) -> Iterator[str]:
    """The folder itself (but for the root) and everything in it, by paths from the root."""
    if path:
        yield path
    for folder, folders, files in walk(f"{root}/{path}"):
        below = folder[len(root) :].strip("/")
        for name in sorted([*folders, *files]):
            yield f"{below}/{name}".lstrip("/")


def file_hash(place: str, name: str, digests: Mapping[int, bytes] = _NONE) -> str:
    """Of everything that a copy takes over of it, but its times. `digests`: as with `select`."""
    status = os.lstat(place)
    is_file = stat.S_ISREG(status.st_mode)
    link = os.readlink(place) if stat.S_ISLNK(status.st_mode) else ""
    try:
        capability = os.getxattr(place, "security.capability", follow_symlinks=False).hex()
    except OSError:
        capability = ""
    header = [name, status.st_mode, status.st_uid, status.st_gid, status.st_size if is_file else 0, link,
              status.st_rdev, capability]
    digest = hashlib.sha256(msgspec.json.encode(header))
    if is_file:
        digest.update(digests.get(status.st_ino) or _content_digest(place))
    return digest.hexdigest()


def _content_digest(place: str) -> bytes:
    digest, descriptor = hashlib.sha256(), os.open(place, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        while piece := os.read(descriptor, _PIECE_BYTES):
            digest.update(piece)
    finally:
        os.close(descriptor)
    return digest.digest()
