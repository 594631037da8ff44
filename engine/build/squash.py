"""`--squash`: the layers that a build made, as one on those that it began with.

Source: moby, daemon/images/image_squash.go.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Iterable
from pathlib import Path

import msgspec

from shoal.engine.build import layers
from shoal.engine.build.job import Job, Result
from shoal.engine.images.compression import decompressed
from shoal.engine.images.config import HistoryEntry, Image
from shoal.engine.storage.unpack import apply


async def squashed(job: Job, result: Result) -> Image:
    """The image of that result with one layer on its base's. It is no step: no cache knows it."""
    image, base = result.image, result.base
    assert image is not None
    blobs = job.images.record(image.id).layers[len(base.layers) if base else 0 :]
    draft = merged(image, base, layers.timestamp(job.request.epoch))
    async with job.fresh_root(base) as (root_id, root):
        await asyncio.to_thread(_apply_all, [job.images.blobs.path(blob) for blob in blobs], root)
        async with layers.packed(job.rootfs, root_id, job.images.blobs.scratch, job.request.epoch) as layer:
            if layer is None:
                layer = job.scratch() / "empty.tar"
                tarfile.open(layer, "w").close()
            return await job.images.extend(base.id if base else "", draft, layer, cache_key="",
                                           private=job.images.record(image.id).private)


def merged(image: Image, base: Image | None, created: str) -> Image:
    """What it says of itself: nothing that the build did made a layer but the merge. Pure."""
    kept = len(base.history) if base else 0
    done = tuple(msgspec.structs.replace(entry, empty_layer=entry.empty_layer or number >= kept)
                 for number, entry in enumerate(image.history))
    comment = f"merge {image.id} to {base.id}" if base else f"create new from {image.id}"
    return msgspec.structs.replace(
        image, created=created, history=(*done, HistoryEntry(created=created, comment=comment)))


def _apply_all(blobs: Iterable[Path], root: Path) -> None:
    for blob in blobs:
        with blob.open("rb") as file:
            apply(decompressed(file)[0], root)
