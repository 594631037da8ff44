"""Who has which volume mounted, and where: written down, so that a shoald that was killed knows it again.

    <root>/<volume>/<holder>     holds the path; empty while it is being mounted

The root is in the run root: it ends with the boot, as mounts do.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from shoal.engine.containers.files import write_bytes


class Holds:
    """Invariant: who may have something mounted stands here, from before it asks until it has let go."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: dict[str, dict[str, str]] = {}
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in root.iterdir():
            for path in folder.iterdir():
                if path.suffix == ".new":
                    path.unlink()
                else:
                    self._held.setdefault(folder.name, {})[path.name] = path.read_text()

    def of(self, volume: str) -> dict[str, str]:
        """Holder → where it is mounted."""
        return dict(self._held.get(volume, {}))

    def by(self, holder: str) -> list[str]:
        return [volume for volume, holders in self._held.items() if holder in holders]

    def holders(self) -> set[str]:
        return {holder for holders in self._held.values() for holder in holders}

    def mountpoint(self, volume: str) -> str:
        return next((path for path in self._held.get(volume, {}).values() if path), "")

    def put(self, volume: str, holder: str, path: str = "") -> None:
        (self._root / volume).mkdir(mode=0o700, exist_ok=True)
        write_bytes(self._root / volume / holder, path.encode())
        self._held.setdefault(volume, {})[holder] = path

    def drop(self, volume: str, holder: str) -> None:
        (self._root / volume / holder).unlink(missing_ok=True)
        holders = self._held.get(volume, {})
        holders.pop(holder, None)
        if not holders:
            self._held.pop(volume, None)
            with suppress(OSError):
                (self._root / volume).rmdir()
