"""GET /system/df: what takes up space on this host."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from aiohttp import web

from shoal.api.errors import InvalidArgument, NotFound
from shoal.daemon.http.build import cache_json
from shoal.daemon.http.containers.listing import Lookups, summary
from shoal.daemon.http.imagewire import image_summary, shared_sizes
from shoal.daemon.http.volumes import volume_json
from shoal.daemon.http.wire import reply
from shoal.engine.build.collector import Collector
from shoal.engine.containers.engine import Engine
from shoal.engine.images.images import Images

TYPES = ("container", "image", "volume", "build-cache")


class UsageRoutes:
    def __init__(self, engine: Engine, images: Images, lookups: Lookups, cache: Collector) -> None:
        self._engine = engine
        self._images = images
        self._lookups = lookups
        self._cache = cache

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/system/df", self.show, allow_head=False)

    async def show(self, request: web.Request) -> web.Response:
        wanted = request.query.getall("type", []) or list(TYPES)
        for each in wanted:
            if each not in TYPES:
                raise InvalidArgument(f"unknown object type: {each}")
        shown: dict[str, Any] = {"LayersSize": self._images.total_bytes(), "Images": [], "Containers": [],
                                 "Volumes": [], "BuildCache": []}
        if "image" in wanted:
            shown["Images"] = self._image_rows()
        if "container" in wanted:
            shown["Containers"] = await self._container_rows()
        if "volume" in wanted:
            shown["Volumes"] = await self._volume_rows()
        if "build-cache" in wanted:
            shown["BuildCache"] = [cache_json(record) for record in await self._cache.records()]
        return reply(shown)

    def _image_rows(self) -> list[dict[str, Any]]:
        shared = shared_sizes(self._images)
        return [{**image_summary(image, shared_bytes=shared[image.id]),
                 "Containers": len(list(self._engine.image_users(image.id)))} for image in self._images.all()]

    async def _container_rows(self) -> list[dict[str, Any]]:
        now, rows = time.time_ns(), []
        for container in self._engine.all():
            with suppress(NotFound):  # removed meanwhile
                rows.append({**summary(container, self._lookups, now),
                             "SizeRw": await self._engine.written_bytes(container.id)})
        return rows

    async def _volume_rows(self) -> list[dict[str, Any]]:
        """Of those on this host's disk; what is mounted from elsewhere takes up no space of its."""
        volumes, rows = self._engine.volumes, []
        for volume in filter(volumes.measurable, volumes.all()):
            with suppress(NotFound):
                use = {"Size": await volumes.size_bytes(volume.name), "RefCount": len(volumes.users(volume.name))}
                rows.append({**volume_json(volume), "UsageData": use})
        return rows
