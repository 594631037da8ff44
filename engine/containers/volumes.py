"""Named volumes of the `local` driver: folders that outlive containers.

    <root>/<name>/_data          what containers see
    <root>/<name>/volume.json    the record, written before the volume is answered

Options `type`, `device` and `o`, as Docker's driver has them, are mounted at
`_data` while some container runs that uses the volume.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from shoal.api.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.api.ids import new_container_id
from shoal.engine.containers.files import read_record, write_record
from shoal.engine.containers.nouns import Pruned, Volume
from shoal.engine.storage.mount import is_mount_point, unmount

_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")
_OPTIONS = frozenset({"type", "device", "o", "size"})
_NEEDS_MOUNT = frozenset({"type", "device", "o"})
MAX_NAME_LENGTH = 255


class Volumes:
    """Every volume of this host. `users(name)` tells which containers refer to a volume."""

    def __init__(
        self,
        root: Path,
        *,
        users: Callable[[str], Iterable[str]] = lambda name: (),
        emit: Callable[[str, str, dict[str, str]], None] = lambda action, name, attributes: None,
    ) -> None:
        self._root = root
        self._users = users
        self._emit = emit
        self._volumes: dict[str, Volume] = {}
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for place in root.iterdir():
            if (record := read_record(place / "volume.json", Volume)) is not None:
                self._volumes[record.name] = msgspec.structs.replace(record, mountpoint=str(place / "_data"))

    # --- reading ---

    def get(self, name: str) -> Volume:
        """Raises NotFound, "get <name>: no such volume"."""
        if name not in self._volumes:
            raise NotFound(f"get {name}: no such volume")
        return self._volumes[name]

    def all(self) -> list[Volume]:
        """Every volume, by name."""
        return sorted(self._volumes.values(), key=lambda volume: volume.name)

    def users(self, name: str) -> list[str]:
        """The ids of the containers that refer to it."""
        return list(self._users(name))

    # --- changing ---

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one that has this name. An empty `name` makes an anonymous one.

        Raises InvalidArgument for a name or an option that is not allowed, NotFound for another driver.
        """
        _check(name, driver, options or {})
        if name in self._volumes:
            return self._volumes[name]
        volume = Volume(name=name or new_container_id(), labels=labels or {}, options=options or {},
                        created_ns=time.time_ns(), anonymous=not name)
        place = self._root / volume.name
        volume = msgspec.structs.replace(volume, mountpoint=str(place / "_data"))
        self._volumes[volume.name] = volume  # before the await: two creates of one name make one
        try:
            await asyncio.to_thread(_make, place, volume)
        except OSError as error:
            del self._volumes[volume.name]
            raise ShoalError(f"create {volume.name}: {error}") from error
        self._emit("create", volume.name, {"driver": volume.driver})
        return volume

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Raises NotFound (unless `force`), Conflict while a container refers to it."""
        if force and name not in self._volumes:
            return
        volume = self.get(name)
        users = self.users(name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        del self._volumes[name]
        await asyncio.to_thread(_destroy, self._root / volume.name)
        self._emit("destroy", name, {"driver": volume.driver})

    async def prune(self, selected: Callable[[Volume], bool] = lambda volume: volume.anonymous) -> Pruned:
        """Remove those that no container refers to and that are `selected` (by default the anonymous ones)."""
        deleted, freed = [], 0
        for volume in self.all():
            if selected(volume) and not self.users(volume.name):
                freed += await self.size_bytes(volume.name)
                await self.remove(volume.name)
                deleted.append(volume.name)
        self._emit("prune", "", {"reclaimed": str(freed)})
        return Pruned(deleted=tuple(deleted), reclaimed_bytes=freed)

    async def size_bytes(self, name: str) -> int:
        return await asyncio.to_thread(_tree_bytes, Path(self.get(name).mountpoint))

    # --- for containers that start and end ---

    def is_file_system(self, name: str) -> bool:
        """Whether its options name a file system, which is mounted while the volume is used."""
        volume = self._volumes.get(name)
        return volume is not None and bool(_NEEDS_MOUNT & volume.options.keys())

    def mount(self, name: str) -> Path:
        """Where the volume's content is; its file system is mounted first, where it has one. Blocking."""
        volume = self.get(name)
        place = Path(volume.mountpoint)
        if self.is_file_system(name) and not is_mount_point(place):
            _mount(place, volume.options)
        return place

    def unmount(self, names: Iterable[str]) -> None:
        """The file systems of those volumes. Blocking."""
        for name in names:
            if self.is_file_system(name):
                unmount(Path(self._volumes[name].mountpoint))


def _check(name: str, driver: str, options: dict[str, str]) -> None:
    if driver not in ("", "local"):
        raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
    if name and len(name) < 2:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters")
    if name and (not _NAME.match(name) or len(name) > MAX_NAME_LENGTH):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path')
    for option in options:
        if option not in _OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
    if _NEEDS_MOUNT & options.keys() and not options.get("device"):
        raise InvalidArgument(f'create {name}: missing required option: "device"')
    if "device" in options and not options.get("type") and "bind" not in options.get("o", ""):
        raise InvalidArgument(f'create {name}: missing required option: "type"')


def _make(place: Path, volume: Volume) -> None:
    (place / "_data").mkdir(mode=0o755, parents=True, exist_ok=True)
    place.chmod(0o701)
    write_record(place / "volume.json", volume, durable=True)


def _destroy(place: Path) -> None:
    """The record goes first, so that what a crash leaves is no volume."""
    (place / "volume.json").unlink(missing_ok=True)
    unmount(place / "_data")
    shutil.rmtree(place, ignore_errors=True)


def _mount(place: Path, options: dict[str, str]) -> None:
    """By mount(8), which knows the options of every file system and resolves NFS addresses."""
    command = ["mount"]
    if options.get("type") and options["type"] != "none":
        command += ["-t", options["type"]]
    if options.get("o"):
        command += ["-o", options["o"]]
    done = subprocess.run([*command, "--", options["device"], str(place)], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise ShoalError(f"failed to mount local volume: {done.stderr.strip() or options['device']}")


def _tree_bytes(root: Path) -> int:
    total = 0
    for path in root.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue
    return total
