"""Images from archives into blobs and unpacked layers. Blocking; run in threads.

Digests are checked while bytes pass: a layer is unpacked, hashed compressed and
plain, and stored in one reading, and nothing of it stays where a digest is wrong.
"""

from __future__ import annotations

import asyncio
import os
import tarfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument, NotFound
from shoal.api.reference import Reference
from shoal.engine.images.archive import ArchivedImage, ArchivedLayer, ImageArchive, Part
from shoal.engine.images.blobs import CHUNK_BYTES, Blobs, HashingReader, digest_of
from shoal.engine.images.compression import decompressed
from shoal.engine.images.config import HistoryEntry, Image, ImageConfig, build_config, parse_config
from shoal.engine.images.distribution.manifests import Manifest, Platform
from shoal.engine.images.index import ImageRecord
from shoal.engine.storage.driver import Readable, StorageDriver, chain_ids
from shoal.engine.storage.tar import faults_named

LAYERS_AT_ONCE = min(4, os.cpu_count() or 1)
"""Of one archive. Each takes a thread, and most of its time is spent in C."""


class Imported(msgspec.Struct, frozen=True):
    """An image whose content is on disk, ready to be named by the index."""

    image: Image
    record: ImageRecord
    tags: tuple[Reference, ...] = ()


Heard = Callable[[str, int, int], None]
"""(diff id, bytes read, bytes in all): a layer is being unpacked."""


def unheard(diff_id: str, done: int, total: int) -> None:
    """For who does not listen."""


class _Stored(msgspec.Struct, frozen=True):
    """A layer that is here: its blob, the bytes of it and of its files, and how it is compressed."""

    digest: str
    blob_bytes: int
    size: int
    kind: str


def is_for(image: Image, platform: Platform) -> bool:
    return ((image.os, image.architecture) == (platform.os, platform.architecture)
            and (image.variant == platform.variant or not (image.variant and platform.variant)))


def check_platform(image: Image, name: str, wanted: Platform | None) -> None:
    """Raises NotFound where the image is for another platform."""
    if wanted is not None and not is_for(image, wanted):
        own = Platform(image.os, image.architecture, image.variant)
        raise NotFound(f"image with reference {name} was found but its platform ({own}) does not match the "
                       f"specified platform ({wanted})")


def _is_kept(manifest: Manifest, layers: list[_Stored]) -> bool:
    """Whether it names just these blobs. One of plain layers is of no use: they go to registries compressed."""
    return (all(layer.kind for layer in layers)
            and [(one.digest, one.size) for one in manifest.layers] == [(one.digest, one.blob_bytes) for one in layers])


class _Told:
    """A layer being read; who loads it hears how far it is, while it is `telling`."""

    def __init__(self, part: Part, heard: Heard, diff_id: str) -> None:
        self.telling = False
        self._part = part
        self._heard = heard
        self._diff_id = diff_id

    def read(self, size: int = -1) -> bytes:
        data = self._part.read(size)
        if self.telling:
            self._heard(self._diff_id, self._part.position, self._part.size)
        return data


class _Watched:
    """A file being read in a thread: who waits for it hears how far it is, and can stop it."""

    def __init__(self, path: Path, read: Callable[[int], None]) -> None:
        self.file = path.open("rb")
        self.stopped = False
        self._done = 0
        self._heard = read

    def read(self, size: int = -1) -> bytes:
        if self.stopped:
            raise InvalidArgument("stopped")
        data = self.file.read(size)
        self._done += len(data)
        self._heard(self._done)
        return data


class Importer:
    def __init__(self, blobs: Blobs, driver: StorageDriver) -> None:
        self._blobs = blobs
        self._driver = driver

    def load(self, path: Path, wanted: Platform | None = None, heard: Heard = unheard) -> list[Imported]:
        """Every image of the archive at `path` (plain or compressed); with `wanted`, those for that platform.

        `heard` is told how far a layer is, in the thread that reads it. Raises InvalidArgument for an archive that is
        damaged or does not match its digests, and NotFound where nothing in it is for the platform.
        """
        path, scratch = self._plain(path)
        try:
            with faults_named():
                archive = ImageArchive(path)
            with closing(archive):
                found = [(image, parse_config(image.config, digest_of(image.config)))
                         for image in archive.images(wanted)]
                fitting = [one for one in found if wanted is None or is_for(one[1], wanted)]
                if found and not fitting:
                    raise NotFound(f"no image in the archive is for the platform {wanted}")
                return [self._load_one(archive, *one, heard) for one in fitting]
        except tarfile.TarError as error:
            raise InvalidArgument(f"invalid tar archive: {error}") from error
        finally:
            if scratch is not None:
                scratch.unlink(missing_ok=True)

    def import_rootfs(self, path: Path, config: ImageConfig, *, comment: str, platform: Platform) -> Imported:
        """An image of one layer from the tar of a root file system (`docker import`)."""
        layer, diff_id = self._own_layer(path, (), packed=True)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        draft = Image(
            id="",
            config=config,
            layers=(diff_id,),
            created=now,
            architecture=platform.architecture,
            variant=platform.variant,
            comment=comment,
            history=(HistoryEntry(created=now, comment=comment),),
        )
        raw = build_config(draft)
        image = parse_config(raw, self._blobs.put(raw))
        return Imported(image, ImageRecord(layers=(layer.digest,), size=layer.size, added=time.time()))

    def commit(self, path: Path, parent: Image, blobs: tuple[str, ...], size: int, draft: Image) -> Imported:
        """`draft` as an image of the layers of `parent` (with these blobs and bytes) and the plain tar at `path`."""
        layer, diff_id = self._own_layer(path, parent.layers, packed=False)
        whole = msgspec.structs.replace(draft, layers=(*parent.layers, diff_id))
        return self.described(whole, (*blobs, layer.digest), size + layer.size, parent.id)

    def _own_layer(self, path: Path, below: Sequence[str], *, packed: bool) -> tuple[_Stored, str]:
        """Unpack the layer at `path` over those `below`, and share the file as its blob. Returns its diff id, too.

        `packed`: it may be compressed. What the layer is called is known only after it was read.
        """
        with path.open("rb") as source:
            outer = HashingReader(source)
            plain, kind = decompressed(outer) if packed else (outer, "")
            inner = HashingReader(plain) if kind else outer
            size = self._driver.add_layer(
                lambda: chain_ids((*below, inner.digest))[-1], inner if kind else plain)
            outer.drain()
        self._blobs.share(path, outer.digest)
        return _Stored(outer.digest, path.stat().st_size, size, kind), inner.digest

    def extend(self, layer: Path | None, parent: Image, record: ImageRecord, draft: Image) -> Imported:
        """`draft` as an image of the layers of `parent`, whose record that is, and the plain tar at `layer`, if any."""
        if layer is not None:
            return self.commit(layer, parent, record.layers, record.size, draft)
        draft = msgspec.structs.replace(draft, layers=parent.layers)
        return self.described(draft, record.layers, record.size, parent.id)

    def described(self, draft: Image, blobs: tuple[str, ...], size: int, parent_id: str) -> Imported:
        """`draft` as an image of layers that are here."""
        raw = build_config(draft)
        image = parse_config(raw, self._blobs.put(raw))
        return Imported(image, ImageRecord(layers=blobs, size=size, added=time.time(), parent=parent_id))

    async def unpack_blob(self, blob: Path, diff_id: str, chain_id: str, read: Callable[[int], None]) -> None:
        """As `Images.unpack` says."""
        source = _Watched(blob, read)
        work = asyncio.ensure_future(asyncio.to_thread(self._unpack_watched, source, diff_id, chain_id))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            source.stopped = True
            await asyncio.wait([work])
            work.exception()
            raise

    def _unpack_watched(self, source: _Watched, diff_id: str, chain_id: str) -> None:
        with source.file:
            plain = HashingReader(decompressed(source)[0])
            plain.expect(diff_id, "layer")
            self._unpack(chain_id, plain)

    def _plain(self, path: Path) -> tuple[Path, Path | None]:
        """`path` itself where it is not compressed, else a scratch copy, plain (to be removed)."""
        with path.open("rb") as source:
            stream, kind = decompressed(source)
            if not kind:
                return path, None
            scratch = self._blobs.scratch / os.urandom(8).hex()
            try:
                with scratch.open("wb") as target:
                    while data := stream.read(CHUNK_BYTES):
                        target.write(data)
            except BaseException:
                scratch.unlink(missing_ok=True)
                raise
        return scratch, scratch

    def _load_one(self, archive: ImageArchive, archived: ArchivedImage, image: Image, heard: Heard) -> Imported:
        if len(image.layers) != len(archived.layers):
            raise InvalidArgument(
                f"invalid archive: {len(archived.layers)} layers for {len(image.layers)} diff ids of {image.id}"
            )
        with ThreadPoolExecutor(LAYERS_AT_ONCE) as pool:  # none is begun any more once one has failed
            stored = list(pool.map(
                lambda diff_id, chain_id, layer: self._layer(archive, layer, diff_id, chain_id, heard),
                image.layers, chain_ids(image.layers), archived.layers))
        self._blobs.put(archived.config)
        kept = next((one for one in archived.manifests if _is_kept(one, stored)), None)
        record = ImageRecord(
            layers=tuple(one.digest for one in stored), size=sum(one.size for one in stored), added=time.time(),
            manifest=self._blobs.put(kept.raw) if kept else "")
        return Imported(image, record, archived.tags)

    def _layer(self, archive: ImageArchive, archived: ArchivedLayer, diff_id: str, chain_id: str, heard: Heard
               ) -> _Stored:
        """Store and unpack one layer."""
        with self._blobs.writer(archived.digest, archived.size) as blob:
            source = _Told(archive.open(archived.member), heard, diff_id)
            outer = HashingReader(source, blob)
            plain, kind = decompressed(outer)
            source.telling = not self._driver.has_layer(chain_id)
            inner = HashingReader(plain) if kind else outer
            inner.expect(diff_id, "layer")
            size = self._unpack(chain_id, inner if kind else plain)
            outer.drain()
        return _Stored(blob.digest, blob.size, size, kind)

    def _unpack(self, chain_id: str, plain: Readable) -> int:
        """Reads it to its end, also where the layer is here."""
        if not self._driver.has_layer(chain_id):
            return self._driver.add_layer(chain_id, plain)
        while plain.read(CHUNK_BYTES):
            pass
        return self._driver.layers().get(chain_id, 0)
