"""The volume drivers of this host, by name: `local`, and the plugins that are found and say they keep volumes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from shoal.api.errors import NotFound, ShoalError
from shoal.engine.volumes.client import PluginClient
from shoal.engine.volumes.discovery import Discovery, Endpoint
from shoal.engine.volumes.driver import VolumeDriver
from shoal.engine.volumes.local import LocalDriver
from shoal.engine.volumes.locks import NamedLocks
from shoal.engine.volumes.nouns import LOCAL
from shoal.engine.volumes.plugin import PROBE_TIMEOUT_S, TIMEOUT_S, PluginDriver

log = logging.getLogger(__name__)

KIND = "VolumeDriver"


class Drivers:
    """A plugin is activated when it is first asked for; what it implements is kept while its address stays."""

    def __init__(self, local: LocalDriver, discovery: Discovery, *, timeout_s: float = TIMEOUT_S) -> None:
        self.local = local
        self._discovery = discovery
        self._timeout_s = timeout_s
        self._known: dict[str, tuple[Endpoint, PluginDriver | None]] = {}  # None: it keeps no volumes
        self._clients: dict[str, PluginClient] = {}  # also of those that did not answer yet
        self._locks = NamedLocks()

    def names(self) -> list[str]:
        """`local`, and each plugin but those that are known to keep no volumes."""
        others = {name for name, (_, driver) in self._known.items() if driver is None}
        kept = {name for name, (_, driver) in self._known.items() if driver is not None}
        return [LOCAL, *sorted((set(self._discovery.names()) | kept) - others - {LOCAL})]

    async def get(self, name: str, *, probe: bool = False) -> VolumeDriver:
        """Raises NotFound where there is no such driver, ShoalError where it does not answer.

        `probe`: without any patience, for who asks all of them.
        """
        if name == LOCAL:
            return self.local
        return await self.plugin(name, probe=probe)

    async def plugin(self, name: str, *, probe: bool = False) -> PluginDriver:
        prefix = f"error looking up volume plugin {name}"
        async with self._locks.hold(name):
            endpoint = self._discovery.find(name)
            known = self._known.get(name)
            if endpoint is None and known is None:
                raise NotFound(f'{prefix}: plugin "{name}" not found')
            if known is None or (endpoint is not None and known[0] != endpoint):
                assert endpoint is not None
                try:
                    known = self._known[name] = (endpoint, await self._activate(name, endpoint, probe))
                except ShoalError as error:
                    raise ShoalError(f"{prefix}: {error}") from error
        if known[1] is None:
            raise NotFound(f'{prefix}: plugin "{name}" does not implement the requested driver, {KIND}')
        return known[1]

    async def _activate(self, name: str, endpoint: Endpoint, probe: bool) -> PluginDriver | None:
        client = self._clients.get(name)
        if client is None or client.endpoint != endpoint:
            client = self._clients[name] = PluginClient(name, endpoint)
        timeout_s = min(self._timeout_s, PROBE_TIMEOUT_S) if probe else self._timeout_s
        answer = await client.call("Plugin.Activate", timeout_s=timeout_s, retry=not probe, brief=probe)
        kinds = answer.get("Implements")
        log.info("event=plugin-activated plugin=%s implements=%s", name, kinds)
        if not isinstance(kinds, list) or KIND not in kinds:
            return None
        return PluginDriver(client, timeout_s=self._timeout_s)

    async def plugins(self, names: Iterable[str] | None = None) -> tuple[list[PluginDriver], list[str]]:
        """Every plugin that keeps volumes (of those `names`, if given), and why others could not be asked."""
        wanted = [name for name in self.names() if name != LOCAL and (names is None or name in names)]
        found = await asyncio.gather(*(self._probed(name) for name in wanted), return_exceptions=True)
        drivers, warnings = [], []
        for result in found:
            if isinstance(result, PluginDriver):
                drivers.append(result)
            elif isinstance(result, ShoalError):
                if not isinstance(result, NotFound):  # it is no volume plugin, or went away just now
                    warnings.append(str(result))
            else:
                raise result
        return drivers, warnings

    async def _probed(self, name: str) -> PluginDriver:
        """Also where somebody else waits for it just now."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return await self.plugin(name, probe=True)
        except TimeoutError:
            raise ShoalError(f"plugin {name} did not answer in {PROBE_TIMEOUT_S:g} s") from None
