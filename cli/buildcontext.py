"""What a build is sent, as a tar: the files of a folder but for what its .dockerignore leaves out, or what is read.

Every file is root's, so that equal files give equal builds whoever sends them. What lies elsewhere is not sent: the
daemon fetches it.
"""

from __future__ import annotations

import io
import os
import posixpath
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from shoal.api.errors import InvalidArgument
from shoal.api.ignore import Ignored, read_patterns

DOCKERFILE, IGNORE = "Dockerfile", ".dockerignore"
OUTSIDE = ".dockerfile-from-elsewhere"
"""What a Dockerfile is called in a context that it does not lie in."""

STDIN = "-"
MAX_DOCKERFILE_BYTES = 4 << 20
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")

_ELSEWHERE = ("http://", "https://", "git://", "git@", "github.com/")


def is_remote(path: str) -> bool:
    """Whether it is a URL, or a repository as git knows them; a folder here is none, whatever it is called."""
    return path.startswith(_ELSEWHERE) and not Path(path).is_dir()


def pack(folder: Path, dockerfile: Path | None, target: IO[bytes]) -> str:
    """Write the context to `target`; the name of the Dockerfile in it. `dockerfile` None: the folder's own.

    Raises InvalidArgument where one of them is missing.
    """
    if not folder.is_dir():
        raise InvalidArgument(f"the build context {folder} is not a folder: write - for what is read")
    place = dockerfile or folder / DOCKERFILE
    if not place.is_file():
        raise InvalidArgument(f"there is no Dockerfile at {place}: say where it is with --file")
    inside = place.resolve().is_relative_to(folder.resolve())
    name = str(place.resolve().relative_to(folder.resolve())) if inside else OUTSIDE
    ignore = folder / IGNORE
    patterns = read_patterns(ignore.read_text(errors="replace")) if ignore.is_file() else []
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sent(folder, Ignored(patterns), {name, IGNORE}):
            archive.add(folder / path, path, recursive=False, filter=_of_root)
        if not inside:
            archive.add(place, OUTSIDE, recursive=False, filter=_of_root)
    return name


def pass_on(source: IO[bytes], dockerfile: Path | None, target: IO[bytes]) -> str:
    """Write the context that is read to `target`: it is a tar, compressed or not, or a Dockerfile alone.

    The name of the Dockerfile in it. Raises InvalidArgument.
    """
    begin = source.read(tarfile.BLOCKSIZE)
    if _is_archive(begin):
        target.write(begin)
        shutil.copyfileobj(source, target)
        return str(dockerfile or DOCKERFILE)
    if dockerfile is not None:
        raise InvalidArgument(f"what is read is no tar, so it is the Dockerfile, and so is {dockerfile}: leave one out")
    content = begin + read_dockerfile(source)
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(DOCKERFILE)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return DOCKERFILE


def read_dockerfile(source: IO[bytes]) -> bytes:
    """Raises InvalidArgument where there is more than a Dockerfile may have."""
    content = source.read(MAX_DOCKERFILE_BYTES + 1)
    if len(content) > MAX_DOCKERFILE_BYTES:
        raise InvalidArgument(f"what is read is no tar, and more than the {MAX_DOCKERFILE_BYTES} bytes of a Dockerfile")
    return content


def _is_archive(begin: bytes) -> bool:
    if begin.startswith(_COMPRESSED):
        return True
    try:
        tarfile.TarInfo.frombuf(begin, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def sent(folder: Path, left_out: Ignored, always: set[str]) -> Iterator[str]:
    """The paths to send, each folder before what is in it. `always`: also where they are left out."""
    for parent, folders, files in os.walk(folder):
        below = "" if parent == str(folder) else os.path.relpath(parent, folder)
        kept = []
        for name in sorted(folders):
            path = posixpath.join(below, name)
            needed = left_out.has_exceptions or any(each.startswith(path + "/") for each in always)
            if path not in left_out or needed:
                kept.append(name)
            if path not in left_out:
                yield path
        folders[:] = kept  # links to folders are not gone into
        for name in sorted(files):
            path = posixpath.join(below, name)
            if path not in left_out or path in always:
                yield path


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
