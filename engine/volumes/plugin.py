"""A volume driver that is a plugin: its answers, checked. Source: Docker, "Docker volume plugins"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from shoal.engine.volumes.client import PluginClient, PluginRefused, PluginUnreachable
from shoal.engine.volumes.nouns import Told, Volume
from shoal.engine.volumes.options import check_foreign_name

TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 10.0
"""For what is asked of every plugin, wanted or not."""

MAX_PATH_LENGTH = 4096
MAX_LISTED = 100_000
_FRACTION = re.compile(r"\.(\d{1,9})")


class PluginDriver:
    """`timeout_s`: for each call; for making and mounting twice as long, as with Docker."""

    def __init__(self, client: PluginClient, *, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._scope = ""

    @property
    def name(self) -> str:
        return self._client.name

    async def scope(self) -> str:
        """What it says once is kept; local where it has nothing to say."""
        if not self._scope:
            try:
                answer = await self._call("Capabilities", {}, probe=True)
            except PluginRefused:
                answer = {}  # an old one: it does not know the question
            except PluginUnreachable:
                return "local"
            told = answer.get("Capabilities")
            scope = str(told.get("Scope", "")).lower() if isinstance(told, dict) else ""
            self._scope = "global" if scope == "global" else "local"
        return self._scope

    def check(self, name: str, options: dict[str, str]) -> None:
        check_foreign_name(name)

    def mounts(self, volume: Volume) -> bool:
        return True

    async def create(self, name: str, options: dict[str, str]) -> None:
        await self._call("Create", {"Name": name, "Opts": options or None}, patience=2)

    async def remove(self, name: str) -> None:
        await self._call("Remove", {"Name": name})

    async def get(self, name: str, *, probe: bool = False, known: bool = False) -> Told | None:
        """What it refuses to tell of is not there: the protocol has no other way to say so.

        `known`: it was there. Then its list has to agree, for a plugin that has lost its own servers refuses too.
        """
        try:
            answer = await self._call("Get", {"Name": name}, probe=probe, brief=True)
        except PluginRefused:
            if known and name in {told.name for told in await self.list()}:
                raise
            return None
        told = answer.get("Volume")
        return _told(told) if isinstance(told, dict) and told.get("Name") else None

    async def list(self) -> list[Told]:
        answer = await self._call("List", {}, probe=True)
        told = answer.get("Volumes")
        return list(_each(told[:MAX_LISTED])) if isinstance(told, list) else []

    async def mount(self, volume: Volume, holder: str) -> str:
        answer = await self._call("Mount", {"Name": volume.name, "ID": holder}, patience=2)
        path = answer.get("Mountpoint")
        if not _is_path(path):
            raise PluginRefused(f"VolumeDriver.Mount: plugin {self.name} gave no absolute path: {path!r}")
        return str(path)

    async def path(self, name: str) -> str:
        """Where it is, if it is mounted; "" else."""
        path = (await self._call("Path", {"Name": name})).get("Mountpoint")
        return str(path) if _is_path(path) else ""

    async def unmount(self, volume: Volume, holder: str, *, last: bool) -> None:
        """Each holder's is told: who is the last one, a plugin counts for itself."""
        await self._call("Unmount", {"Name": volume.name, "ID": holder}, brief=True)

    async def _call(self, method: str, body: dict[str, Any], *, patience: float = 1, probe: bool = False,
                    brief: bool = False) -> dict[str, Any]:
        timeout_s = self._timeout_s * patience
        if probe:
            timeout_s = min(timeout_s, PROBE_TIMEOUT_S)
        return await self._client.call(f"VolumeDriver.{method}", body, timeout_s=timeout_s, retry=not probe,
                                       brief=brief or probe)


def _each(told: Iterable[Any]) -> Iterable[Told]:
    return (_told(each) for each in told if isinstance(each, dict) and each.get("Name"))


def _told(answer: dict[str, Any]) -> Told:
    path, status = answer.get("Mountpoint"), answer.get("Status")
    return Told(name=str(answer["Name"]), mountpoint=str(path) if _is_path(path) else "",
                created_ns=_moment_ns(answer.get("CreatedAt")), status=status if isinstance(status, dict) else {})


def _is_path(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/") and len(path) < MAX_PATH_LENGTH and "\0" not in path


def _moment_ns(text: object) -> int:
    """RFC 3339, as Go writes it; 0 for anything else."""
    if not isinstance(text, str):
        return 0
    fraction = _FRACTION.search(text)
    try:
        seconds = int(datetime.fromisoformat(_FRACTION.sub("", text, count=1)).timestamp())
    except (ValueError, OverflowError):
        return 0
    return max(0, seconds * 10**9 + (int(fraction[1].ljust(9, "0")) if fraction else 0))
