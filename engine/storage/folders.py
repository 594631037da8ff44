"""What every storage driver keeps as folders: layers by their chain ids, and a home for each container.

    <root>/layers/<chain>/       a layer, in the driver's own form; `size` holds its bytes
    <root>/containers/<id>/      what is the container's own; `lower` names its layers

A layer appears under its name by one rename, after its content is on disk.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from shoal.api.errors import InvalidArgument
from shoal.engine.storage import pack
from shoal.engine.storage.driver import ChainID, Change
from shoal.engine.storage.mount import sync_filesystem
from shoal.engine.storage.trees import remove_tree

MAX_LAYERS = 125
_SCRATCH = "tmp-"


class FolderDriver(ABC):
    """The half of `StorageDriver` that is the same for all. `own`: further folders of the driver's."""

    def __init__(self, root: Path, *own: Path) -> None:
        self._layers = root / "layers"
        self._containers = root / "containers"
        for folder in (root, self._layers, self._containers, *own):
            folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        for folder in (self._layers, *own):
            for left_over in folder.glob(f"{_SCRATCH}*"):
                with suppress(OSError):
                    remove_tree(left_over)

    # --- layers ---

    def has_layer(self, chain_id: str) -> bool:
        return self._layer(chain_id).is_dir()

    def layers(self) -> dict[str, int]:
        found = {}
        for place in self._layers.iterdir():
            if not place.name.startswith(_SCRATCH):
                with suppress(OSError, ValueError):
                    found["sha256:" + place.name] = int((place / "size").read_text())
        return found

    def _layer(self, chain_id: str) -> Path:
        return self._layers / digits(chain_id)

    def _place_layer(self, chain_id: ChainID, fill: Callable[[Path], int]) -> int:
        """Have a layer filled, which returns its bytes. Two threads may do the same one: the first to finish wins."""
        def fill_and_measure(scratch: Path) -> int:
            size = fill(scratch)
            (scratch / "size").write_text(str(size))
            return size

        return place_folder(self._layers, lambda: digits(chain_id), fill_and_measure)

    # --- containers ---

    def _home(self, container_id: str, chain_ids: Sequence[str]) -> Path:
        """The container's folder; the layers that it is first mounted over stay its own. Raises InvalidArgument."""
        if len(chain_ids) > MAX_LAYERS:
            raise InvalidArgument(f"max depth exceeded: {len(chain_ids)} layers, at most {MAX_LAYERS}")
        home = self._containers / container_id
        home.mkdir(mode=0o710, exist_ok=True)
        if not (home / "lower").exists():
            (home / "lower.new").write_text("\n".join(chain_ids))
            (home / "lower.new").replace(home / "lower")  # whole or not at all: an empty one means no layers
        return home

    def lower(self, container_id: str) -> list[str] | None:
        try:
            return (self._containers / container_id / "lower").read_text().split()
        except FileNotFoundError:
            return None

    def layers_in_use(self) -> set[str]:
        return {chain for container_id in self.containers() for chain in self.lower(container_id) or ()}

    def containers(self) -> list[str]:
        return [place.name for place in self._containers.iterdir()]

    def pack(self, container_id: str, target: IO[bytes]) -> None:
        pack.pack(self.written(container_id), self.changes(container_id), target)

    @abstractmethod
    def written(self, container_id: str) -> Path:
        """Where what the container wrote is found."""

    @abstractmethod
    def changes(self, container_id: str) -> list[Change]: ...


def digits(chain_id: ChainID) -> str:
    return (chain_id if isinstance(chain_id, str) else chain_id()).removeprefix("sha256:")


def place_folder(parent: Path, name: Callable[[], str], fill: Callable[[Path], int]) -> int:
    """Make a folder that is there whole or not at all: filled under another name, put on disk, renamed.

    `name` is asked once it is filled. One that is there already stays. Returns what `fill` returns. Raises OSError.
    """
    scratch = parent / f"{_SCRATCH}{os.getpid()}-{os.urandom(6).hex()}"
    scratch.mkdir(mode=0o755)
    try:
        filled = fill(scratch)
        place = parent / name()
        sync_filesystem(scratch)
        with suppress(OSError):
            scratch.rename(place)
        if not place.is_dir():
            raise OSError(f"cannot place {place.name} in {place.parent}")
    finally:
        with suppress(OSError):
            remove_tree(scratch)
    return filled


def remove_folder(place: Path) -> None:
    """Take a folder's name away at once, then its content. No error where there is none."""
    doomed = place.parent / f"{_SCRATCH}{os.getpid()}-{os.urandom(6).hex()}"
    with suppress(FileNotFoundError):
        place.rename(doomed)
        with suppress(OSError):
            remove_tree(doomed)
