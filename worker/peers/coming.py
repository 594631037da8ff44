"""Blobs that this host is taking from others just now: who asks for one already, waits until it is here.

What has arrived and is verified is given on at once, before the image that it belongs to is complete.
"""

from __future__ import annotations

import asyncio
from pathlib import Path


class Blob:
    """One that is on its way, or has arrived at `path`."""

    def __init__(self, manifest: str, *, private: bool) -> None:
        self.manifest = manifest  # of the image that it belongs to
        self.private = private
        self.path: Path | None = None
        self.settled = asyncio.Event()  # it has arrived, or does not come


class Coming:
    """By digest. Where two pulls take the same blob, the first counts."""

    def __init__(self) -> None:
        self._blobs: dict[str, Blob] = {}

    def get(self, digest: str) -> Blob | None:
        return self._blobs.get(digest)

    def expect(self, digest: str, manifest: str, *, private: bool) -> None:
        self._blobs.setdefault(digest, Blob(manifest, private=private))

    def arrived(self, digest: str, path: Path) -> None:
        """It is whole and verified."""
        blob = self._blobs[digest]
        blob.path = path
        blob.settled.set()

    def forget(self, digest: str) -> None:
        """It is in the store by now, or does not come."""
        if (blob := self._blobs.pop(digest, None)) is not None:
            blob.settled.set()
