"""`docker save`: images as one tar stream, an OCI layout and a docker-archive at once, that any engine loads.

    blobs/sha256/…    configurations, manifests, and layers as they came: nothing is packed again
    index.json        the OCI layout's: every name of every image, and its manifest
    manifest.json     the docker-archive's: configuration, names and layers of every image
    oci-layout, repositories

An image has the manifest that it came with, or one that is the same each time. Content is held while it is read.
Source: moby, daemon/internal/image/tarexport/save.go.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from shoal.api import reference
from shoal.api.errors import NotFound
from shoal.api.reference import Reference
from shoal.engine.images.blobs import CHUNK_BYTES, Blobs
from shoal.engine.images.compression import decompressed
from shoal.engine.images.config import Image
from shoal.engine.images.distribution.manifests import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYERS,
    Descriptor,
    Manifest,
    Platform,
    build_manifest,
    parse_manifest,
)
from shoal.engine.images.images import Images
from shoal.engine.images.importer import is_for
from shoal.engine.images.index import ImageRecord

_BLOCK = 512


class _Chosen(msgspec.Struct, frozen=True):
    image: Image
    record: ImageRecord
    names: tuple[Reference, ...] = ()


def save(images: Images, names: list[str], wanted: Platform | None = None) -> AsyncGenerator[bytes, None]:
    """The archive, piece by piece. A repository without a tag stands for all its tags.

    Raises NotFound at once for a name that is not here, or not for the platform that is wanted.
    """
    chosen: dict[str, _Chosen] = {}
    for name in names:
        for image, called in _meant(images, name):
            if wanted is not None and not is_for(image, wanted):
                raise NotFound(f"no suitable export target found for platform {wanted}")
            known = chosen.get(image.id) or _Chosen(image, images.record(image.id))
            both = tuple(dict.fromkeys((*known.names, *called)))
            chosen[image.id] = msgspec.structs.replace(known, names=both)
    return _stream(images, list(chosen.values()))


def _meant(images: Images, name: str) -> list[tuple[Image, tuple[Reference, ...]]]:
    prefix = reference.as_id_prefix(name)
    is_repository = reference.names_repository(name) and len(prefix or "") < 64
    if is_repository and (tags := images.catalog.names_in(reference.parse(name).name)):
        return [(images.resolve(str(tag)), (tag,)) for tag in tags]
    image = images.resolve(name)
    called = None if prefix is not None else reference.parse(name)
    return [(image, (called,) if called and not called.digest else ())]


async def _stream(images: Images, chosen: list[_Chosen]) -> AsyncGenerator[bytes, None]:
    async with images.importing():  # nothing of them goes meanwhile
        pieces = _pieces(images.blobs, chosen)
        while chunk := await asyncio.to_thread(next, pieces, b""):
            yield chunk


def _pieces(blobs: Blobs, chosen: list[_Chosen]) -> Iterator[bytes]:
    """The tar, in pieces that are not empty. Blocking."""
    written: set[str] = set()
    index: list[dict[str, Any]] = []
    listed: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    yield _header("blobs", kind=tarfile.DIRTYPE)
    yield _header("blobs/sha256", kind=tarfile.DIRTYPE)
    for one in chosen:
        manifest = _manifest(blobs, one)
        yield from _content(manifest.digest, manifest.raw, written)
        yield from _content(one.image.id, blobs.read(one.image.id), written)
        for layer, blob in zip(manifest.layers, one.record.layers, strict=True):
            yield from _layer(layer, blobs.path(blob), written, as_is=layer.digest == blob)
        index += _index_entries(manifest, one.names)
        listed.append(_listed(manifest, one))
        for name in one.names if one.image.layers else ():
            repositories.setdefault(name.familiar_name, {})[name.tag] = one.image.layers[-1].removeprefix("sha256:")
    yield from _document("index.json", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index})
    yield from _document("manifest.json", listed)
    yield from _document("oci-layout", {"imageLayoutVersion": "1.0.0"})
    if repositories:
        yield from _document("repositories", repositories)
    yield bytes(2 * _BLOCK)


# --- manifests ---


def _manifest(blobs: Blobs, one: _Chosen) -> Manifest:
    """What it came with, or OCI's over its layers as they are here."""
    if one.record.manifest:
        return parse_manifest(blobs.read(one.record.manifest))
    config = Descriptor(one.image.id, blobs.size(one.image.id), OCI_CONFIG)
    return build_manifest(config, [_described(blobs.path(blob), blob, diff_id)
                                   for blob, diff_id in zip(one.record.layers, one.image.layers, strict=True)])


def _described(path: Path, blob: str, diff_id: str) -> Descriptor:
    """A layer as it goes out: compressed in a way that OCI has no type for, it goes plain."""
    with path.open("rb") as source:
        plain, kind = decompressed(source)
        if kind in OCI_LAYERS:
            return Descriptor(blob, path.stat().st_size, OCI_LAYERS[kind])
        return Descriptor(diff_id, sum(map(len, _chunks(plain))), OCI_LAYER)


def _shown(one: Descriptor) -> dict[str, Any]:
    return {"mediaType": one.media_type, "digest": one.digest, "size": one.size}


def _index_entries(manifest: Manifest, names: tuple[Reference, ...]) -> list[dict[str, Any]]:
    entry = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": len(manifest.raw)}
    return [{**entry, "annotations": {"io.containerd.image.name": str(name),
                                      "org.opencontainers.image.ref.name": name.tag}} for name in names] or [entry]


def _listed(manifest: Manifest, one: _Chosen) -> dict[str, Any]:
    return {
        "Config": _member(one.image.id),
        "RepoTags": [name.familiar for name in one.names] or None,
        "Layers": [_member(layer.digest) for layer in manifest.layers],
        "LayerSources": {diff_id: _shown(layer)
                         for diff_id, layer in zip(one.image.layers, manifest.layers, strict=True)},
    }


# --- tar ---


def _member(digest: str) -> str:
    return "blobs/sha256/" + digest.removeprefix("sha256:")


def _layer(layer: Descriptor, path: Path, written: set[str], *, as_is: bool) -> Iterator[bytes]:
    if layer.digest in written:
        return
    written.add(layer.digest)
    with path.open("rb") as source:
        yield _header(_member(layer.digest), layer.size)
        yield from _chunks(source if as_is else decompressed(source)[0])
    yield from _padding(layer.size)


def _content(digest: str, content: bytes, written: set[str]) -> Iterator[bytes]:
    if digest not in written:
        written.add(digest)
        yield _header(_member(digest), len(content))
        yield content
        yield from _padding(len(content))


def _document(name: str, value: Any) -> Iterator[bytes]:
    content = msgspec.json.encode(value)
    yield _header(name, len(content))
    yield content
    yield from _padding(len(content))


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def _header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.mode = size, kind, 0o755 if kind == tarfile.DIRTYPE else 0o644
    return member.tobuf(tarfile.USTAR_FORMAT if size < 8 << 30 else tarfile.PAX_FORMAT)


def _padding(size: int) -> Iterator[bytes]:
    if size % _BLOCK:
        yield bytes(-size % _BLOCK)
