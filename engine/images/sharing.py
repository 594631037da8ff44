"""A manifest for an image that came with none, so that other hosts can take it by one digest.

It names the blobs as they lie here: hosts that have the same blobs make the same manifest.
"""

from __future__ import annotations

import asyncio

from shoal.engine.images.blobs import Blobs
from shoal.engine.images.compression import decompressed
from shoal.engine.images.distribution.manifests import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_LAYERS,
    Descriptor,
    Manifest,
    build_manifest,
    parse_manifest,
)
from shoal.engine.images.images import Images
from shoal.engine.images.index import ImageRecord


async def shared_manifest(images: Images, image_id: str) -> Manifest:
    """The manifest by which other hosts get the image; kept from now on. Raises NotFound where the image is no more."""
    record = images.record(image_id)
    if record.contents and record.contents[0] != record.top:
        return parse_manifest(await asyncio.to_thread(images.blobs.read, record.contents[0]))
    async with images.importing():
        manifest = await asyncio.to_thread(describe, images.blobs, image_id, record)
        await asyncio.to_thread(images.blobs.put, manifest.raw)
        await images.share(image_id, manifest.digest)
    return manifest


def describe(blobs: Blobs, image_id: str, record: ImageRecord) -> Manifest:
    """OCI's manifest over an image's blobs as they are here. Blocking."""
    config = Descriptor(image_id, blobs.size(image_id), OCI_CONFIG)
    return build_manifest(config, [Descriptor(blob, blobs.size(blob), _media_type(blobs, blob))
                                   for blob in record.layers])


def _media_type(blobs: Blobs, blob: str) -> str:
    with blobs.path(blob).open("rb") as source:
        kind = decompressed(source)[1]
    return OCI_LAYERS.get(kind, OCI_LAYER)
