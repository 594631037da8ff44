"""What a storage driver offers. Blocking calls: they are made from threads.

A layer is named by its chain id, which stands for it and everything below it, so
that two images share what they have in common.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Protocol

import msgspec


class ChangeKind(enum.IntEnum):
    """Numbered as the API numbers them."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


class Change(msgspec.Struct, frozen=True):
    """A path of a container that differs from its image."""

    path: str
    kind: ChangeKind


class Readable(Protocol):
    """What bytes are read from, once, from front to back."""

    def read(self, size: int = ..., /) -> bytes: ...


ChainID = str | Callable[[], str]
"""A layer's name, or what tells it."""


class StorageDriver(Protocol):
    """Layers on disk, and writable mounts on top of them."""

    name: str

    def has_layer(self, chain_id: str) -> bool:
        """Whether the layer is here, whole."""

    def add_layer(self, chain_id: ChainID, content: Readable) -> int:
        """Unpack the tar `content` as the layer; its bytes. Idempotent.

        `content` is read to its end, and `chain_id` is asked only then. The caller may still refuse the layer before
        this returns, by raising from `content.read`: nothing is left then.
        """

    def remove_layer(self, chain_id: str) -> None: ...

    def layers(self) -> dict[str, int]:
        """Chain id → bytes, of every layer here."""

    def mount(self, container_id: str, chain_ids: Sequence[str]) -> Path:
        """The container's root, writable, over the layers (lowest first). Idempotent."""

    def lower(self, container_id: str) -> list[str] | None:
        """The layers that a container was first mounted over; they stay its own. None: never mounted."""

    def layers_in_use(self) -> set[str]:
        """Every layer that some container stands on."""

    def unmount(self, container_id: str) -> None: ...

    def remove(self, container_id: str) -> None:
        """Unmount, and throw away what the container wrote. No error where there is nothing."""

    def containers(self) -> list[str]:
        """The containers that have a writable layer here."""

    def changes(self, container_id: str) -> list[Change]:
        """What the container changed of its image, by path."""

    def pack(self, container_id: str, target: IO[bytes]) -> None:
        """Write what the container changed as the tar of a layer."""

    def written_bytes(self, container_id: str) -> int:
        """Of the files that the container wrote on top of its image."""


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain id of each layer, lowest first. Source: OCI image specification, config.md."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if chain:
            chain.append("sha256:" + hashlib.sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest())
        else:
            chain.append(diff_id)
    return chain
