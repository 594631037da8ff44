"""What of images is on disk, and how what no image has goes from there. Blocking; used from threads."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.engine.images.blobs import Blobs
from shoal.engine.images.catalog import Catalog
from shoal.engine.images.config import Image
from shoal.engine.images.index import ImageRecord
from shoal.engine.storage.driver import StorageDriver, chain_ids


class Content:
    """Blobs and unpacked layers. A layer that a container stands on stays, whatever images there are."""

    def __init__(self, blobs: Blobs, driver: StorageDriver) -> None:
        self._blobs = blobs
        self._driver = driver

    def only_of(self, image: Image, record: ImageRecord, catalog: Catalog) -> tuple[list[str], list[str]]:
        """The layers (highest first) and blobs of an image that has left the catalog, which no other one has."""
        chains, blobs = self._kept(catalog)
        return ([chain for chain in reversed(chain_ids(image.layers)) if chain not in chains],
                [blob for blob in (image.id, *record.blobs) if blob not in blobs])

    def discard(self, chains: Iterable[str], blobs: Iterable[str]) -> None:
        for chain in chains:
            self._driver.remove_layer(chain)
        for blob in blobs:
            self._blobs.remove(blob)

    def sweep(self, catalog: Catalog) -> None:
        """Remove all that no image of the catalog has: what a crash left, or an import that failed."""
        chains, blobs = self._kept(catalog)
        self.discard([chain for chain in self._driver.layers() if chain not in chains],
                     [blob for blob in self._blobs.digests() if blob not in blobs])

    def _kept(self, catalog: Catalog) -> tuple[set[str], set[str]]:
        chains = {chain for image in catalog.images.values() for chain in chain_ids(image.layers)}
        blobs = {blob for record in catalog.records.values() for blob in record.blobs}
        return chains | self._driver.layers_in_use(), blobs | set(catalog.records)
