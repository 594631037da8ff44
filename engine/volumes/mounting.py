"""Volumes made ready for those who use them, and let go of: what a plugin keeps, or what options say is mounted.

Who holds what is written down before anything is asked (`holds`); what the driver does waits
for whatever else is done to that volume.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path

from shoal.api.errors import NotFound, ShoalError
from shoal.engine.volumes.background import Background
from shoal.engine.volumes.client import PluginUnreachable
from shoal.engine.volumes.drivers import Drivers
from shoal.engine.volumes.holds import Holds
from shoal.engine.volumes.local import LocalDriver
from shoal.engine.volumes.locks import NamedLocks
from shoal.engine.volumes.nouns import LOCAL, Volume

log = logging.getLogger(__name__)

LET_GO_S = 10.0
"""So long the end of a container waits for its volumes to be unmounted; the rest is done behind it."""


class Mounting:
    """`find` gives the record of a volume, or None."""

    def __init__(self, find: Callable[[str], Volume | None], drivers: Drivers, local: LocalDriver, holds: Holds,
                 locks: NamedLocks, background: Background) -> None:
        self.let_go_s = LET_GO_S
        self._find = find
        self._drivers = drivers
        self._local = local
        self._holds = holds
        self._locks = locks
        self._background = background
        self._leaving: set[tuple[str, str]] = set()  # (volume, holder) that is being unmounted

    def place(self, volume: Volume) -> str:
        """Where its content is, as far as that is known."""
        return str(self._local.place(volume.name)) if volume.driver == LOCAL else self._holds.mountpoint(volume.name)

    def foreign(self, name: str) -> bool:
        """Whether it is mounted while it is used: then nothing but a deadline ends a look into it."""
        volume = self._find(name)
        return volume is not None and (volume.driver != LOCAL or self._local.mounts(volume))

    async def mount(self, name: str, holder: str) -> Path:
        """Where the volume's content is, until `release`. Raises ShoalError."""
        volume = self._get(name)
        if not self.foreign(name):
            return Path(self.place(volume))
        async with self._locks.hold(name):
            volume = self._get(name)
            self._holds.put(name, holder, self._holds.of(name).get(holder, ""))
            try:
                driver = await self._drivers.get(volume.driver)
                path = await driver.mount(volume, holder)
            except PluginUnreachable as error:
                raise ShoalError(f"error while mounting volume '{name}': {error}") from error  # perhaps it has: held on
            except ShoalError as error:
                self._holds.drop(name, holder)
                raise ShoalError(f"error while mounting volume '{name}': {error}") from error
            self._holds.put(name, holder, path)
        return Path(path)

    def _get(self, name: str) -> Volume:
        volume = self._find(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    async def release(self, holder: str) -> None:
        """Let go of whatever it holds. What takes longer than `let_go_s` goes on behind; what fails is logged."""
        tasks = [self._background.begin(self._unmount(name, holder)) for name in self._holds.by(holder)
                 if (name, holder) not in self._leaving]
        if tasks:
            await asyncio.wait(tasks, timeout=self.let_go_s)

    async def release_all_but(self, holders: Collection[str]) -> None:
        """Let go for everyone but these."""
        for holder in self._holds.holders() - set(holders):
            await self.release(holder)

    async def _unmount(self, name: str, holder: str) -> None:
        self._leaving.add((name, holder))
        try:
            await self._let_go(name, holder)
        finally:
            self._leaving.discard((name, holder))

    async def _let_go(self, name: str, holder: str) -> None:
        async with self._locks.hold(name):
            if holder not in self._holds.of(name):
                return
            volume = self._find(name)
            try:
                if volume is not None:
                    last = set(self._holds.of(name)) == {holder}
                    await (await self._drivers.get(volume.driver)).unmount(volume, holder, last=last)
            except (ShoalError, OSError) as error:
                log.warning("event=volume-not-unmounted volume=%s holder=%s error=%s", name, holder, error)
            self._holds.drop(name, holder)

    def adopt(self, name: str, holder: str) -> None:
        """It runs with this volume, and was started by a shoald that did not write that down."""
        volume = self._find(name)
        if volume is not None and self.foreign(name) and holder not in self._holds.of(name):
            self._holds.put(name, holder, self.place(volume))
