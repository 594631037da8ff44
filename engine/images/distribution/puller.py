"""Images from registries into the store: layers in parallel, each unpacked while others still come.

Invariant: the index names an image only after every blob of it was verified and unpacked.
What a cut or a kill leaves is scratch, or blobs that nothing names: removed at the next start.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

from shoal.api.errors import InvalidArgument, NotFound, ShoalError, Unauthorized
from shoal.api.reference import Reference
from shoal.engine.images.archive import host_architecture
from shoal.engine.images.config import Image, parse_config
from shoal.engine.images.distribution.challenges import ANONYMOUS, Credentials
from shoal.engine.images.distribution.endpoints import NO_RULES, RegistryRules
from shoal.engine.images.distribution.manifests import Descriptor, Manifest, Platform, choose, parse_platform
from shoal.engine.images.distribution.mirrors import first_that_gives
from shoal.engine.images.distribution.progress import Sink, Step, ignore
from shoal.engine.images.distribution.registry import CERTIFICATES, FAILURES, Refused, Registry, first_of
from shoal.engine.images.distribution.repository import Repository
from shoal.engine.images.distribution.retry import PATIENT, RetryPolicy
from shoal.engine.images.distribution.source import Source
from shoal.engine.images.images import Images
from shoal.engine.images.importer import Imported
from shoal.engine.images.index import ImageRecord
from shoal.engine.storage.driver import chain_ids

MAX_CONFIG_BYTES = 8 << 20


class Puller:
    """One for a host: the bound of parallel downloads is of all its pulls."""

    def __init__(self, images: Images, rules: RegistryRules = NO_RULES, *, downloads: int = 3,
                 certificates: Path = CERTIFICATES, policy: RetryPolicy = PATIENT) -> None:
        self.images = images
        self._rules = rules
        self._certificates = certificates
        self._policy = policy
        self._downloads = asyncio.Semaphore(downloads)
        self._layers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def pull(self, wanted: Reference, platform: str = "", credentials: Credentials = ANONYMOUS,
                   progress: Sink = ignore) -> Image:
        """Bring the image here, if it is not; the image. The interface for all who need one (API, builds, tasks).

        `platform`: OS/ARCH[/VARIANT], "" for this host's. Cancel it to stop it. Raises NotFound in Docker's
        words, Unauthorized, Unreachable, InvalidArgument for content that is not what it says it is.
        """
        async def read(registry: Registry) -> Image:
            return await self._one(Repository(registry, wanted.path, self._policy), wanted, platform, progress)

        return await first_that_gives(self._opened(wanted, credentials), read)

    async def pull_from(self, source: Source, wanted: Reference) -> Image:
        """As `pull`, from elsewhere. Raises what the source does."""
        return await self._one(source, wanted, "", ignore)

    async def pull_all(self, wanted: Reference, platform: str = "", credentials: Credentials = ANONYMOUS,
                       progress: Sink = ignore) -> None:
        """Bring every tag of the repository here."""
        async def read(registry: Registry) -> None:
            repository = Repository(registry, wanted.path, self._policy)
            try:
                tags = await repository.tags()
            except Refused as error:
                raise translated(error, wanted) from error
            for tag in tags:
                one = Reference(wanted.domain, wanted.path, tag)
                await self._one(repository, one, platform, progress)

        await first_that_gives(self._opened(wanted, credentials), read)

    def _opened(self, wanted: Reference, credentials: Credentials) -> Callable[[int], Registry]:
        return lambda passed: Registry(wanted.domain, self._rules, credentials, certificates=self._certificates,
                                       mirrors=True, passed=passed)

    async def _one(self, source: Source, wanted: Reference, platform: str, progress: Sink) -> Image:
        target = parse_platform(platform, Platform("linux", host_architecture()))
        try:
            top, manifest = await self._manifests(source, wanted, target)
            progress({"status": f"Pulling from {wanted.path}", "id": wanted.digest or wanted.tag})
            assert manifest.config is not None
            raw = await source.small_blob(manifest.config, MAX_CONFIG_BYTES)
        except Refused as error:
            raise translated(error, wanted) from error
        image = parse_config(raw, manifest.config.digest)
        if len(image.layers) != len(manifest.layers):
            raise InvalidArgument(f"invalid image {wanted.familiar}: {len(manifest.layers)} layers, and "
                                  f"{len(image.layers)} of them in its configuration")
        before = self.images.has(str(wanted)) and self.images.resolve(str(wanted)).id == image.id
        async with self.images.importing():
            blobs = await self._all_layers(source, image, manifest, progress)
            await asyncio.to_thread(self.images.blobs.put, raw)
            kept = manifest.digest if blobs == [layer.digest for layer in manifest.layers] else ""
            described = [manifest.raw] * bool(kept) + [top.raw] * (top is not manifest)
            for document in described:
                await asyncio.to_thread(self.images.blobs.put, document)
            sizes = await asyncio.to_thread(self.images.chain_bytes, chain_ids(image.layers))
            record = ImageRecord(layers=tuple(blobs), size=sum(sizes), added=time.time(), manifest=kept,
                                 top=top.digest if top is not manifest else "",
                                 repo_digests=(f"{wanted.name}@{top.digest}",),
                                 private=source.private)
            names = (Reference(wanted.domain, wanted.path, wanted.tag),) if wanted.tag and not wanted.digest else ()
            made = await self.images.add(Imported(image, record, names))
        progress({"status": f"Digest: {top.digest}"})
        progress({"status": f"Status: {'Image is up to date' if before else 'Downloaded newer image'} "
                            f"for {wanted.familiar}"})
        self.images.emit("pull", wanted.familiar, {"name": wanted.familiar_name, **image.config.labels})
        return made

    async def _manifests(self, source: Source, wanted: Reference, target: Platform) -> tuple[Manifest, Manifest]:
        """What the reference names, and the manifest of the image in it."""
        top = await source.manifest(wanted.digest or wanted.tag, wanted.digest)
        if top.manifests is None:
            return top, top
        chosen = choose(top.manifests, target, wanted.familiar)
        manifest = await source.manifest(chosen.digest, chosen.digest)
        if manifest.config is None:
            raise InvalidArgument(f"the index of {wanted.familiar} names another index where an image should be")
        return top, manifest

    async def _all_layers(self, source: Source, image: Image, manifest: Manifest, progress: Sink) -> list[str]:
        """Every layer here and unpacked; the digests of their blobs, lowest first."""
        steps = [Step(progress, layer.digest, time.monotonic) for layer in manifest.layers]
        for step, layer, chain_id in zip(steps, manifest.layers, chain_ids(image.layers), strict=True):
            here = self.images.layer_blob(chain_id, layer.digest)
            step.say("Already exists" if here else "Pulling fs layer")
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._layer(source, *one)) for one in zip(
                    manifest.layers, image.layers, chain_ids(image.layers), steps, strict=True)]
        except* (ShoalError, *FAILURES) as errors:
            raise first_of(errors) from errors
        return [task.result() for task in tasks]

    async def _layer(self, source: Source, layer: Descriptor, diff_id: str, chain_id: str, step: Step) -> str:
        lock = self._layers.setdefault(chain_id, asyncio.Lock())
        async with lock:  # another pull may be bringing it
            if here := self.images.layer_blob(chain_id, layer.digest):
                return here
            scratch = self.images.blobs.scratch / os.urandom(8).hex()
            try:
                await self._download(source, layer, scratch, step)
                await self.images.unpack(scratch, diff_id, chain_id, _from_thread(
                    lambda done: step.count("Extracting", min(done, layer.size), layer.size)))
                await asyncio.to_thread(self.images.blobs.adopt, scratch, layer.digest)
            finally:
                scratch.unlink(missing_ok=True)
        step.say("Pull complete")
        return layer.digest

    async def _download(self, source: Source, layer: Descriptor, target: Path, step: Step) -> None:
        if self._downloads.locked():
            step.say("Waiting")
        async with self._downloads:
            await source.fetch(layer, target, lambda done: step.count("Downloading", done, layer.size))
        step.say("Verifying Checksum")
        step.say("Download complete")


def _from_thread(call: Callable[[int], None]) -> Callable[[int], None]:
    loop = asyncio.get_running_loop()

    def heard(done: int) -> None:
        loop.call_soon_threadsafe(call, done)

    return heard


def translated(error: Refused, wanted: Reference) -> ShoalError:
    """The registry's refusal in Docker's words. Source: moby, distribution/errors.go."""
    if error.code == "MANIFEST_UNKNOWN" or (error.http_status == 404 and not error.code):
        return NotFound(f"manifest for {wanted.familiar} not found: {error.message}")
    if error.code == "NAME_UNKNOWN":
        return NotFound(f"repository {wanted.familiar_name} not found: {error.message}")
    if error.code in ("DENIED", "UNAUTHORIZED") and error.http_status in (401, 403):
        return NotFound(f"pull access denied for {wanted.familiar_name}, repository does not exist or may require "
                        f"'docker login': {error.message}")
    return Unauthorized(error.message) if error.http_status == 401 else error
