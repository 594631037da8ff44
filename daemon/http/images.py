"""/images: the images of this host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from urllib.parse import urlsplit

from aiohttp import web

from shoal.api import reference
from shoal.api.errors import InvalidArgument, NotFound
from shoal.daemon.http.imagefilters import LIST_FILTERS, PRUNE_FILTERS, listed, one_truth, prunable
from shoal.daemon.http.imagewire import (
    history_json,
    image_summary,
    inspect_json,
    parse_platform_json,
    removal_json,
    shared_sizes,
)
from shoal.daemon.http.progress import told
from shoal.daemon.http.spool import spooled
from shoal.daemon.http.versions import version_of
from shoal.daemon.http.wire import empty, filters, flag, reply
from shoal.engine.build.remote import fetch
from shoal.engine.images.archive import host_architecture
from shoal.engine.images.distribution.challenges import parse_credentials
from shoal.engine.images.distribution.manifests import Platform, parse_platform
from shoal.engine.images.distribution.progress import Sink, Step
from shoal.engine.images.distribution.puller import Puller
from shoal.engine.images.distribution.pusher import Pusher
from shoal.engine.images.images import Images
from shoal.engine.images.importer import check_platform, unheard


class ImageRoutes:
    def __init__(self, images: Images, puller: Puller, pusher: Pusher) -> None:
        self._images = images
        self._puller = puller
        self._pusher = pusher

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/images/json", self.list, allow_head=False)
        router.add_post("/images/create", self.create)
        router.add_post("/images/load", self.load)
        router.add_post("/images/prune", self.prune)
        router.add_get("/images/get", self.save)
        router.add_get("/images/{name:.+}/json", self.inspect)
        router.add_get("/images/{name:.+}/history", self.history)
        router.add_get("/images/{name:.+}/get", self.save)
        router.add_post("/images/{name:.+}/tag", self.tag)
        router.add_post("/images/{name:.+}/push", self.push)
        router.add_delete("/images/{name:.+}", self.remove)

    async def list(self, request: web.Request) -> web.Response:
        wanted = filters(request, LIST_FILTERS)
        found = listed(self._images, wanted, steps=flag(request, "all"))
        shared = shared_sizes(self._images) if flag(request, "shared-size") else {}
        legacy = version_of(request) < (1, 44)
        return reply([image_summary(image, self._parent(image.id), legacy=legacy, shared_bytes=shared.get(image.id, -1))
                      for image in found])

    def _parent(self, image_id: str) -> str:
        lineage = self._images.lineage(image_id)
        return lineage[1].id if len(lineage) > 1 else ""

    async def inspect(self, request: web.Request) -> web.Response:
        name, platform = request.match_info["name"], _platform(request, since=(1, 49))
        if platform is not None and flag(request, "manifests"):
            raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
        image = self._images.resolve(name)
        check_platform(image, name, platform)
        return reply(inspect_json(image, self._parent(image.id), driver=self._images.driver_name,
                                  legacy=version_of(request) < (1, 44)))

    async def history(self, request: web.Request) -> web.Response:
        name, platform = request.match_info["name"], _platform(request, since=(1, 48))
        image = self._images.resolve(name)
        check_platform(image, name, platform)
        return reply(history_json(image, self._images.layer_bytes(image.id), self._images.lineage(image.id)))

    async def create(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("fromImage"):
            return await self._pull(request)
        return await self._import(request)

    async def _import(self, request: web.Request) -> web.StreamResponse:
        """The tar of a root file system, from the body or from where a URL leads."""
        query = request.query
        source = query.get("fromSrc", "")
        if not source:
            raise InvalidArgument("fromSrc: nothing to import was given")
        platform = parse_platform(query.get("platform", ""), Platform("linux", host_architecture()))
        if platform.os != "linux":
            raise InvalidArgument(f'operating system "{platform.os}" is not supported')
        url = source if "://" in source or source == "-" else f"http://{source}"
        if url != "-" and urlsplit(url).scheme not in ("http", "https"):
            raise InvalidArgument(f"fromSrc: {source} is neither - (the request's body) nor an http or https URL")

        async def work(progress: Sink) -> None:
            async with spooled(request, self._images.blobs.scratch) as archive:
                if url != "-":
                    progress({"status": f"Downloading from {url}"})
                    await fetch(url, archive)
                image = await self._images.import_rootfs(
                    archive,
                    changes=query.getall("changes", []),
                    repository=query.get("repo", ""),
                    tag=query.get("tag", ""),
                    comment=query.get("message", "") or f"Imported from {source}",
                    platform=platform,
                )
            progress({"status": image.id})

        return await told(request, work)

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        """One image, or where no tag is named every tag of the repository."""
        name, tag = request.query["fromImage"], request.query.get("tag", "")
        if tag:
            name += f"@{tag}" if reference.is_digest(tag) else f":{tag}"
        wanted, platform = reference.parse(name), request.query.get("platform", "")
        credentials = parse_credentials(request.headers.get("X-Registry-Auth", ""))
        everything = not tag and reference.names_repository(name)

        async def pull(progress: Sink) -> None:
            if everything:
                await self._puller.pull_all(wanted, platform, credentials, progress)
            else:
                await self._puller.pull(wanted, platform, credentials, progress)

        return await told(request, pull)

    async def load(self, request: web.Request) -> web.StreamResponse:
        platform = _platform(request, since=(1, 48))

        async def work(progress: Sink) -> None:
            heard = unheard if flag(request, "quiet", True) else _layers_told(progress)
            async with spooled(request, self._images.blobs.scratch) as archive:
                try:
                    loaded = await self._images.load(archive, platform, heard)
                except (InvalidArgument, NotFound) as error:  # in the stream, as of dockerd: it has begun by then
                    progress({"errorDetail": {"message": error.message}, "error": error.message})
                    return
            for item, before in loaded:
                for tag, image_id in before.items():
                    progress({"stream": f"The image {tag.familiar} already exists, renaming the old one with ID "
                                        f"{image_id} to empty string\n"})
                for tag in item.tags:
                    progress({"stream": f"Loaded image: {tag.familiar}\n"})
                if not item.tags:
                    progress({"stream": f"Loaded image ID: {item.image.id}\n"})

        return await told(request, work)

    async def save(self, request: web.Request) -> web.StreamResponse:
        from shoal.engine.images.export import save

        names = request.query.getall("names", []) or [request.match_info.get("name", "")]
        names = [name for value in names for name in value.split(",")]
        platform = _platform(request, since=(1, 48))
        chunks = save(self._images, names, platform)  # raises NotFound before anything is sent
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
        await response.prepare(request)
        async with aclosing(chunks):
            async for chunk in chunks:
                await response.write(chunk)
        return response

    async def tag(self, request: web.Request) -> web.Response:
        repository = request.query.get("repo", "")
        await self._images.tag(request.match_info["name"], repository, request.query.get("tag", ""))
        return empty(201)

    async def remove(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        platforms = request.query.getall("platforms", []) if version_of(request) >= (1, 50) else []
        if len(platforms) > 1:
            raise InvalidArgument("multiple platforms are not supported")
        for platform in map(parse_platform_json, platforms):
            check_platform(self._images.resolve(name), name, platform)
        removals = await self._images.remove(name, force=flag(request, "force"),
                                             parents=not flag(request, "noprune"))
        return reply([removal_json(removal) for removal in removals])

    async def prune(self, request: web.Request) -> web.Response:
        wanted = filters(request, PRUNE_FILTERS)
        dangling = one_truth(wanted, "dangling")
        removals, freed = await self._images.prune(dangling_only=dangling is not False, matches=prunable(wanted))
        return reply({"ImagesDeleted": [removal_json(removal) for removal in removals], "SpaceReclaimed": freed})

    async def push(self, request: web.Request) -> web.StreamResponse:
        """One tag, or where none is named every tag of the repository."""
        name, tag = request.match_info["name"], request.query.get("tag", "")
        wanted = reference.parse(f"{name}:{tag}" if tag else name)
        if wanted.digest:
            raise InvalidArgument("cannot push a digest reference")
        credentials = parse_credentials(request.headers.get("X-Registry-Auth", ""))
        everything, platform = not tag and reference.names_repository(name), _platform(request, since=(1, 46))
        return await told(request, lambda progress: self._pusher.push(
            wanted, credentials, progress, all_tags=everything, platform=platform))


def _platform(request: web.Request, since: tuple[int, int]) -> Platform | None:
    """The one that is asked for; before that version of the API none is. Raises InvalidArgument."""
    return parse_platform_json(request.query.get("platform", "")) if version_of(request) >= since else None


def _layers_told(progress: Sink) -> Callable[[str, int, int], None]:
    """Lines of how far layers are, from what a thread says of them."""
    loop, steps = asyncio.get_running_loop(), dict[str, Step]()

    def tell(diff_id: str, done: int, total: int) -> None:
        step = steps.get(diff_id) or steps.setdefault(diff_id, Step(progress, diff_id, loop.time))
        step.count("Loading layer", done, total)

    def heard(diff_id: str, done: int, total: int) -> None:
        loop.call_soon_threadsafe(tell, diff_id, done, total)

    return heard
