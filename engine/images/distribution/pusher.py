"""Images from the store to registries: with the manifest that they came with where there is one.

A layer is compressed only where it is here plain; then always to the same bytes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from shoal.api.errors import NotFound, ShoalError, Unauthorized
from shoal.api.reference import Reference
from shoal.engine.images.blobs import BlobWriter
from shoal.engine.images.compression import compress, decompressed
from shoal.engine.images.config import Image
from shoal.engine.images.distribution.attempts import retried
from shoal.engine.images.distribution.challenges import ANONYMOUS, Credentials
from shoal.engine.images.distribution.endpoints import NO_RULES, RegistryRules
from shoal.engine.images.distribution.manifests import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    Descriptor,
    Manifest,
    Platform,
    build_manifest,
    parse_manifest,
)
from shoal.engine.images.distribution.progress import Sink, Step, ignore
from shoal.engine.images.distribution.registry import CERTIFICATES, FAILURES, Refused, Registry, first_of
from shoal.engine.images.distribution.repository import Repository
from shoal.engine.images.distribution.retry import PATIENT, RetryPolicy
from shoal.engine.images.distribution.upload import SENT_BYTES, is_there, mounted, upload
from shoal.engine.images.images import Images
from shoal.engine.images.importer import Imported, check_platform

_MOST_SOURCES = 3
"""Repositories that a layer is asked to be mounted from."""

_MOST_PACKED = 10_000
"""Layers of which it is remembered what they are when packed."""


class Sent(msgspec.Struct, frozen=True):
    """A blob as the registry has it. `kind`: how a layer is compressed."""

    digest: str
    size: int
    kind: str


class Pusher:
    """One for a host: the bound of parallel uploads is of all its pushes."""

    def __init__(self, images: Images, rules: RegistryRules = NO_RULES, *, uploads: int = 5,
                 certificates: Path = CERTIFICATES, policy: RetryPolicy = PATIENT,
                 sent_bytes: int = SENT_BYTES) -> None:
        self._images = images
        self._blobs = images.blobs
        self._packed: dict[str, Sent] = {}
        self._rules = rules
        self._certificates = certificates
        self._policy = policy
        self._sent_bytes = sent_bytes
        self._uploads = asyncio.Semaphore(uploads)

    async def push(self, name: Reference, credentials: Credentials = ANONYMOUS, progress: Sink = ignore, *,
                   all_tags: bool = False, platform: Platform | None = None) -> None:
        """Send the image, or every image with a tag of that repository. Raises NotFound, Unauthorized, Refused.

        `platform`: nothing is sent where one of them is for another.
        """
        names = [name] if not all_tags else self._images.catalog.names_in(name.name)
        if not names or not all(self._images.has(str(one)) for one in names):
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
        for one in names:
            check_platform(self._images.resolve(str(one)), str(one), platform)
        progress({"status": f"The push refers to repository [{name.name}]"})
        async with Registry(name.domain, self._rules, credentials, certificates=self._certificates) as registry:
            repository = Repository(registry, name.path, self._policy, push=True)
            try:
                for one in names:
                    await self._one(repository, one, progress)
            except Refused as error:
                raise Unauthorized(error.message) if error.http_status == 401 else error from error

    async def _one(self, repository: Repository, name: Reference, progress: Sink) -> None:
        image = self._images.resolve(str(name))
        steps = [Step(progress, diff_id, time.monotonic) for diff_id in image.layers]
        for step in reversed(steps):
            step.say("Preparing")
        async with self._images.importing():
            record = self._images.record(image.id)
            kept = await asyncio.to_thread(self._blobs.read, record.manifest) if record.manifest else b""
            sent = await self._layers(repository, name, record.layers, steps, as_is=bool(kept))
            config = Sent(image.id, self._blobs.size(image.id), "")
            await self._blob(repository, config, self._blobs.path(image.id), Step(ignore, image.id, time.monotonic),
                             self._sources(name, image.id))
            manifest = parse_manifest(kept) if kept else _described(config, sent)
            await self._manifest(repository, name, manifest)
            await self._remember(image, name, manifest)
        digest, size = manifest.digest, len(manifest.raw)
        progress({"status": f"{name.tag}: digest: {digest} size: {size}"})
        progress({"progressDetail": {}, "aux": {"Tag": name.tag, "Digest": digest, "Size": size}})
        self._images.emit("push", name.familiar, {"name": name.familiar_name})

    async def _layers(self, repository: Repository, name: Reference, layers: Sequence[str], steps: list[Step], *,
                      as_is: bool) -> list[Sent]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._layer(repository, name, *one, as_is=as_is))
                         for one in zip(layers, steps, strict=True)]
        except* (ShoalError, *FAILURES) as errors:
            raise first_of(errors) from errors
        return [task.result() for task in tasks]

    async def _layer(self, repository: Repository, name: Reference, blob: str, step: Step, *, as_is: bool) -> Sent:
        """Have the registry have the layer; packed where it is here plain, unless `as_is`."""
        if self._uploads.locked():
            step.say("Waiting")
        async with self._uploads:
            kind, path = await asyncio.to_thread(_kind, self._blobs.path(blob)), self._blobs.path(blob)
            sources = self._sources(name, blob)  # where it was sent packed it is to the same bytes
            if as_is or kind in ("gzip", "zstd"):
                sent = Sent(blob, self._blobs.size(blob), kind)
                await self._blob(repository, sent, path, step, sources)
                return sent
            known = self._packed.get(blob)
            if known is not None and await is_there(repository, known.digest):
                step.say("Layer already exists")
                return known
            scratch = self._blobs.scratch / os.urandom(8).hex()
            try:
                packed = self._packed[blob] = await asyncio.to_thread(_pack, path, scratch)
                await self._blob(repository, packed, scratch, step, sources)
            finally:
                scratch.unlink(missing_ok=True)
                while len(self._packed) > _MOST_PACKED:
                    del self._packed[next(iter(self._packed))]
            return packed

    async def _blob(self, repository: Repository, blob: Sent, path: Path, step: Step, sources: list[str]) -> None:
        if await is_there(repository, blob.digest):
            step.say("Layer already exists")
            return
        source, begun = await mounted(repository, blob.digest, sources)
        if source:
            step.say(f"Mounted from {source}")
        else:
            await upload(repository, blob.digest, path, lambda done: step.count("Pushing", done, blob.size),
                         sent_bytes=self._sent_bytes, begun=begun)
            step.say("Pushed")

    def _sources(self, name: Reference, blob: str) -> list[str]:
        """Other repositories of that registry that had the blob when an image came from there, or went there."""
        found = self._images.catalog.repositories_of(blob)
        others = (one for one in found if one.domain == name.domain and one.path != name.path)
        return list(dict.fromkeys(one.path for one in others))[:_MOST_SOURCES]

    async def _manifest(self, repository: Repository, name: Reference, manifest: Manifest) -> None:
        async def put() -> None:
            async with repository.registry.request(
                    "PUT", f"{repository.path}/manifests/{name.tag}", scope=repository.scope, data=manifest.raw,
                    headers={"Content-Type": manifest.media_type}, expect=(200, 201, 202)):
                pass

        await retried(self._policy, put)

    async def _remember(self, image: Image, name: Reference, manifest: Manifest) -> None:
        """The image is known by that digest from now on, and keeps the manifest where it names what is here."""
        record = self._images.record(image.id)
        kept = ""
        if record.layers == tuple(layer.digest for layer in manifest.layers):
            kept = await asyncio.to_thread(self._images.blobs.put, manifest.raw)
        await self._images.add(Imported(image, msgspec.structs.replace(
            record, manifest=kept, repo_digests=(f"{name.name}@{manifest.digest}",))))


def _described(config: Sent, layers: list[Sent]) -> Manifest:
    """Docker's schema 2, unless a layer is one that only OCI has a type for. Pure."""
    oci = any(layer.kind == "zstd" for layer in layers)
    plain = OCI_LAYER_GZIP if oci else DOCKER_LAYER
    return build_manifest(
        Descriptor(config.digest, config.size, OCI_CONFIG if oci else DOCKER_CONFIG),
        [Descriptor(one.digest, one.size, OCI_LAYER_ZSTD if one.kind == "zstd" else plain) for one in layers])


def _kind(path: Path) -> str:
    with path.open("rb") as source:
        return decompressed(source)[1]


def _pack(source_path: Path, target_path: Path) -> Sent:
    """Gzip of a layer, whatever it is now. Blocking."""
    with source_path.open("rb") as source, target_path.open("wb") as target:
        writer = BlobWriter(target)
        compress(decompressed(source)[0], writer)
    return Sent(writer.digest, writer.size, "gzip")
