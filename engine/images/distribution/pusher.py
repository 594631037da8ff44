"""Images from the store to registries: with the manifest that they came with where there is one.

A layer is compressed only where it is here plain; then always to the same bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from shoal.api.errors import NotFound, ShoalError, Unauthorized
from shoal.api.reference import Reference
from shoal.engine.images.blobs import CHUNK_BYTES, Blobs
from shoal.engine.images.compression import decompressed
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
    build_manifest,
    parse_manifest,
)
from shoal.engine.images.distribution.progress import Sink, Step, ignore
from shoal.engine.images.distribution.registry import CERTIFICATES, FAILURES, Refused, Registry, first_of
from shoal.engine.images.distribution.repository import Repository
from shoal.engine.images.distribution.retry import PATIENT, RetryPolicy
from shoal.engine.images.distribution.upload import SENT_BYTES, is_there, mounted, upload
from shoal.engine.images.images import Images
from shoal.engine.images.importer import Imported

_MOST_SOURCES = 3
"""Repositories that a layer is asked to be mounted from."""


class Pusher:
    """One for a host: the bound of parallel uploads is of all its pushes."""

    def __init__(self, images: Images, rules: RegistryRules = NO_RULES, *, uploads: int = 5,
                 certificates: Path = CERTIFICATES, policy: RetryPolicy = PATIENT,
                 sent_bytes: int = SENT_BYTES) -> None:
        self._images = images
        self._rules = rules
        self._certificates = certificates
        self._policy = policy
        self._sent_bytes = sent_bytes
        self._uploads = asyncio.Semaphore(uploads)

    async def push(self, name: Reference, credentials: Credentials = ANONYMOUS, progress: Sink = ignore, *,
                   all_tags: bool = False) -> None:
        """Send the image, or every image with a tag of that repository. Raises NotFound, Unauthorized, Refused."""
        names = [name] if not all_tags else self._images.names_in(name.name)
        if not names or not all(self._images.has(str(one)) for one in names):
            raise NotFound(f"An image does not exist locally with the tag: {name.familiar_name}")
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
            async with _prepared(self._images.blobs, image, record.layers, record.manifest) as (manifest, files):
                assert manifest.config is not None
                await self._layers(repository, name, manifest, files, steps)
                await self._blob(repository, name, manifest.config, self._images.blobs.path(image.id), None)
                await self._manifest(repository, name, manifest)
            await self._remember(image, name, manifest)
        digest, size = manifest.digest, len(manifest.raw)
        progress({"status": f"{name.tag}: digest: {digest} size: {size}"})
        progress({"progressDetail": {}, "aux": {"Tag": name.tag, "Digest": digest, "Size": size}})
        self._images.emit("push", name.familiar, {"name": name.familiar_name})

    async def _layers(self, repository: Repository, name: Reference, manifest: Manifest, files: list[Path],
                      steps: list[Step]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for layer, path, step in zip(manifest.layers, files, steps, strict=True):
                    group.create_task(self._blob(repository, name, layer, path, step))
        except* (ShoalError, *FAILURES) as errors:
            raise first_of(errors) from errors

    async def _blob(self, repository: Repository, name: Reference, blob: Descriptor, path: Path, step: Step | None
                    ) -> None:
        step = step or Step(ignore, blob.digest, time.monotonic)
        if self._uploads.locked():
            step.say("Waiting")
        async with self._uploads:
            if await is_there(repository, blob.digest):
                step.say("Layer already exists")
            elif source := await mounted(repository, blob.digest, self._sources(name, blob.digest)):
                step.say(f"Mounted from {source}")
            else:
                await upload(repository, blob.digest, path, lambda done: step.count("Pushing", done, blob.size),
                             sent_bytes=self._sent_bytes)
                step.say("Pushed")

    def _sources(self, name: Reference, blob: str) -> list[str]:
        """Other repositories of that registry that had the blob when an image came from there, or went there."""
        found = self._images.repositories_of(blob)
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


@asynccontextmanager
async def _prepared(blobs: Blobs, image: Image, layers: tuple[str, ...], manifest: str
                    ) -> AsyncIterator[tuple[Manifest, list[Path]]]:
    """The manifest to push and the files of its layers, lowest first."""
    if manifest:
        yield parse_manifest(await asyncio.to_thread(blobs.read, manifest)), [blobs.path(one) for one in layers]
        return
    made: list[Path] = []
    try:
        files, kinds = [], []
        for layer in layers:
            kind = await asyncio.to_thread(_kind, blobs.path(layer))
            path = blobs.path(layer)
            if kind not in ("gzip", "zstd"):
                path = blobs.scratch / os.urandom(8).hex()
                made.append(path)
                await asyncio.to_thread(_compress, blobs.path(layer), path)
            files.append(path)
            kinds.append(kind)
        digests = [await asyncio.to_thread(_digest, path) if path in made else layer
                   for path, layer in zip(files, layers, strict=True)]
        yield _described(image, blobs.size(image.id), digests, [path.stat().st_size for path in files], kinds), files
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def _described(image: Image, config_size: int, digests: list[str], sizes: list[int], kinds: list[str]) -> Manifest:
    """Docker's schema 2, unless a layer is one that only OCI has a type for. Pure."""
    oci = "zstd" in kinds
    types = [OCI_LAYER_ZSTD if kind == "zstd" else OCI_LAYER_GZIP if oci else DOCKER_LAYER for kind in kinds]
    layers = [Descriptor(*parts) for parts in zip(digests, sizes, types, strict=True)]
    return build_manifest(Descriptor(image.id, config_size, OCI_CONFIG if oci else DOCKER_CONFIG), layers)


def _kind(path: Path) -> str:
    with path.open("rb") as source:
        return decompressed(source)[1]


def _compress(source_path: Path, target_path: Path) -> None:
    """Gzip without a name or a time: equal bytes give equal bytes. Blocking."""
    packer = zlib.compressobj(wbits=31)
    with source_path.open("rb") as source, target_path.open("wb") as target:
        plain, _ = decompressed(source)
        while data := plain.read(CHUNK_BYTES):
            target.write(packer.compress(data))
        target.write(packer.flush())


def _digest(path: Path) -> str:
    with path.open("rb") as source:
        return "sha256:" + hashlib.file_digest(source, "sha256").hexdigest()
