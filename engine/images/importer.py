"""Images from archives into blobs and unpacked layers. Blocking; run in threads.

Digests are checked while bytes pass: a layer is unpacked, hashed compressed and
plain, and stored in one reading, and nothing of it stays where a digest is wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.reference import Reference
from shoal.engine.images.archive import ArchivedImage, ImageArchive, host_architecture
from shoal.engine.images.blobs import CHUNK_BYTES, Blobs, HashingReader
from shoal.engine.images.compression import decompressed
from shoal.engine.images.config import HistoryEntry, Image, ImageConfig, build_config, parse_config
from shoal.engine.images.index import ImageRecord
from shoal.engine.storage.driver import Readable, StorageDriver, chain_ids


class Imported(msgspec.Struct, frozen=True):
    """An image whose content is on disk, ready to be named by the index."""

    image: Image
    record: ImageRecord
    tags: tuple[Reference, ...] = ()


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

    def load(self, path: Path) -> list[Imported]:
        """Every image of the archive at `path` (plain or compressed).

        Raises InvalidArgument for an archive that is damaged or does not match its digests.
        """
        import tarfile

        path, scratch = self._plain(path)
        try:
            archive = ImageArchive(path)
            try:
                return [self._load_one(archive, image) for image in archive.images()]
            finally:
                archive.close()
        except (tarfile.TarError, UnicodeError, OverflowError) as error:
            raise InvalidArgument(f"invalid tar archive: {error}") from error
        finally:
            if scratch is not None:
                scratch.unlink(missing_ok=True)

    def import_rootfs(self, path: Path, config: ImageConfig, *, comment: str, architecture: str) -> Imported:
        """An image of one layer from the tar of a root file system (`docker import`)."""
        with path.open("rb") as source, self._blobs.writer() as blob:
            outer = HashingReader(source, tee=blob)
            plain, _ = decompressed(outer)
            inner = HashingReader(plain)
            # The layer's name is its own digest, known only after it was read once.
            while inner.read(CHUNK_BYTES):
                pass
            while outer.read(CHUNK_BYTES):
                pass
        diff_id, size = inner.digest, 0
        with path.open("rb") as source:
            size = self._unpack(diff_id, diff_id, decompressed(source)[0])
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        draft = Image(
            id="",
            config=config,
            layers=(diff_id,),
            created=now,
            architecture=architecture or host_architecture(),
            comment=comment,
            history=(HistoryEntry(created=now, comment=comment),),
        )
        raw = build_config(draft)
        image = parse_config(raw, self._blobs.put(raw))
        return Imported(image, ImageRecord(layers=(blob.digest,), size=size, added=time.time()))

    def commit(self, path: Path, parent: Image, blobs: tuple[str, ...], size: int, draft: Image) -> Imported:
        """`draft` as an image of the layers of `parent` (with these blobs and bytes) and the plain tar at `path`."""
        with path.open("rb") as source, self._blobs.writer() as blob:
            layer = HashingReader(source, tee=blob)
            while layer.read(CHUNK_BYTES):
                pass
        layers = (*parent.layers, layer.digest)
        with path.open("rb") as source:
            size += self._unpack(layer.digest, chain_ids(layers)[-1], source)
        return self.described(
            msgspec.structs.replace(draft, layers=layers), (*blobs, blob.digest), size, parent.id)

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
            self._unpack(diff_id, chain_id, decompressed(source)[0])

    def _plain(self, path: Path) -> tuple[Path, Path | None]:
        """`path` itself where it is not compressed, else a scratch copy, plain (to be removed)."""
        import os

        with path.open("rb") as source:
            stream, kind = decompressed(source)
            if not kind:
                return path, None
            scratch = self._blobs.scratch / os.urandom(8).hex()
            with scratch.open("wb") as target:
                while data := stream.read(CHUNK_BYTES):
                    target.write(data)
        return scratch, scratch

    def _load_one(self, archive: ImageArchive, archived: ArchivedImage) -> Imported:
        image = parse_config(archived.config, "sha256:" + hashlib.sha256(archived.config).hexdigest())
        if len(image.layers) != len(archived.layers):
            raise InvalidArgument(
                f"invalid archive: {len(archived.layers)} layers for {len(image.layers)} diff ids of {image.id}"
            )
        blobs, size = [], 0
        for diff_id, chain_id, member, digest in zip(
            image.layers, chain_ids(image.layers), archived.layers, archived.layer_digests, strict=True
        ):
            with archive.open(member) as stream:
                blob, layer_bytes = self._layer(stream, diff_id, chain_id, digest)
            blobs.append(blob)
            size += layer_bytes
        self._blobs.put(archived.config)
        return Imported(
            image, ImageRecord(layers=tuple(blobs), size=size, added=time.time()), archived.tags
        )

    def _layer(self, stream: IO[bytes], diff_id: str, chain_id: str, digest: str) -> tuple[str, int]:
        """Store and unpack one layer; the blob's digest and the unpacked bytes."""
        with self._blobs.writer(expected=digest) as blob:
            outer = HashingReader(stream, tee=blob)
            size = self._unpack(diff_id, chain_id, decompressed(outer)[0])
            while outer.read(CHUNK_BYTES):
                pass
        return blob.digest, size

    def _unpack(self, diff_id: str, chain_id: str, plain: Readable) -> int:
        checked = HashingReader(plain, expected=diff_id, what="layer")
        if not self._driver.has_layer(chain_id):
            return self._driver.add_layer(chain_id, checked)
        while checked.read(CHUNK_BYTES):
            pass
        return self._driver.layers().get(chain_id, 0)
