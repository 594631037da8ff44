"""`Volumes`: every volume of this host, whatever driver keeps it.

    <root>/<name>/volume.json    the record of what was asked for here, written before it is answered

A plugin may have volumes that nobody asked for here; they are found by asking it. Each
volume has a lock: what makes, mounts, unmounts and removes one waits for each other, and
for nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from shoal.api.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.api.ids import new_container_id
from shoal.engine.containers.files import read_record, write_record
from shoal.engine.containers.nouns import Pruned
from shoal.engine.volumes import content
from shoal.engine.volumes.background import Background
from shoal.engine.volumes.claims import Claims
from shoal.engine.volumes.client import PluginUnreachable
from shoal.engine.volumes.discovery import Discovery
from shoal.engine.volumes.driver import VolumeDriver
from shoal.engine.volumes.drivers import Drivers
from shoal.engine.volumes.holds import Holds
from shoal.engine.volumes.local import LocalDriver
from shoal.engine.volumes.locks import NamedLocks
from shoal.engine.volumes.mounting import Mounting
from shoal.engine.volumes.nouns import ANONYMOUS_LABEL, LOCAL, Told, Volume
from shoal.engine.volumes.options import check_foreign_name
from shoal.engine.volumes.plugin import TIMEOUT_S, PluginDriver

log = logging.getLogger(__name__)

RECORDS = ("volume.json", "volume.bad")
"""Of a volume, and one of a volume that cannot be read: that is left to who knows better."""


class Volumes:
    """`users(name)` tells which containers refer to a volume. `held`: where mounts are written down (`holds`).

    Beside `held` are the claims of containers on their way (`claims`).
    """

    def __init__(
        self,
        root: Path,
        held: Path,
        *,
        users: Callable[[str], Iterable[str]] = lambda name: (),
        emit: Callable[[str, str, dict[str, str]], None] = lambda action, name, attributes: None,
        discovery: Discovery | None = None,
        plugin_timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._root = root
        self._users = users
        self._emit = emit
        self._volumes: dict[str, Volume] = {}
        self._locks = NamedLocks()
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._local = LocalDriver(root)
        self.drivers = Drivers(self._local, discovery or Discovery(()), timeout_s=plugin_timeout_s)
        self._background = Background()
        self.mounting = Mounting(self._volumes.get, self.drivers, self._local, Holds(held), self._locks,
                                 self._background)
        self._claims = Claims(held.with_name(f"{held.name}-claims"))
        for place in root.iterdir():
            if (record := read_record(place / "volume.json", Volume)) is not None:
                self._volumes[record.name] = record

    def _placed(self, volume: Volume) -> Volume:
        """With where it is, as far as that is known."""
        return msgspec.structs.replace(volume, mountpoint=self.mounting.place(volume))

    # --- reading ---

    def get(self, name: str) -> Volume:
        """Its record. Raises NotFound, "get <name>: no such volume"."""
        if name not in self._volumes:
            raise NotFound(f"get {name}: no such volume")
        return self._placed(self._volumes[name])

    def all(self) -> list[Volume]:
        """Every volume that there is a record of, by name."""
        return [self._placed(self._volumes[name]) for name in sorted(self._volumes)]

    def users(self, name: str) -> list[str]:
        """The ids of the containers that refer to it."""
        return [*self._users(name), *self._claims.takers(name)]

    async def inspect(self, name: str) -> Volume:
        """With what its driver tells of it; of a plugin's volume that has no record, too.

        Raises NotFound, ShoalError where its driver does not answer.
        """
        record = self._volumes.get(name)
        if record is None:
            if (found := await self._probe(name)) is None:
                raise NotFound(f"get {name}: no such volume")
            return found
        if record.driver == LOCAL:
            return self._placed(record)
        try:
            driver = await self.drivers.plugin(record.driver)
            told = await driver.get(name, known=True)
        except ShoalError as error:
            raise ShoalError(f"get {name}: {error}") from error
        if told is None:
            raise NotFound(f"get {name}: no such volume")
        return await _joined(self._placed(record), driver, told)

    async def listing(self, drivers: Collection[str] | None = None) -> tuple[list[Volume], list[str]]:
        """Every volume (of these drivers), by name, and a warning for each plugin that does not answer."""
        plugins, warnings = await self.drivers.plugins(drivers)
        answers = await asyncio.gather(*(self._listed(plugin) for plugin in plugins), return_exceptions=True)
        found: dict[str, Volume] = {}
        answered: set[str] = set()
        for plugin, answer in zip(plugins, answers, strict=True):
            if isinstance(answer, ShoalError):
                warnings.append(f"list {plugin.name}: {answer}")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answered.add(plugin.name)
                for volume in answer:
                    found.setdefault(volume.name, volume)
        for volume in self.all():
            if (drivers is None or volume.driver in drivers) and volume.driver not in answered:
                found[volume.name] = volume
        return sorted(found.values(), key=lambda volume: volume.name), warnings

    async def _listed(self, plugin: PluginDriver) -> list[Volume]:
        """Those that are not known here as another driver's."""
        shown = []
        for told in await plugin.list():
            record = self._volumes.get(told.name, Volume(name=told.name, driver=plugin.name))
            if record.driver == plugin.name:
                shown.append(await _joined(self._placed(record), plugin, told))
        return shown

    async def _probe(self, name: str) -> Volume | None:
        """What some plugin has under a name that is not known here. One that does not answer has nothing."""
        for plugin in (await self.drivers.plugins())[0]:
            try:
                told = await plugin.get(name, probe=True)
            except PluginUnreachable as error:
                log.warning("event=plugin-passed-over plugin=%s volume=%s error=%s", plugin.name, name, error)
                continue
            if told is not None:
                return await _joined(Volume(name=name, driver=plugin.name), plugin, told)
        return None

    # --- changing ---

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        claim: str = "",
    ) -> Volume:
        """Make a volume, or return the one that has this name. An empty `name` makes an anonymous one.

        `claim`: the container that is being made with it; nobody removes it until `settle`, and an anonymous
        one goes with `abandon`.
        Raises InvalidArgument for a name or an option that is not allowed, NotFound for a driver that
        is not there, Conflict where another driver has the name.
        """
        anonymous = not name
        name = name or new_container_id()
        labels = {**(labels or {}), **({ANONYMOUS_LABEL: ""} if anonymous else {})}
        async with self._locks.hold(name):
            if claim and anonymous:
                self._claims.bind(claim, name)
            volume = await self._existing(name, driver)
            if volume is None:
                volume = await self._create(Volume(
                    name=name, driver=driver or LOCAL, labels=labels, options=options or {},
                    created_ns=time.time_ns(), anonymous=anonymous))
            if claim:
                self._claims.take(claim, name)
            return self._placed(volume)

    async def _existing(self, name: str, driver: str) -> Volume | None:
        """Raises Conflict where another driver has it, or its own does not answer."""
        known = self._volumes.get(name)
        if known is None:
            if driver or (found := await self._probe(name)) is None:
                return None
            return await self._keep(found)
        if driver and driver != known.driver:
            await self._driver("create", name, driver)
        if known.driver != LOCAL:
            try:
                told = await (await self.drivers.plugin(known.driver)).get(name, known=True)
            except ShoalError as error:
                raise Conflict(f"create {name}: found reference to volume '{name}' in driver '{known.driver}', but got "
                               f"an error while checking the driver: {error}: volume name must be unique") from error
            if told is None:
                await self._vanished(known)
                return None
        if driver and driver != known.driver:
            raise Conflict(f"create {name}: driver '{known.driver}' already has volume '{name}': volume name must be "
                           "unique")
        return known

    async def _vanished(self, known: Volume) -> None:
        """Its plugin has it no more: forget it. Raises Conflict where containers refer to it."""
        if self.users(known.name):
            raise Conflict(
                f"create {known.name}: found references to volume '{known.name}' in driver '{known.driver}' but the "
                "volume was not found in the driver -- you may need to remove containers referencing this volume or "
                "force remove the volume to re-create it: volume name must be unique")
        await self._forget(known.name)

    async def _create(self, volume: Volume) -> Volume:
        driver = await self._driver("create", volume.name, volume.driver)
        driver.check(volume.name, volume.options)
        try:
            if volume.driver == LOCAL or await driver.get(volume.name) is None:
                await driver.create(volume.name, volume.options)
        except ShoalError as error:
            raise _about("create", volume.name, error) from error
        kept = await self._keep(volume)
        self._emit("create", kept.name, {"driver": kept.driver})
        return kept

    async def _driver(self, doing: str, name: str, driver: str) -> VolumeDriver:
        try:
            return await self.drivers.get(driver)
        except ShoalError as error:
            raise _about(doing, name, error) from error

    async def _keep(self, volume: Volume) -> Volume:
        """Write the record. Raises InvalidArgument for a name, a plugin's own, that no record can have."""
        if volume.driver != LOCAL:
            check_foreign_name(volume.name)
        record = Volume(name=volume.name, driver=volume.driver, labels=volume.labels, options=volume.options,
                        created_ns=volume.created_ns, anonymous=volume.anonymous)
        try:
            await asyncio.to_thread(_write, self._root / volume.name, record)
        except OSError as error:
            raise ShoalError(f"create {volume.name}: {error}") from error
        self._volumes[volume.name] = record
        return record

    async def _forget(self, name: str) -> None:
        """The record goes first, so that what a crash leaves is no volume."""
        if self._volumes.pop(name, None) is not None:
            (self._root / name / "volume.json").unlink(missing_ok=True)
            await asyncio.to_thread(self._local.sweep, name)

    def settle(self, container_id: str) -> None:
        """The container is there, and refers to its volumes itself."""
        self._claims.settle(container_id)

    def doom(self, container_id: str, names: Iterable[str]) -> None:
        """The container is being removed, and these volumes with it: also where this daemon is killed meanwhile."""
        self._claims.bind(container_id, *names)

    def is_doomed(self, container_id: str) -> bool:
        """Whether a removal was cut off that was to take volumes away as well."""
        return bool(self._claims.bound(container_id))

    async def abandon(self, container_id: str) -> None:
        """The container has not come to be, or is no more: the volumes that go with it go, unless others use them."""
        self._claims.give_back(container_id)
        for name in self._claims.bound(container_id):
            if not self.users(name):
                try:
                    await self.remove(name, force=True)
                except ShoalError as error:
                    log.warning("event=volume-kept volume=%s error=%s", name, error)
        self._claims.settle(container_id)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Raises NotFound (unless `force`), Conflict while a container refers to it.

        With `force`, one whose driver fails is forgotten here all the same.
        """
        async with self._locks.hold(name):
            volume = self._volumes.get(name) or await self._probe(name)
            if volume is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            if users := self.users(name):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            try:
                await (await self.drivers.get(volume.driver)).remove(name)
            except ShoalError as error:
                if force:
                    await self._forget(name)
                raise _about("remove", name, error) from error
            await self._forget(name)
        self._emit("destroy", name, {"driver": volume.driver})

    async def prune(self, selected: Callable[[Volume], bool] = lambda volume: volume.anonymous) -> Pruned:
        """Remove local folders that no container refers to and that are `selected` (by default the anonymous ones)."""
        deleted, freed = [], 0
        for volume in self.all():
            if self.measurable(volume) and selected(volume) and not self.users(volume.name):
                size = await self.size_bytes(volume.name)
                try:
                    await self.remove(volume.name)
                except (Conflict, NotFound):
                    continue  # taken, or removed, by somebody else in between
                except ShoalError as error:
                    log.warning("event=volume-kept volume=%s error=%s", volume.name, error)
                    continue
                freed += size
                deleted.append(volume.name)
        self._emit("prune", "", {"reclaimed": str(freed)})
        return Pruned(deleted=tuple(deleted), reclaimed_bytes=freed)

    def measurable(self, volume: Volume) -> bool:
        """Whether its content is on this host's disk: of the others nothing is pruned, nor counted."""
        return volume.driver == LOCAL and not volume.options

    async def size_bytes(self, name: str) -> int:
        """Of a volume that is `measurable`."""
        return await asyncio.to_thread(content.size_bytes, self._local.place(self.get(name).name))

    async def sweep(self, holders: Collection[str]) -> None:
        """Before anything is made: take away what a killed shoald left, and let go for everyone but these."""
        await self.mounting.release_all_but(holders)
        await asyncio.to_thread(self._sweep_folders)

    def _sweep_folders(self) -> None:
        for place in self._root.iterdir():
            if place.name not in self._volumes and not any((place / each).exists() for each in RECORDS):
                with suppress(OSError):
                    self._local.sweep(place.name)

    async def take_up(self, is_there: Callable[[str], bool]) -> None:
        """Before anything is made: settle for the containers that are there, abandon for the others."""
        for container_id in self._claims.containers():
            if is_there(container_id):
                self.settle(container_id)
            elif any(self.mounting.foreign(name) for name in self._claims.bound(container_id)):
                self._background.begin(self.abandon(container_id))  # its plugin may not answer
            else:
                await self.abandon(container_id)

    async def close(self) -> None:
        """Mounts stay. What is being let go of is taken up by the next start."""
        await self._background.close()
        await self._local.close()


async def _joined(record: Volume, driver: VolumeDriver, told: Told) -> Volume:
    return msgspec.structs.replace(
        record, mountpoint=told.mountpoint or record.mountpoint, created_ns=told.created_ns or record.created_ns,
        scope=await driver.scope(), status=told.status)


def _about(doing: str, name: str, error: ShoalError) -> ShoalError:
    """The error, with what failed before it; still of the status that it has."""
    prefix = f"{doing} {name}: "
    kind = next(each for each in (NotFound, InvalidArgument, Conflict, ShoalError) if isinstance(error, each))
    return kind(prefix + str(error).removeprefix(prefix))


def _write(place: Path, record: Volume) -> None:
    place.mkdir(mode=0o701, parents=True, exist_ok=True)
    write_record(place / "volume.json", record, durable=True)
