"""What a volume driver offers. `local` is built in; a plugin is a process of its own."""

from __future__ import annotations

from typing import Protocol

from shoal.engine.volumes.nouns import Told, Volume


class VolumeDriver(Protocol):
    """Each call ends within a deadline of the driver's own. All raise ShoalError.

    A holder is whoever has a volume mounted: a container's id, or one made up for the occasion.
    """

    @property
    def name(self) -> str: ...

    async def scope(self) -> str:
        """local or global. Never raises."""

    def check(self, name: str, options: dict[str, str]) -> None:
        """Raises InvalidArgument for a name or an option that it cannot have."""

    def mounts(self, volume: Volume) -> bool:
        """Whether the volume is mounted while it is held, and only then."""

    async def create(self, name: str, options: dict[str, str]) -> None: ...

    async def remove(self, name: str) -> None: ...

    async def get(self, name: str) -> Told | None:
        """What there is of that name; None where there is nothing."""

    async def list(self) -> list[Told]: ...

    async def mount(self, volume: Volume, holder: str) -> str:
        """Where it is mounted for this holder. Once more for the same holder changes nothing."""

    async def unmount(self, volume: Volume, holder: str, *, last: bool) -> None:
        """This holder needs it no more; `last`: nor does any other."""
