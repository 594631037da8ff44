"""The files that a build is given: unpacked in a folder of the build's own, and gone with it. Blocking."""

from __future__ import annotations

from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument, NotFound, Unprocessable
from shoal.api.ignore import Ignored, read_patterns
from shoal.engine.build import parser
from shoal.engine.build.instructions import Dockerfile, dockerfile
from shoal.engine.build.sources import inside
from shoal.engine.images.compression import decompressed
from shoal.engine.storage.driver import Readable
from shoal.engine.storage.unpack import Digests, unpack

DOCKERFILE, IGNORE = "Dockerfile", ".dockerignore"


class Context(msgspec.Struct, frozen=True):
    """`digests`: of the files there whose content was seen on the way; nothing changes them while they are needed."""

    root: Path
    digests: Digests = {}


def open_archive(archive: Readable, root: Path) -> Context:
    """Unpack a context (a tar, compressed or not). Raises InvalidArgument."""
    root.mkdir(mode=0o700)
    plain, _ = decompressed(archive)
    digests: Digests = {}
    unpack(plain, root, digests)
    return Context(root, digests)


def open_file(archive: Path, root: Path) -> Context:
    with archive.open("rb") as file:
        return open_archive(file, root)


def read_dockerfile(root: Path, name: str) -> Dockerfile:
    """The Dockerfile of a context; what .dockerignore leaves out of the files is taken away then.

    Raises InvalidArgument, naming what is wrong in it.
    """
    place = _find(root, name)
    if place.stat().st_size > parser.MAX_DOCKERFILE_BYTES:
        raise InvalidArgument(f"{name} is larger than {parser.MAX_DOCKERFILE_BYTES} bytes")
    file = read_text(place.read_bytes(), name)
    _leave_out(root, place)
    return file


def read_text(content: bytes, name: str) -> Dockerfile:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"failed to parse {name}: it is not UTF-8 text") from None
    return dockerfile(parser.parse(text, name))


def _find(root: Path, name: str) -> Path:
    for candidate in (name, name.lower()) if name == DOCKERFILE else (name,):
        place = Path(inside(str(root), candidate))
        if place.is_file():
            return place
    raise NotDockerfile(f"Cannot locate specified Dockerfile: {name}")


class NotDockerfile(NotFound):
    status = 500  # as dockerd answers


def _leave_out(root: Path, dockerfile: Path) -> None:
    """As dockerd has it: the client has left everything else out; these two it had to send."""
    ignore = Path(inside(str(root), IGNORE))
    if not ignore.is_file():
        return
    if ignore.stat().st_size > parser.MAX_DOCKERFILE_BYTES:
        raise Unprocessable(f"{IGNORE} is too large")
    left_out = Ignored(read_patterns(ignore.read_text(errors="replace")))
    for place in (ignore, dockerfile):
        if str(place.relative_to(root)) in left_out:
            place.unlink()
