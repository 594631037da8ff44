"""OverlayFS: layers as directories, a container's root as one overlay mount.

    <root>/layers/<chain>/diff       an unpacked layer
    <root>/l/<short>                 a link to it: lower directories must fit in one page
    <root>/containers/<id>/          diff (what the container wrote), work, merged
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shoal.engine.storage import diff
from shoal.engine.storage.driver import ChainID, Change, Readable
from shoal.engine.storage.folders import FolderDriver, digits, remove_folder
from shoal.engine.storage.forward import PIECE_BYTES
from shoal.engine.storage.measure import tree_bytes
from shoal.engine.storage.mount import MS_BIND, is_mount_point, mount, unmount
from shoal.engine.storage.trees import remove_tree
from shoal.engine.storage.unpack import unpack

MAX_OPTIONS_BYTES = 4000  # mount(2) takes one page
_SHORT = 16  # hexadecimal digits of the chain id in a link's name


class Overlay2(FolderDriver):
    """The storage driver that every supported kernel has."""

    name = "overlay2"

    def __init__(self, root: Path) -> None:
        self._links = root / "l"
        super().__init__(root, self._links)

    # --- layers ---

    def add_layer(self, chain_id: ChainID, content: Readable) -> int:
        def fill(scratch: Path) -> int:
            (scratch / "diff").mkdir(mode=0o755)
            (scratch / "diff").chmod(0o755)
            size = unpack(content, scratch / "diff")
            while content.read(PIECE_BYTES):  # what follows the end of the archive belongs to the digest
                pass
            return size

        size = self._place_layer(chain_id, fill)
        self._link(chain_id)
        return size

    def remove_layer(self, chain_id: str) -> None:
        remove_folder(self._layer(chain_id))
        (self._links / digits(chain_id)[:_SHORT]).unlink(missing_ok=True)

    def _link(self, chain_id: ChainID) -> str:
        name = digits(chain_id)[:_SHORT]
        with suppress(FileExistsError):
            (self._links / name).symlink_to(f"../layers/{digits(chain_id)}/diff")
        return name

    # --- containers ---

    def mount(self, container_id: str, chain_ids: Sequence[str]) -> Path:
        merged = self._containers / container_id / "merged"
        if is_mount_point(merged):
            return merged
        home = self._home(container_id, chain_ids)
        for directory in ("work", "merged", "diff"):
            (home / directory).mkdir(exist_ok=True)
        if not chain_ids:
            mount(str(home / "diff"), merged, "none", MS_BIND)
            return merged
        self._mount_overlay(home, [self._link(chain_id) for chain_id in reversed(chain_ids)])
        return merged

    def _mount_overlay(self, home: Path, links: list[str]) -> None:
        """Mount with full paths where they fit into a page, else through a descriptor of `l/`."""
        upper = f"upperdir={home}/diff,workdir={home}/work"
        lower = ":".join(f"{self._links}/{link}" for link in links)
        options = f"lowerdir={lower},{upper}"
        if len(options) <= MAX_OPTIONS_BYTES:
            mount("overlay", home / "merged", "overlay", 0, options)
            return
        descriptor = os.open(self._links, os.O_PATH | os.O_DIRECTORY)
        try:
            lower = ":".join(f"/proc/self/fd/{descriptor}/{link}" for link in links)
            mount("overlay", home / "merged", "overlay", 0, f"lowerdir={lower},{upper}")
        finally:
            os.close(descriptor)

    def unmount(self, container_id: str) -> None:
        unmount(self._containers / container_id / "merged")

    def remove(self, container_id: str) -> None:
        home = self._containers / container_id
        if not home.is_dir():
            return
        unmount(home / "merged")
        remove_tree(home)

    def changes(self, container_id: str) -> list[Change]:
        layers = [self._layer(chain_id) / "diff" for chain_id in reversed(self.lower(container_id) or [])]
        return diff.changes(self.written(container_id), layers)

    def written(self, container_id: str) -> Path:
        return self._containers / container_id / "diff"

    def written_bytes(self, container_id: str) -> int:
        return tree_bytes(self.written(container_id))
