"""The fallback where OverlayFS cannot be mounted: every container's root is a copy of its image's.

    <root>/layers/<chain>/layer.tar   a layer as it came, once it was found to be sound
    <root>/trees/<chain>              the layers up to that one, unpacked over each other, made when first needed
    <root>/containers/<id>/root       a copy of the tree

Needs nothing of the file system but that it keeps files. Slow, and large: reflinks help where there are any.
A layer, a tree and a copy appear under their names by one rename, after their content is on disk.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from shoal.engine.storage import compare
from shoal.engine.storage.driver import ChainID, Change, ChangeKind, Readable
from shoal.engine.storage.folders import FolderDriver, digits, place_folder, remove_folder
from shoal.engine.storage.forward import PIECE_BYTES
from shoal.engine.storage.trees import remove_tree
from shoal.engine.storage.unpack import apply


class Vfs(FolderDriver):
    """The storage driver that works everywhere."""

    name = "vfs"

    def __init__(self, root: Path) -> None:
        self._trees = root / "trees"
        self._making = threading.Lock()  # of a tree: two containers of one image need one
        super().__init__(root, self._trees)

    # --- layers ---

    def add_layer(self, chain_id: ChainID, content: Readable) -> int:
        """Unpacked once to see that it can be, and kept as it came: what it deletes is known when it is applied."""
        def fill(scratch: Path) -> int:
            trial = scratch / "trial"
            trial.mkdir()
            with (scratch / "layer.tar").open("wb") as kept:
                copying = _Copying(content, kept)
                size = apply(copying, trial)
                while copying.read(PIECE_BYTES):  # what follows the end of the archive belongs to the digest
                    pass
            remove_tree(trial)
            return size

        return self._place_layer(chain_id, fill)

    def remove_layer(self, chain_id: str) -> None:
        remove_folder(self._layer(chain_id))
        remove_folder(self._tree(chain_id))

    def _tree(self, chain_id: str) -> Path:
        return self._trees / digits(chain_id)

    def _made_tree(self, chain_ids: Sequence[str]) -> Path:
        """The layers over each other."""
        def fill(scratch: Path) -> int:
            for chain_id in chain_ids:
                with (self._layer(chain_id) / "layer.tar").open("rb") as content:
                    apply(content, scratch)
            return len(chain_ids)

        place = self._tree(chain_ids[-1])
        with self._making:
            if not place.is_dir():
                place_folder(self._trees, lambda: place.name, fill)
        return place

    # --- containers ---

    def mount(self, container_id: str, chain_ids: Sequence[str]) -> Path:
        root = self.written(container_id)
        if root.is_dir():
            return root
        fresh = self._home(container_id, chain_ids) / "root.new"
        remove_tree(fresh)
        fresh.mkdir(mode=0o755)
        if chain_ids:
            self._copy(self._made_tree(chain_ids), fresh)
        with suppress(OSError):  # two at once: the first has it
            fresh.rename(root)
        return root

    def _copy(self, tree: Path, target: Path) -> None:
        done = subprocess.run(["cp", "-a", "--reflink=auto", f"{tree}/.", str(target)], capture_output=True, text=True,
                              check=False)
        if done.returncode:
            remove_tree(target)
            raise OSError(f"cannot copy {tree}: {done.stderr.strip()[-500:]}")

    def unmount(self, container_id: str) -> None:
        """Nothing is mounted."""

    def remove(self, container_id: str) -> None:
        with suppress(FileNotFoundError):
            remove_tree(self._containers / container_id)

    def changes(self, container_id: str) -> list[Change]:
        root, chain = self.written(container_id), self.lower(container_id)
        if not root.is_dir() or chain is None:
            return []
        if chain:
            return compare.changes(root, self._made_tree(chain))
        nothing = self._trees / "nothing"
        nothing.mkdir(exist_ok=True)
        return compare.changes(root, nothing)

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

    def __init__(self, stream: Readable, kept: IO[bytes]) -> None:
        self._stream = stream
        self._kept = kept

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self._kept.write(content)
        return content
