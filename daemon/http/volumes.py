"""/volumes: the volumes of this host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from msgspec import field

from shoal.api.errors import InvalidArgument, NotFound
from shoal.api.wire import Wire, means_something
from shoal.daemon.http.times import rfc3339
from shoal.daemon.http.versions import version_of
from shoal.daemon.http.wire import body, empty, filters, flag, labels_match, reply, truth
from shoal.engine.volumes.nouns import Volume
from shoal.engine.volumes.volumes import Volumes

LIST_FILTERS = frozenset({"dangling", "driver", "label", "name"})
ALL_PRUNED_BEFORE = (1, 42)
"""Clients of an older version know no difference between volumes that were named and those that were not."""
PRUNE_FILTERS = frozenset({"all", "label", "label!"})


class VolumeWire(Wire, frozen=True):
    """The body of POST /volumes/create."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    cluster_volume_spec: Any = None


class VolumeRoutes:
    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/volumes", self.list, allow_head=False)
        router.add_post("/volumes/create", self.create)
        router.add_post("/volumes/prune", self.prune)
        router.add_get("/volumes/{name:.+}", self.inspect, allow_head=False)
        router.add_put("/volumes/{name:.+}", self.update)
        router.add_delete("/volumes/{name:.+}", self.remove)

    async def list(self, request: web.Request) -> web.Response:
        wanted = filters(request, LIST_FILTERS)
        dangling = [truth(value, "dangling") for value in wanted.get("dangling", ())]
        volumes, warnings = await self._volumes.listing(wanted.get("driver") or None)
        shown = [volume_json(each) for each in volumes if self._matches(each, wanted, dangling)]
        return reply({"Volumes": shown, "Warnings": warnings})

    def _matches(self, volume: Volume, wanted: dict[str, Any], dangling: Any) -> bool:
        names, drivers = wanted.get("name"), wanted.get("driver")
        return (
            (not names or any(name in volume.name for name in names))
            and (not drivers or volume.driver in drivers)
            and labels_match(wanted.get("label", ()), volume.labels)
            and all((not self._volumes.users(volume.name)) == value for value in dangling)
        )

    async def inspect(self, request: web.Request) -> web.Response:
        volume = await self._volumes.inspect(request.match_info["name"])
        return reply({**volume_json(volume), **({"Status": volume.status} if volume.status else {})})

    async def create(self, request: web.Request) -> web.Response:
        wanted = await body(request, VolumeWire)
        if means_something(wanted.cluster_volume_spec):
            raise InvalidArgument("ClusterVolumeSpec is not supported: volumes belong to one host")
        volume = await self._volumes.create(
            wanted.name, driver=wanted.driver, options=wanted.driver_opts, labels=wanted.labels)
        return reply(volume_json(volume), 201)

    async def update(self, request: web.Request) -> web.Response:
        raise NotFound(f"cluster volume {request.match_info['name']} not found: only cluster volumes can be updated")

    async def remove(self, request: web.Request) -> web.Response:
        await self._volumes.remove(request.match_info["name"], force=flag(request, "force"))
        return empty()

    async def prune(self, request: web.Request) -> web.Response:
        wanted = filters(request, PRUNE_FILTERS)
        everything = version_of(request) < ALL_PRUNED_BEFORE or any(
            truth(value, "all") for value in wanted.get("all", ()))
        pruned = await self._volumes.prune(_prunable(wanted, everything))
        return reply({"VolumesDeleted": list(pruned.deleted), "SpaceReclaimed": pruned.reclaimed_bytes})


def volume_json(volume: Volume) -> dict[str, Any]:
    return {
        "Name": volume.name,
        "Driver": volume.driver,
        "Mountpoint": volume.mountpoint,
        "CreatedAt": rfc3339(volume.created_ns),
        "Labels": volume.labels,
        "Options": volume.options,
        "Scope": volume.scope,
    }


def _prunable(wanted: dict[str, list[str]], everything: bool) -> Callable[[Volume], bool]:
    """Anonymous volumes, or all where that is asked for."""

    def selected(volume: Volume) -> bool:
        return ((everything or volume.anonymous)
                and labels_match(wanted.get("label", ()), volume.labels)
                and not any(labels_match([label], volume.labels) for label in wanted.get("label!", ())))

    return selected
