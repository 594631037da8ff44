"""Manifests and indexes of images: their types, what they name, which one is for a platform. Pure.

Sources: OCI image specification, manifest.md and image-index.md; Docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from shoal.api.errors import InvalidArgument, NotFound
from shoal.api.reference import is_digest

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_LAYERS = {"": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
"""By how a layer is packed; there is no type for other ways."""

ACCEPTED = (DOCKER_MANIFEST, DOCKER_LIST, OCI_INDEX, OCI_MANIFEST)

MAX_MANIFEST_BYTES = 4 << 20
MAX_LAYERS = 1000
MAX_SIZE = 1 << 50


class Platform(msgspec.Struct, frozen=True):
    os: str = "linux"
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, rename={"media_type": "mediaType"}):
    """Content by digest, with its length."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    urls: tuple[str, ...] | None = None


class Manifest(msgspec.Struct, frozen=True):
    """An image's manifest, or an index of such (then `manifests` is not None)."""

    raw: bytes
    media_type: str
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] | None = None

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.raw).hexdigest()


class _Document(msgspec.Struct, rename={"media_type": "mediaType", "schema": "schemaVersion"}):
    schema: int = 0
    media_type: str = ""
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None


_decoder = msgspec.json.Decoder(_Document)  # made here: archives are read in threads


def parse_manifest(raw: bytes, content_type: str = "", expected: str = "") -> Manifest:
    """What `raw` says. Raises InvalidArgument where it is not well-formed or its digest is not the expected one."""
    if expected and (got := "sha256:" + hashlib.sha256(raw).hexdigest()) != expected:
        raise InvalidArgument(f"manifest verification failed for digest {expected}: got {got}")
    try:
        document = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"invalid manifest: {error}") from error
    if document.schema == 1:
        raise InvalidArgument("manifests of schema version 1 are no longer supported: push the image again with a "
                              "current tool")
    if document.schema != 2 or (document.config is None) == (document.manifests is None):
        raise InvalidArgument("invalid manifest: it is neither an image's nor an index")
    media_type = document.media_type or content_type.partition(";")[0].strip()
    if media_type not in ACCEPTED:
        media_type = OCI_INDEX if document.manifests is not None else OCI_MANIFEST
    layers = document.layers or ()
    named = (*layers, *(document.manifests or ()), *((document.config,) if document.config else ()))
    if len(named) > MAX_LAYERS:
        raise InvalidArgument(f"invalid manifest: it names {len(named)} blobs, at most {MAX_LAYERS} are allowed")
    for one in named:
        if not is_digest(one.digest) or not 0 <= one.size < MAX_SIZE:
            raise InvalidArgument(f"invalid manifest: unusable descriptor {one.digest!r} of {one.size} bytes")
    return Manifest(raw, media_type, document.config, layers, document.manifests)


def parse_platform(text: str, host: Platform) -> Platform:
    """OS[/ARCH[/VARIANT]] or ARCH; what is left out is the host's. Raises InvalidArgument."""
    parts = [part.lower() for part in text.split("/")] if text else []
    if len(parts) > 3 or any(not part.replace("-", "").replace("_", "").isalnum() for part in parts):
        raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
    if not parts:
        return host
    if len(parts) == 1 and parts[0] not in _SYSTEMS:
        if _SAME.get(parts[0], parts[0]) not in _ARCHITECTURES:
            raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
        parts = [host.os, *parts]
    architecture = _SAME.get(parts[1], parts[1]) if len(parts) > 1 else host.architecture
    variant = parts[2] if len(parts) > 2 else _IMPLIED.get(parts[1], "") if len(parts) > 1 else host.variant
    return Platform(parts[0], architecture, variant)


# What one word may be, as containerd has it (platforms, database.go).
_SYSTEMS = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "nacl", "netbsd",
    "openbsd", "plan9", "solaris", "windows", "zos"})
_ARCHITECTURES = frozenset({
    "386", "amd64", "amd64p32", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64", "mips64le",
    "mips64p32", "mips64p32le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64",
    "wasm"})
_SAME = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}
_IMPLIED = {"armhf": "v7", "armel": "v6"}
_NEWEST_ARM = ("v8", "v7", "v6", "v5")


def choose(manifests: tuple[Descriptor, ...], wanted: Platform, name: str) -> Descriptor:
    """The manifest of an index for a platform: the best variant that runs there. Raises NotFound."""
    fitting = [one for one in manifests if one.platform is not None
               and (one.platform.os, one.platform.architecture) == (wanted.os, wanted.architecture)]
    for variant in _variants(wanted):
        for one in fitting:
            if one.platform is not None and one.platform.variant == variant:
                return one
    raise NotFound(f"no matching manifest for {wanted} in the manifest list entries of {name}")


def _variants(wanted: Platform) -> list[str]:
    """Those that run on the platform, the best first."""
    if wanted.architecture == "arm":
        first = _NEWEST_ARM.index(wanted.variant or "v7") if (wanted.variant or "v7") in _NEWEST_ARM else 0
        return [wanted.variant, *_NEWEST_ARM[first:], ""]
    if wanted.architecture == "arm64":
        return [wanted.variant, "", "v8"]
    return [wanted.variant, "", "v1"] if wanted.architecture == "amd64" else [wanted.variant, ""]


def build_manifest(config: Descriptor, layers: list[Descriptor]) -> Manifest:
    """A manifest of Docker's schema 2, or OCI's where the configuration is; the same bytes for the same parts."""
    def shown(one: Descriptor) -> dict[str, Any]:
        return {"mediaType": one.media_type, "size": one.size, "digest": one.digest}

    kind = OCI_MANIFEST if config.media_type == OCI_CONFIG else DOCKER_MANIFEST
    raw = msgspec.json.format(msgspec.json.encode({
        "schemaVersion": 2, "mediaType": kind, "config": shown(config),
        "layers": [shown(layer) for layer in layers]}), indent=3)
    return Manifest(raw, kind, config, tuple(layers))
