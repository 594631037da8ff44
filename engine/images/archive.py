"""Archives of images: what `docker save` writes, and OCI layouts. Read only.

An archive is on disk and is read at random; nothing of it is extracted by name.
Sources: OCI image-layout; the `manifest.json` of docker-archive files.
"""

from __future__ import annotations

import os
import platform
import posixpath
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar, cast

import msgspec

from shoal.api import reference
from shoal.api.errors import InvalidArgument
from shoal.engine.images.blobs import digest_of
from shoal.engine.images.distribution.manifests import Descriptor, Manifest, Platform, choose, parse_manifest
from shoal.engine.storage.tar import open_file

MAX_MEMBERS = 100_000
MAX_DOCUMENT_BYTES = 8 << 20
_MAX_LINKS = 8
_ATTESTATION = Platform("unknown", "unknown")
"""The platform of what builds say of themselves: no image."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""The kernel's word for a machine → OCI's."""


def host_architecture() -> str:
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


class ArchivedLayer(msgspec.Struct, frozen=True):
    """Where a layer is, and what the archive says of it: "" and -1 where it says nothing."""

    member: str
    digest: str = ""
    size: int = -1


class ArchivedImage(msgspec.Struct, frozen=True):
    """One image of an archive: its configuration, where its layers are (lowest first), its manifests."""

    config: bytes
    layers: tuple[ArchivedLayer, ...]
    tags: tuple[reference.Reference, ...]
    manifests: tuple[Manifest, ...] = ()


class _DockerManifest(msgspec.Struct):
    config: str = msgspec.field(name="Config")
    layers: list[str] | None = msgspec.field(name="Layers", default=None)
    repo_tags: list[str] | None = msgspec.field(name="RepoTags", default=None)


class _Named(msgspec.Struct):
    """A descriptor of index.json, for its annotations."""

    annotations: dict[str, str] | None = None


class _Names(msgspec.Struct):
    manifests: list[_Named] = []


# Made here: two threads that decode a type for the first time, both at once, crash msgspec 0.22.
_docker_manifests = msgspec.json.Decoder(list[_DockerManifest])
_names = msgspec.json.Decoder(_Names)


class Part:
    """A piece of a file, read by itself: threads may read several at once."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self.size = size
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        """Raises InvalidArgument where the file ends before the piece does."""
        left = self.size - self.position
        wanted = left if size < 0 else min(size, left)
        data = os.pread(self._descriptor, wanted, self._start + self.position)
        if wanted and not data:
            raise InvalidArgument("invalid tar archive: unexpected end of data")
        self.position += len(data)
        return data


class ImageArchive:
    """A tar file of images, open. Blocking."""

    def __init__(self, path: Path) -> None:
        self._tar = open_file(path)
        self._descriptor = cast("IO[bytes]", self._tar.fileobj).fileno()
        self._members: dict[str, tarfile.TarInfo] = {}
        for count, member in enumerate(self._tar):
            if count >= MAX_MEMBERS:
                raise InvalidArgument(f"archive has more than {MAX_MEMBERS} members")
            if member.issparse():
                raise InvalidArgument(f"archive member {member.name!r} is sparse")
            self._members[posixpath.normpath(member.name)] = member

    def close(self) -> None:
        self._tar.close()

    def images(self, wanted: Platform | None = None) -> list[ArchivedImage]:
        """Every image of the archive; of several for many platforms the one for `wanted`, or else for this host.

        Raises InvalidArgument where it is neither kind of archive.
        """
        if "manifest.json" in self._members:
            return self._docker_images()
        if "index.json" in self._members:
            return list(self._oci_images(wanted or Platform("linux", host_architecture())))
        raise InvalidArgument("invalid archive: it has neither a manifest.json nor an index.json")

    def open(self, name: str) -> Part:
        """The content of a member; links within the archive are followed. Not for longer than the archive is open."""
        name = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if member is None:
                break
            if member.issym():
                name = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                name = posixpath.normpath(member.linkname)
            elif member.isreg():
                return Part(self._descriptor, member.offset_data, member.size)
            else:
                break
        raise InvalidArgument(f"invalid archive: {name!r} is missing")

    def _document(self, name: str, described: Descriptor | None = None) -> bytes:
        content = self.open(name).read(MAX_DOCUMENT_BYTES + 1)
        if len(content) > MAX_DOCUMENT_BYTES:
            raise InvalidArgument(f"invalid archive: {name!r} is larger than {MAX_DOCUMENT_BYTES} bytes")
        if described is not None and len(content) != described.size:
            raise InvalidArgument(f"invalid archive: {name!r} has {len(content)} bytes, not {described.size}")
        return content

    # --- what `docker save` writes ---

    def _docker_images(self) -> list[ArchivedImage]:
        entries = _decode(self._document("manifest.json"), _docker_manifests, "manifest.json")
        manifests = self._manifests_beside()
        images = []
        for entry in entries:
            config = self._document(entry.config)
            images.append(ArchivedImage(
                config=config,
                layers=tuple(ArchivedLayer(layer) for layer in entry.layers or ()),
                tags=tuple(reference.parse(tag) for tag in entry.repo_tags or ()),
                manifests=tuple(one for one in manifests if one.config is not None
                                and one.config.digest == digest_of(config))))
        return images

    def _manifests_beside(self) -> list[Manifest]:
        """Those of an OCI layout in the same archive. It is the other file that says which images there are."""
        found: list[Manifest] = []
        with suppress(InvalidArgument):
            for one in self._index().manifests or ():
                found.append(self._manifest(one))
        return found

    # --- OCI layouts ---

    def _index(self) -> Manifest:
        return parse_manifest(self._document("index.json"))

    def _oci_images(self, wanted: Platform) -> Iterator[ArchivedImage]:
        index = self._index()
        names = _decode(index.raw, _names, "index.json").manifests
        for descriptor, named in zip(index.manifests or (), names, strict=False):
            if descriptor.platform == _ATTESTATION:
                continue
            manifest = self._manifest(descriptor)
            if manifest.manifests is not None:
                manifest = self._manifest(choose(manifest.manifests, wanted, descriptor.digest))
            if manifest.config is None:
                raise InvalidArgument(f"invalid archive: manifest {descriptor.digest} has no configuration")
            yield ArchivedImage(
                config=self._document(_blob(manifest.config.digest), manifest.config),
                layers=tuple(ArchivedLayer(_blob(layer.digest), layer.digest, layer.size)
                             for layer in manifest.layers),
                tags=oci_names(named.annotations or {}),
                manifests=(manifest,))

    def _manifest(self, descriptor: Descriptor) -> Manifest:
        raw = self._document(_blob(descriptor.digest), descriptor)
        return parse_manifest(raw, descriptor.media_type, descriptor.digest)


def oci_names(annotations: dict[str, str]) -> tuple[reference.Reference, ...]:
    """What an image of an OCI layout is called: nothing, where that is no name of a repository."""
    name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name") or ""
    if "/" in name or ":" in name:  # else it may be a bare tag
        with suppress(InvalidArgument):
            return (reference.parse(name),)
    return ()


def _blob(digest: str) -> str:
    if not reference.is_digest(digest):
        raise InvalidArgument(f"invalid archive: unsupported digest {digest!r}")
    return "blobs/sha256/" + digest.removeprefix("sha256:")


_T = TypeVar("_T")


def _decode(raw: bytes, decoder: msgspec.json.Decoder[_T], name: str) -> _T:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidArgument(f"invalid archive: {name}: {error}") from error
