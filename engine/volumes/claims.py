"""Containers on their way: which volumes one that is being made has taken, and which go where it does not come to be.

    <root>/<container>     the anonymous volumes that go with it, a line each

The file is there while a container is made, and again while it is removed with its
volumes: a shoald that was killed in between finds it, and takes the volumes away at its
next start. The root is in the run root: a boot in between leaves the volumes.
"""

from __future__ import annotations

from pathlib import Path

from shoal.engine.containers.files import write_bytes


class Claims:
    """`take` and `bind`, then `settle`, in any case."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._taken: dict[str, set[str]] = {}  # container → volumes
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in root.glob("*.new"):
            left.unlink()
        self._bound = {path.name: path.read_text().split() for path in root.iterdir()}

    def takers(self, volume: str) -> list[str]:
        """The containers that are being made with it."""
        return [container for container, volumes in self._taken.items() if volume in volumes]

    def take(self, container: str, volume: str) -> None:
        """It is being made with the volume, which stays until `settle`."""
        self._taken.setdefault(container, set()).add(volume)

    def bind(self, container: str, *volumes: str) -> None:
        """These go with it from now on."""
        if volumes:
            bound = [*self._bound.get(container, ()), *volumes]
            write_bytes(self._root / container, "\n".join(bound).encode())
            self._bound[container] = bound

    def bound(self, container: str) -> list[str]:
        """The volumes that go with it."""
        return list(self._bound.get(container, ()))

    def containers(self) -> list[str]:
        """Those that volumes are bound to."""
        return list(self._bound)

    def give_back(self, container: str) -> None:
        """It is not made with anything any more."""
        self._taken.pop(container, None)

    def settle(self, container: str) -> None:
        """It is there, and refers to its volumes itself; or it is not, and they are gone."""
        self.give_back(container)
        if self._bound.pop(container, None) is not None:
            (self._root / container).unlink(missing_ok=True)
