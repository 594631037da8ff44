"""The fallback where OverlayFS cannot be mounted: every container's root is a copy of its image's.

    <root>/layers/<chain>/layer.tar   a layer as it came, once it was found to be sound; `size` holds its bytes
    <root>/trees/<chain>              the layers up to that one, unpacked over each other, made when first needed
    <root>/containers/<id>/           root (a copy of the tree), `lower` names its layers

Needs nothing of the file system but that it keeps files. Slow, and large: reflinks help where there are any.
A layer, a tree and a copy appear under their names by one rename, after their content is on disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from shoal.api.errors import InvalidArgument
from shoal.engine.storage import compare, pack
from shoal.engine.storage.driver import Change, ChangeKind
from shoal.engine.storage.mount import sync_filesystem
from shoal.engine.storage.unpack import apply

MAX_LAYERS = 125
_COPY_BYTES = 1 << 20


class Vfs:
    """The storage driver that works everywhere."""

    name = "vfs"

    def __init__(self, root: Path) -> None:
        self._layers = root / "layers"
        self._trees = root / "trees"
        self._containers = root / "containers"
        self._making = threading.Lock()  # of a tree: two containers of one image need one
        for directory in (root, self._layers, self._trees, self._containers):
            directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        for folder in (self._layers, self._trees):
            for left_over in folder.glob("tmp-*"):
                shutil.rmtree(left_over, ignore_errors=True)

    # --- layers ---

    def has_layer(self, chain_id: str) -> bool:
        return (self._layers / _digits(chain_id)).is_dir()

    def add_layer(self, chain_id: str, content: IO[bytes]) -> int:
        """Unpacked once to see that it can be, and kept as it came: what it deletes is known when it is applied."""
        place = self._layers / _digits(chain_id)
        scratch = self._layers / f"tmp-{os.getpid()}-{os.urandom(6).hex()}"
        (scratch / "trial").mkdir(parents=True)
        try:
            with (scratch / "layer.tar").open("wb") as kept:
                copying = _Copying(content, kept)
                size = apply(copying, scratch / "trial")  # type: ignore[arg-type]
                while copying.read(_COPY_BYTES):  # what follows the end of the archive belongs to the digest
                    pass
            shutil.rmtree(scratch / "trial")
            (scratch / "size").write_text(str(size))
            sync_filesystem(scratch)
            with suppress(FileExistsError, OSError):
                scratch.rename(place)
            if not place.is_dir():
                raise OSError(f"cannot place layer {chain_id} in {self._layers}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return size

    def remove_layer(self, chain_id: str) -> None:
        for folder in (self._layers, self._trees):
            doomed = folder / f"tmp-{os.urandom(6).hex()}"
            with suppress(FileNotFoundError):
                (folder / _digits(chain_id)).rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def layers(self) -> dict[str, int]:
        found = {}
        for place in self._layers.iterdir():
            if not place.name.startswith("tmp-"):
                with suppress(OSError, ValueError):
                    found["sha256:" + place.name] = int((place / "size").read_text())
        return found

    def _tree(self, chain_ids: Sequence[str]) -> Path:
        """The layers over each other."""
        place = self._trees / _digits(chain_ids[-1])
        with self._making:
            if place.is_dir():
                return place
            scratch = self._trees / f"tmp-{os.urandom(6).hex()}"
            scratch.mkdir(mode=0o755)
            try:
                for chain_id in chain_ids:
                    with (self._layers / _digits(chain_id) / "layer.tar").open("rb") as content:
                        apply(content, scratch)
                sync_filesystem(scratch)
                scratch.rename(place)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return place

    # --- containers ---

    def mount(self, container_id: str, chain_ids: Sequence[str]) -> Path:
        home = self._containers / container_id
        root = home / "root"
        if root.is_dir():
            return root
        if len(chain_ids) > MAX_LAYERS:
            raise InvalidArgument(f"max depth exceeded: {len(chain_ids)} layers, at most {MAX_LAYERS}")
        home.mkdir(mode=0o710, exist_ok=True)
        if not (home / "lower").exists():
            (home / "lower.new").write_text("\n".join(chain_ids))
            (home / "lower.new").replace(home / "lower")  # whole or not at all: an empty one means no layers
        fresh = home / "root.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o755)
        if chain_ids:
            self._copy(self._tree(chain_ids), fresh)
        with suppress(OSError):  # two at once: the first has it
            fresh.rename(root)
        return root

    def _copy(self, tree: Path, target: Path) -> None:
        done = subprocess.run(["cp", "-a", "--reflink=auto", f"{tree}/.", str(target)], capture_output=True, text=True,
                              check=False)
        if done.returncode:
            shutil.rmtree(target, ignore_errors=True)
            raise OSError(f"cannot copy {tree}: {done.stderr.strip()[-500:]}")

    def lower(self, container_id: str) -> list[str] | None:
        try:
            return (self._containers / container_id / "lower").read_text().split()
        except FileNotFoundError:
            return None

    def layers_in_use(self) -> set[str]:
        return {chain for container_id in self.containers() for chain in self.lower(container_id) or ()}

    def unmount(self, container_id: str) -> None:
        """Nothing is mounted."""

    def remove(self, container_id: str) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._containers / container_id)

    def containers(self) -> list[str]:
        return [place.name for place in self._containers.iterdir()]

    def changes(self, container_id: str) -> list[Change]:
        root, chain = self.written(container_id), self.lower(container_id)
        if not root.is_dir() or chain is None:
            return []
        if chain:
            return compare.changes(root, self._tree(chain))
        nothing = self._trees / "nothing"
        nothing.mkdir(exist_ok=True)
        return compare.changes(root, nothing)

    def pack(self, container_id: str, target: IO[bytes]) -> None:
        pack.pack(self.written(container_id), self.changes(container_id), target)

    def written(self, container_id: str) -> Path:
        return self._containers / container_id / "root"

    def written_bytes(self, container_id: str) -> int:
        """Of the files that were added or changed."""
        root, total = self.written(container_id), 0
        for change in self.changes(container_id):
            if change.kind is not ChangeKind.DELETED:
                with suppress(FileNotFoundError):
                    path = Path(f"{root}{change.path}")
                    total += 0 if path.is_dir() and not path.is_symlink() else path.lstat().st_size
        return total


class _Copying:
    """What is read of a stream is written to a file, too."""

    def __init__(self, stream: IO[bytes], kept: IO[bytes]) -> None:
        self._stream = stream
        self._kept = kept

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._kept.write(content)
        return content


def _digits(chain_id: str) -> str:
    return chain_id.removeprefix("sha256:")
