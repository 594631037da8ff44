"""/containers: made, started, stopped, shown, listed, removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from shoal.api.errors import Conflict, InvalidArgument, NotFound, NotImplementedHere
from shoal.daemon.http.containers.config import container_config
from shoal.daemon.http.containers.host import host_config
from shoal.daemon.http.containers.inspect import Surroundings, inspect_json
from shoal.daemon.http.containers.limits import limits, restart_policy
from shoal.daemon.http.containers.listing import FILTERS, Lookups, links_to, select, summary
from shoal.daemon.http.containers.wire import UNSUPPORTED, CreateWire, UpdateWire
from shoal.daemon.http.imagewire import provides
from shoal.daemon.http.info import unified_cgroups
from shoal.daemon.http.times import moment_ns
from shoal.daemon.http.wire import body, empty, filters, flag, labels_match, number, reply
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.nouns import Container, HostConfig, Status
from shoal.engine.images.images import Images

PRUNE_FILTERS = frozenset({"label", "label!", "until"})
MAX_TERMINAL = 65535
DOCKERS_RUNTIME = "io.containerd.runc.v2"
"""A name that clients give without meaning anything by it: the default."""

NO_STORAGE_OPTIONS = {
    "overlay2": "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
    "vfs": "Filesystem does not support, or has not enabled quotas",
}
"""By the storage driver: a container's root has no quota, and Docker says that where it can give none, too."""


class ContainerRoutes:
    def __init__(self, engine: Engine, images: Images, lookups: Lookups, driver: str) -> None:
        """`driver`: the name of the storage driver."""
        self._engine = engine
        self._images = images
        self._lookups = lookups
        self._driver = driver

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/containers/json", self.list, allow_head=False)
        router.add_post("/containers/create", self.create)
        router.add_post("/containers/prune", self.prune)
        router.add_get("/containers/{id}/json", self.inspect, allow_head=False)
        router.add_get("/containers/{id}/top", self.top, allow_head=False)
        for action in ("start", "stop", "restart", "kill", "pause", "unpause", "rename", "resize", "update"):
            router.add_post(f"/containers/{{id}}/{action}", getattr(self, action))
        router.add_delete("/containers/{id:.+}", self.remove)  # of a link: parent/alias

    # --- reading ---

    async def list(self, request: web.Request) -> web.Response:
        lookups = self._lookups.kept()
        found = select(self._engine.all(), filters(request, FILTERS), lookups,
                       everything=flag(request, "all"), limit=number(request, "limit") or 0)
        now = time.time_ns()
        aliases = links_to(self._engine.all())
        shown = [summary(each, lookups, now, aliases.get(each.id, ())) for each in found]
        if flag(request, "size"):
            for container, row in zip(found, shown, strict=True):
                with suppress(NotFound):  # removed meanwhile
                    row |= await self._sizes(container)
        return reply(shown)

    async def inspect(self, request: web.Request) -> web.Response:
        container = self._container(request)
        shown = inspect_json(container, Surroundings(
            sandbox=self._engine.sandbox(container.id), network_of=self._lookups.network_of,
            runtime=self._engine.runtime[0], driver=self._driver,
            cgroupns="private" if unified_cgroups() else "host", log_path=str(self._engine.log_path(container.id)),
            exec_ids=[each.id for each in self._engine.execs(container.id)], links=self._links(container)))
        if flag(request, "size"):
            shown |= await self._sizes(container)
        return reply(shown)

    def _links(self, container: Container) -> Sequence[str]:
        """As Docker shows them; without those to containers that are no more."""
        found = []
        for child_id, _, alias in (link.partition(":") for link in container.host.links):
            with suppress(NotFound):
                found.append(f"/{self._engine.get(child_id).name}:/{container.name}/{alias}")
        return found

    async def _sizes(self, container: Container) -> dict[str, int]:
        written = await self._engine.written_bytes(container.id)
        try:
            image_bytes = self._images.resolve(container.image_id).size
        except NotFound:
            image_bytes = 0
        return {"SizeRw": written, "SizeRootFs": written + image_bytes}

    async def top(self, request: web.Request) -> web.Response:
        titles, rows = await self._engine.top(request.match_info["id"], request.query.get("ps_args") or "-ef")
        return reply({"Titles": titles, "Processes": rows})

    def _container(self, request: web.Request) -> Container:
        return self._engine.get(request.match_info["id"])

    # --- making and removing ---

    async def create(self, request: web.Request) -> web.Response:
        unknown: list[str] = []
        wanted = await body(request, CreateWire, unknown=unknown)
        for path in unknown:
            if path.lower() in UNSUPPORTED:
                raise NotImplementedHere(f"{UNSUPPORTED[path.lower()]} is not supported: leave it out")
        config, host = container_config(wanted), host_config(wanted)
        self._check_platform(config.image, request.query.get("platform", ""))
        self._check_runtime(host.runtime)
        if wanted.host_config.storage_opt:
            raise InvalidArgument(NO_STORAGE_OPTIONS[self._driver])
        created = await self._engine.create(request.query.get("name", "").removeprefix("/"), config,
                                            self._by_name(host))
        return reply({"Id": created.id, "Warnings": list(created.warnings)}, 201)

    def _by_name(self, host: HostConfig) -> HostConfig:
        """`host` with networks that were given by id named, as they are shown and disconnected."""
        def name(reference: str) -> str:
            return self._lookups.network_of(reference)[1]

        ends = tuple(msgspec.structs.replace(each, network=name(each.network)) for each in host.endpoints)
        return msgspec.structs.replace(host, endpoints=ends, network_mode=name(host.network_mode))

    def _check_platform(self, reference: str, platform: str) -> None:
        if platform and not provides(self._images.resolve(reference), platform):
            raise NotFound(f"image with reference {reference} was found but does not provide the specified "
                           f"platform ({platform})")

    def _check_runtime(self, runtime: str) -> None:
        if runtime not in ("", DOCKERS_RUNTIME, *self._engine.runtime):
            raise InvalidArgument(f"unknown or invalid runtime name: {runtime}: this host has "
                                  f"{self._engine.runtime[0]}")

    async def remove(self, request: web.Request) -> web.Response:
        if flag(request, "link"):
            parent, _, alias = request.match_info["id"].removeprefix("/").rpartition("/")
            self._engine.remove_link(parent, alias)
            return empty()
        await self._engine.remove(request.match_info["id"], force=flag(request, "force"), volumes=flag(request, "v"))
        return empty()

    async def prune(self, request: web.Request) -> web.Response:
        pruned = await self._engine.prune(_prunable(filters(request, PRUNE_FILTERS)))
        return reply({"ContainersDeleted": list(pruned.deleted), "SpaceReclaimed": pruned.reclaimed_bytes})

    # --- what it does ---

    async def start(self, request: web.Request) -> web.Response:
        if len((await request.read()).strip()) > 2:  # "{}" of old clients
            raise InvalidArgument("starting container with non-empty request body was deprecated since API v1.22 and "
                                  "removed in v1.24")
        status = self._container(request).state.status
        if status is Status.PAUSED:
            raise Conflict("cannot start a paused container, try unpause instead")
        if status in (Status.RUNNING, Status.RESTARTING):  # its policy starts the latter when its delay is over
            return empty(304)
        await self._engine.start(request.match_info["id"])
        return empty()

    async def stop(self, request: web.Request) -> web.Response:
        timeout, signal = number(request, "t"), request.query.get("signal", "")
        if not self._container(request).state.running:
            return empty(304)
        await self._engine.stop(request.match_info["id"], timeout, signal)
        return empty()

    async def restart(self, request: web.Request) -> web.Response:
        timeout, signal = number(request, "t"), request.query.get("signal", "")
        await self._engine.restart(request.match_info["id"], timeout, signal)
        return empty()

    async def kill(self, request: web.Request) -> web.Response:
        await self._engine.kill(request.match_info["id"], request.query.get("signal") or "KILL")
        return empty()

    async def pause(self, request: web.Request) -> web.Response:
        await self._engine.pause(request.match_info["id"])
        return empty()

    async def unpause(self, request: web.Request) -> web.Response:
        await self._engine.unpause(request.match_info["id"])
        return empty()

    async def rename(self, request: web.Request) -> web.Response:
        name = request.query.get("name", "").removeprefix("/")
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        await self._engine.rename(request.match_info["id"], name)
        return empty()

    async def resize(self, request: web.Request) -> web.Response:
        await self._engine.resize(request.match_info["id"], *terminal_size(request))
        return empty(200)

    async def update(self, request: web.Request) -> web.Response:
        wanted = await body(request, UpdateWire)
        policy = None if wanted.restart_policy is None else restart_policy(wanted.restart_policy)
        warnings = await self._engine.update(request.match_info["id"], limits(wanted), policy)
        return reply({"Warnings": warnings})


def terminal_size(request: web.Request) -> tuple[int, int]:
    """(height, width) of the query. Raises InvalidArgument."""
    height, width = number(request, "h"), number(request, "w")
    if height is None or width is None or not (0 <= height <= MAX_TERMINAL and 0 <= width <= MAX_TERMINAL):
        raise InvalidArgument(f"invalid terminal size: h and w have to be numbers from 0 to {MAX_TERMINAL}")
    return height, width


def _prunable(wanted: dict[str, list[str]]) -> Callable[[Container], bool]:
    until = min((moment_ns(value, "until") for value in wanted.get("until", ())), default=None)

    def selected(container: Container) -> bool:
        labels: dict[str, Any] = container.config.labels
        return (labels_match(wanted.get("label", ()), labels)
                and not any(labels_match([label], labels) for label in wanted.get("label!", ()))
                and (until is None or container.created_ns < until))

    return selected
