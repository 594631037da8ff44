"""`docker save`: images as one tar stream that `load` of any engine takes.

Layers go out as they came in (their blobs), so nothing is packed again.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from shoal.api import reference
from shoal.engine.images.config import Image
from shoal.engine.images.images import Images

_CHUNK_BYTES = 1 << 20
_BLOCK = 512


def save(images: Images, names: list[str]) -> AsyncIterator[bytes]:
    """The archive, piece by piece. Raises NotFound at once for a name that is not here."""
    chosen: dict[str, tuple[Image, list[str]]] = {}
    for name in names:
        image = images.resolve(name)
        tags = chosen.setdefault(image.id, (image, []))[1]
        if reference.as_id_prefix(name) is None:
            tags.append(reference.parse(name).familiar)
    return _stream(_pieces(images, list(chosen.values())))


async def _stream(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(next, pieces, b""):
        yield chunk


def _pieces(images: Images, chosen: list[tuple[Image, list[str]]]) -> Iterator[bytes]:
    manifest = []
    written: set[str] = set()
    for image, tags in chosen:
        layers = images.record(image.id).layers
        manifest.append(
            {
                "Config": _member(image.id),
                "RepoTags": tags or None,
                "Layers": [_member(layer) for layer in layers],
            }
        )
        for digest in (image.id, *layers):
            if digest not in written:
                written.add(digest)
                yield from _file(_member(digest), images.blobs.path(digest))
    content = msgspec.json.encode(manifest)
    yield _header("manifest.json", len(content)) + content + _padding(len(content))
    yield bytes(2 * _BLOCK)


def _member(digest: str) -> str:
    return "blobs/sha256/" + digest.removeprefix("sha256:")


def _file(name: str, path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        size = source.seek(0, io.SEEK_END)
        source.seek(0)
        yield _header(name, size)
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk
    if padding := _padding(size):
        yield padding


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.USTAR_FORMAT if size < 8 << 30 else tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
