"""Where an image comes from, as a pull sees it: a registry's repository, or other hosts. The protocol alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from shoal.engine.images.distribution.manifests import Descriptor, Manifest


class Source(Protocol):
    """Whatever it gives is verified when a method returns. Errors are ShoalErrors, or what a network does."""

    @property
    def private(self) -> bool:
        """Whether what it gave is not for everybody; known at the end of a pull."""

    async def manifest(self, reference: str, expected: str = "") -> Manifest:
        """By tag or digest. Raises InvalidArgument for what is no manifest, or not the `expected` digest."""

    async def small_blob(self, wanted: Descriptor, most_bytes: int) -> bytes:
        """A blob for memory. Raises InvalidArgument where it is larger, or not what it should be."""

    async def fetch(self, wanted: Descriptor, target: Path, count: Callable[[int], None]) -> None:
        """The blob into the file. `count` hears the bytes so far."""
