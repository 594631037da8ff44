"""Which images are here, and what they are called: one small file, replaced atomically.

Invariants: every tag points at an image of the index; every image's configuration
and layers are on disk before the index names it. So a crash leaves at worst blobs
that nothing names, which `Images` removes at start.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

SPARE_BYTES = 16 << 10


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the configuration does not say of an image."""

    layers: tuple[str, ...] = ()  # blobs as they came, lowest first
    size: int = 0  # bytes, of the unpacked layers
    last_tagged: float = 0.0
    added: float = 0.0
    repo_digests: tuple[str, ...] = ()
    parent: str = ""  # the image that it was committed on, or the step before it of a build
    cache_key: str = ""  # what a step of a build did to its parent; "" where it is none
    manifest: str = ""  # the blob of the manifest that it was pulled or pushed with, where it names `layers`
    top: str = ""  # the blob of the index that it was last pulled by
    shared: str = ""  # the blob of the manifest that was made for other hosts, where it came with none
    private: bool = False  # it, or what it was made on, came from a registry that was sent credentials; for good

    @property
    def blobs(self) -> tuple[str, ...]:
        """All that the image keeps, but for its configuration."""
        return (*self.layers, *self.contents)

    @property
    def contents(self) -> tuple[str, ...]:
        """The blobs that describe the whole of it to others; the first is a manifest."""
        return tuple(digest for digest in (self.manifest, self.shared, self.top) if digest)


def merged(known: ImageRecord | None, new: ImageRecord) -> ImageRecord:
    """The record of an image that came again: its blobs are the new ones, its digests the old and the new."""
    if known is None:
        return new
    digests = tuple(dict.fromkeys((*known.repo_digests, *new.repo_digests)))
    same = known.layers == new.layers
    manifest, shared = new.manifest or known.manifest * same, new.shared or known.shared * same
    step = new if new.cache_key else known
    return msgspec.structs.replace(known, layers=new.layers, repo_digests=digests, manifest=manifest,
                                   shared=shared, top=new.top or known.top, parent=step.parent,
                                   cache_key=step.cache_key, private=known.private or new.private)


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Complete names with their tag → image id; image id → record."""

    tags: dict[str, str] = {}
    images: dict[str, ImageRecord] = {}
    schema: int = 1


def load(path: Path) -> Index:
    """The index on disk, or an empty one where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Index)
    except FileNotFoundError:
        return Index()


def save(path: Path, index: Index, *, removes: bool = False) -> None:
    """Replace the index on disk; it is durable when this returns. Raises OSError; then the old one is there still.

    What `removes` may use the room that is kept for it: on a full disk images can be removed.
    """
    content, spare = msgspec.json.encode(index), path.with_suffix(".spare")
    try:
        _replace(path, content)
    except OSError as error:
        if not removes or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        spare.unlink(missing_ok=True)
        _replace(path, content)
    _keep_room(spare, len(content))


def _keep_room(spare: Path, index_bytes: int) -> None:
    """For an index of twice that size, if the disk has it."""
    wanted = 2 * index_bytes + SPARE_BYTES
    try:
        if spare.exists() and spare.stat().st_size >= index_bytes + SPARE_BYTES:
            return
        with spare.open("wb") as target:
            os.posix_fallocate(target.fileno(), 0, wanted)
    except OSError:
        spare.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_suffix(".new")
    try:
        with scratch.open("wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    scratch.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
