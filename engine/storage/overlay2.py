"""OverlayFS: layers as directories, a container's root as one overlay mount.

    <root>/layers/<chain>/diff       an unpacked layer; `size` beside it holds its bytes
    <root>/l/<short>                 a link to it: lower directories must fit in one page
    <root>/containers/<id>/          diff (what the container wrote), work, merged; `lower` names its layers

A layer appears under its name by one rename, after its content is on disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from shoal.api.errors import InvalidArgument
from shoal.engine.storage import diff, pack
from shoal.engine.storage.driver import Change
from shoal.engine.storage.mount import MS_BIND, is_mount_point, mount, sync_filesystem, unmount
from shoal.engine.storage.unpack import unpack

MAX_LAYERS = 125
MAX_OPTIONS_BYTES = 4000  # mount(2) takes one page
_SHORT = 16  # hexadecimal digits of the chain id in a link's name


class Overlay2:
    """The storage driver that every supported kernel has."""

    name = "overlay2"

    def __init__(self, root: Path) -> None:
        self._root = root
        self._layers = root / "layers"
        self._links = root / "l"
        self._containers = root / "containers"
        for directory in (root, self._layers, self._links, self._containers):
            directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        for left_over in self._layers.glob("tmp-*"):
            shutil.rmtree(left_over, ignore_errors=True)

    # --- layers ---

    def has_layer(self, chain_id: str) -> bool:
        return (self._layers / _digits(chain_id)).is_dir()

    def add_layer(self, chain_id: str, content: IO[bytes]) -> int:
        """As the protocol says; two threads may unpack the same layer, the first to finish wins."""
        place = self._layers / _digits(chain_id)
        scratch = self._layers / f"tmp-{os.getpid()}-{os.urandom(6).hex()}"
        diff = scratch / "diff"
        diff.mkdir(mode=0o755, parents=True)
        diff.chmod(0o755)
        try:
            size = unpack(content, diff)
            while content.read(1 << 20):  # what follows the end of the archive belongs to the digest
                pass
            (scratch / "size").write_text(str(size))
            sync_filesystem(scratch)
            with suppress(FileExistsError, OSError):
                scratch.rename(place)
            if not place.is_dir():
                raise OSError(f"cannot place layer {chain_id} in {self._layers}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self._link(chain_id)
        return size

    def remove_layer(self, chain_id: str) -> None:
        place = self._layers / _digits(chain_id)
        doomed = self._layers / f"tmp-{os.urandom(6).hex()}"
        with suppress(FileNotFoundError):
            place.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        (self._links / _digits(chain_id)[:_SHORT]).unlink(missing_ok=True)

    def layers(self) -> dict[str, int]:
        found = {}
        for place in self._layers.iterdir():
            if not place.name.startswith("tmp-"):
                with suppress(OSError, ValueError):
                    found["sha256:" + place.name] = int((place / "size").read_text())
        return found

    def _link(self, chain_id: str) -> str:
        name = _digits(chain_id)[:_SHORT]
        with suppress(FileExistsError):
            (self._links / name).symlink_to(f"../layers/{_digits(chain_id)}/diff")
        return name

    # --- containers ---

    def mount(self, container_id: str, chain_ids: Sequence[str]) -> Path:
        home = self._containers / container_id
        merged = home / "merged"
        if is_mount_point(merged):
            return merged
        if len(chain_ids) > MAX_LAYERS:
            raise InvalidArgument(f"max depth exceeded: {len(chain_ids)} layers, at most {MAX_LAYERS}")
        home.mkdir(mode=0o710, exist_ok=True)
        for directory in ("work", "merged", "diff"):
            (home / directory).mkdir(exist_ok=True)
        if not (home / "lower").exists():
            (home / "lower.new").write_text("\n".join(chain_ids))
            (home / "lower.new").replace(home / "lower")  # whole or not at all: an empty one means no layers
        if not chain_ids:
            mount(str(home / "diff"), merged, "none", MS_BIND)
            return merged
        self._mount_overlay(home, [self._link(chain_id) for chain_id in reversed(chain_ids)])
        return merged

    def lower(self, container_id: str) -> list[str] | None:
        try:
            return (self._containers / container_id / "lower").read_text().split()
        except FileNotFoundError:
            return None

    def layers_in_use(self) -> set[str]:
        return {chain for container_id in self.containers() for chain in self.lower(container_id) or ()}

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
        shutil.rmtree(home)

    def containers(self) -> list[str]:
        return [place.name for place in self._containers.iterdir()]

    def changes(self, container_id: str) -> list[Change]:
        layers = [self._layers / _digits(chain_id) / "diff" for chain_id in reversed(self.lower(container_id) or [])]
        return diff.changes(self.written(container_id), layers)

    def pack(self, container_id: str, target: IO[bytes]) -> None:
        pack.pack(self.written(container_id), self.changes(container_id), target)

    def written(self, container_id: str) -> Path:
        return self._containers / container_id / "diff"

    def written_bytes(self, container_id: str) -> int:
        total = 0
        for folder, _, names in os.walk(self.written(container_id)):
            for name in names:
                with suppress(FileNotFoundError):
                    total += os.lstat(f"{folder}/{name}").st_size
        return total


def _digits(chain_id: str) -> str:
    return chain_id.removeprefix("sha256:")
