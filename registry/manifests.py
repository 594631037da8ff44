"""Manifests and indexes: which are taken, what they refer to, how they are described to others. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shoal.registry import names
from shoal.registry.errors import ManifestInvalid

LARGEST_BYTES = 4 << 20
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
IMAGES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    digest: str
    media_type: str = ""
    size: int = 0
    urls: list[str] | None = None


class Body(msgspec.Struct, frozen=True, rename="camel"):
    """What of a manifest or an index matters to a registry."""

    schema_version: int = 0
    media_type: str | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True):
    """`blobs` and `manifests` have to be there before it; `subject` need not."""

    media_type: str
    blobs: tuple[names.Digest, ...] = ()
    manifests: tuple[names.Digest, ...] = ()
    subject: names.Digest | None = None
    artifact_type: str = ""
    annotations: dict[str, str] = {}


_body = msgspec.json.Decoder(Body)


def parse(content: bytes, media_type: str) -> Manifest:
    """What a client pushes as `media_type`. Raises ManifestInvalid with what is wrong."""
    body = _decode(content)
    if media_type not in IMAGES + INDEXES:
        raise ManifestInvalid(f"a manifest's Content-Type is one of {', '.join(IMAGES + INDEXES)}; got {media_type!r}")
    if body.schema_version != 2:
        raise ManifestInvalid(f"schemaVersion is {body.schema_version}; it has to be 2")
    docker = media_type in (DOCKER_MANIFEST, DOCKER_LIST)
    if body.media_type != media_type and (docker or body.media_type):
        raise ManifestInvalid(f"mediaType is {body.media_type!r}, the Content-Type {media_type!r}")
    if media_type in IMAGES and (body.config is None or body.layers is None or body.manifests is not None):
        raise ManifestInvalid("a manifest has config and layers, and no manifests")
    if media_type in INDEXES and (body.manifests is None or body.config is not None or body.layers is not None):
        raise ManifestInvalid("an index has manifests, and neither config nor layers")
    return _manifest(body, media_type)


def stored(content: bytes) -> Manifest:
    """What lies in a store; its media type is found out of it. Raises ManifestInvalid where it is none."""
    body = _decode(content)
    if body.media_type:
        found = body.media_type
    elif body.schema_version == 1:
        found = SCHEMA_1
    else:
        found = OCI_INDEX if body.manifests is not None else OCI_MANIFEST
    if found == SCHEMA_1:
        return Manifest(SCHEMA_1, blobs=tuple(_old_layers(content)))
    return _manifest(body, found)


def _decode(content: bytes) -> Body:
    try:
        return _body.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestInvalid(f"the manifest cannot be read: {error}") from error


def _manifest(body: Body, media_type: str) -> Manifest:
    """Layers that lie elsewhere (they name URLs) need not be here."""
    layers = [each for each in body.layers or () if not each.urls]
    blobs = ([body.config] if body.config else []) + layers
    kind = body.artifact_type or (body.config.media_type if body.config else "")
    return Manifest(
        media_type, _digests(blobs), _digests(body.manifests or ()),
        _digest(body.subject) if body.subject else None, kind, body.annotations or {},
    )


def _digests(descriptors: Iterable[Descriptor]) -> tuple[names.Digest, ...]:
    return tuple(dict.fromkeys(_digest(each) for each in descriptors))


def _digest(descriptor: Descriptor) -> names.Digest:
    if not names.is_digest(descriptor.digest):
        raise ManifestInvalid(f"it refers to {descriptor.digest[:names.LONGEST_NAME]!r}, which is no digest")
    return names.Digest(descriptor.digest)


class _OldLayer(msgspec.Struct, frozen=True):
    blobSum: str  # noqa: N815 # the name on the wire


class _OldManifest(msgspec.Struct, frozen=True):
    fsLayers: list[_OldLayer] = []  # noqa: N815


_old = msgspec.json.Decoder(_OldManifest)


def _old_layers(content: bytes) -> Iterable[names.Digest]:
    """Of schema 1, which is no longer taken but may lie in an old store: collection must not lose its layers."""
    try:
        return dict.fromkeys(names.Digest(each.blobSum) for each in _old.decode(content).fsLayers
                             if names.is_digest(each.blobSum))
    except msgspec.DecodeError as error:
        raise ManifestInvalid(f"the manifest cannot be read: {error}") from error


class Referrer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One line of what the referrers API answers."""

    media_type: str
    digest: str
    size: int
    artifact_type: str = ""
    annotations: dict[str, str] = {}


def referrer(digest: names.Digest, size: int, manifest: Manifest) -> Referrer:
    return Referrer(manifest.media_type, digest, size, manifest.artifact_type, manifest.annotations)
