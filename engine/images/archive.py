"""Archives of images: what `docker save` writes, and OCI layouts. Read only.

An archive is on disk and is read at random; nothing of it is extracted by name.
Sources: OCI image-layout; the `manifest.json` of docker-archive files.
"""

from __future__ import annotations

import platform
import posixpath
import tarfile
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from shoal.api import reference
from shoal.api.errors import InvalidArgument
from shoal.engine.storage.unpack import BoundedTarInfo

MAX_MEMBERS = 100_000
MAX_DOCUMENT_BYTES = 8 << 20
_MAX_LINKS = 8

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""The kernel's word for a machine → OCI's."""


def host_architecture() -> str:
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


class ArchivedImage(msgspec.Struct, frozen=True):
    """One image of an archive: its configuration, and where its layers are."""

    config: bytes
    layers: tuple[str, ...]  # member names, lowest first
    layer_digests: tuple[str, ...]  # as the manifest names them; "" where it does not
    tags: tuple[reference.Reference, ...]


class _DockerManifest(msgspec.Struct):
    config: str = msgspec.field(name="Config")
    layers: list[str] | None = msgspec.field(name="Layers", default=None)
    repo_tags: list[str] | None = msgspec.field(name="RepoTags", default=None)


class _Platform(msgspec.Struct):
    architecture: str = ""
    os: str = ""


class _Descriptor(msgspec.Struct, rename={"media_type": "mediaType"}):
    digest: str
    media_type: str = ""
    annotations: dict[str, str] | None = None
    platform: _Platform | None = None


class _Index(msgspec.Struct):
    manifests: list[_Descriptor] = []


class _Manifest(msgspec.Struct):
    config: _Descriptor | None = None
    layers: list[_Descriptor] = []
    manifests: list[_Descriptor] | None = None  # an index within the index


# Made here: two threads that decode a type for the first time, both at once, crash msgspec 0.22.
_docker_manifests = msgspec.json.Decoder(list[_DockerManifest])
_index = msgspec.json.Decoder(_Index)
_manifest = msgspec.json.Decoder(_Manifest)


class ImageArchive:
    """A tar file of images, open. Blocking."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, mode="r:", tarinfo=BoundedTarInfo)  # noqa: SIM115 (closed by close)
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in self._tar:
            if len(self._members) >= MAX_MEMBERS:
                raise InvalidArgument(f"archive has more than {MAX_MEMBERS} members")
            self._members[posixpath.normpath(member.name)] = member

    def close(self) -> None:
        self._tar.close()

    def images(self) -> list[ArchivedImage]:
        """Every image of the archive. Raises InvalidArgument where it is neither kind of archive."""
        if "manifest.json" in self._members:
            return self._docker_images()
        if "index.json" in self._members:
            return self._oci_images()
        raise InvalidArgument("invalid archive: it has neither a manifest.json nor an index.json")

    def open(self, name: str) -> IO[bytes]:
        """The content of a member; links within the archive are followed."""
        name = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if member is None:
                break
            if member.issym():
                name = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                name = posixpath.normpath(member.linkname)
            elif stream := self._tar.extractfile(member):
                return stream
            else:
                break
        raise InvalidArgument(f"invalid archive: {name} is missing")

    def _document(self, name: str) -> bytes:
        with self.open(name) as stream:
            content = stream.read(MAX_DOCUMENT_BYTES + 1)
        if len(content) > MAX_DOCUMENT_BYTES:
            raise InvalidArgument(f"invalid archive: {name} is larger than {MAX_DOCUMENT_BYTES} bytes")
        return content

    def _docker_images(self) -> list[ArchivedImage]:
        return [
            ArchivedImage(
                config=self._document(entry.config),
                layers=tuple(entry.layers or ()),
                layer_digests=("",) * len(entry.layers or ()),
                tags=tuple(reference.parse(tag) for tag in entry.repo_tags or ()),
            )
            for entry in _decode(self._document("manifest.json"), _docker_manifests, "manifest.json")
        ]

    def _oci_images(self) -> list[ArchivedImage]:
        images = []
        for descriptor in _decode(self._document("index.json"), _index, "index.json").manifests:
            manifest = self._manifest(descriptor)
            if manifest.manifests is not None:
                manifest = self._manifest(_for_this_host(manifest.manifests))
            if manifest.config is None:
                raise InvalidArgument(f"invalid archive: manifest {descriptor.digest} has no configuration")
            images.append(
                ArchivedImage(
                    config=self._document(_blob(manifest.config.digest)),
                    layers=tuple(_blob(layer.digest) for layer in manifest.layers),
                    layer_digests=tuple(layer.digest for layer in manifest.layers),
                    tags=_oci_tags(descriptor.annotations or {}),
                )
            )
        return images

    def _manifest(self, descriptor: _Descriptor) -> _Manifest:
        name = _blob(descriptor.digest)
        return _decode(self._document(name), _manifest, name)


def _for_this_host(manifests: list[_Descriptor]) -> _Descriptor:
    wanted = host_architecture()
    for descriptor in manifests:
        if descriptor.platform and (descriptor.platform.os, descriptor.platform.architecture) == (
            "linux",
            wanted,
        ):
            return descriptor
    raise InvalidArgument(f"archive has no image for linux/{wanted}")


def _oci_tags(annotations: dict[str, str]) -> tuple[reference.Reference, ...]:
    name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name")
    # The plain annotation may be a bare tag, which names no repository.
    return (reference.parse(name),) if name and ("/" in name or ":" in name) else ()


def _blob(digest: str) -> str:
    if not reference.is_digest(digest):
        raise InvalidArgument(f"invalid archive: unsupported digest {digest!r}")
    return "blobs/sha256/" + digest.removeprefix("sha256:")


_T = TypeVar("_T")


def _decode(raw: bytes, decoder: msgspec.json.Decoder[_T], name: str) -> _T:
    try:
        return decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid archive: {name}: {error}") from error
