"""/images: the images of this host."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from shoal.api import reference
from shoal.api.errors import InvalidArgument
from shoal.daemon.http.progress import told
from shoal.daemon.http.spool import spooled
from shoal.daemon.http.times import NEVER, SECOND_NS, moment_ns, rfc3339, stamp_ns
from shoal.daemon.http.versions import version_of
from shoal.daemon.http.wire import empty, filters, flag, labels_match, reply, truth
from shoal.engine.images.archive import ARCHITECTURES
from shoal.engine.images.config import Image, config_json
from shoal.engine.images.distribution.challenges import parse_credentials
from shoal.engine.images.distribution.progress import Sink
from shoal.engine.images.distribution.puller import Puller
from shoal.engine.images.distribution.pusher import Pusher
from shoal.engine.images.images import Images
from shoal.engine.images.removal import Removal

LIST_FILTERS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})


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
        steps = flag(request, "all")  # of builds: without names, and others stand on them
        found = [image for image in self._images.all() if self._matches(image, wanted)
                 and (steps or image.repo_tags or not self._images.has_children(image.id))]
        legacy = version_of(request) < (1, 44)
        return reply([image_summary(image, wanted.get("reference", ()), legacy=legacy) for image in found])

    def _matches(self, image: Image, wanted: dict[str, Any]) -> bool:
        if not labels_match(wanted.get("label", []), image.config.labels):
            return False
        for value in wanted.get("dangling", []):
            if truth(value, "dangling") == bool(image.repo_tags):
                return False
        patterns = wanted.get("reference", [])
        if patterns and not any(_name_matches(pattern, tag) for pattern in patterns for tag in image.repo_tags):
            return False
        for value in wanted.get("before", []):
            if image.created >= self._images.resolve(value).created:
                return False
        for value in wanted.get("since", []):
            if image.created <= self._images.resolve(value).created:
                return False
        return all(stamp_ns(image.created) < moment_ns(value, "until") for value in wanted.get("until", []))

    async def inspect(self, request: web.Request) -> web.Response:
        image = self._images.resolve(request.match_info["name"])
        body: dict[str, Any] = {
            "Id": image.id,
            "RepoTags": list(image.repo_tags),
            "RepoDigests": list(image.repo_digests),
            "Parent": self._parent(image),
            "Comment": image.comment,
            "Created": image.created or NEVER,
            "DockerVersion": "",
            "Author": image.author,
            "Config": _full_config(image),
            "Architecture": image.architecture,
            "Os": image.os,
            "Size": image.size,
            "GraphDriver": {"Name": "overlay2", "Data": {}},
            "RootFS": {"Type": "layers", "Layers": list(image.layers)},
            "Metadata": {"LastTagTime": rfc3339(int(image.last_tagged * SECOND_NS))},
        }
        if image.variant:
            body["Variant"] = image.variant
        if version_of(request) < (1, 44):
            body["VirtualSize"] = image.size
        return reply(body)

    def _parent(self, image: Image) -> str:
        parent = self._images.record(image.id).parent
        return parent if parent and self._images.has(parent) else ""

    async def history(self, request: web.Request) -> web.Response:
        image = self._images.resolve(request.match_info["name"])
        sizes = iter(self._images.layer_bytes(image.id))
        rows = [
            {
                "Id": "<missing>",
                "Created": stamp_ns(entry.created) // SECOND_NS,
                "CreatedBy": entry.created_by,
                "Tags": None,
                "Size": 0 if entry.empty_layer else next(sizes, 0),
                "Comment": entry.comment,
            }
            for entry in image.history
        ][::-1]
        if rows:
            rows[0] |= {"Id": image.id, "Tags": list(image.repo_tags) or None}  # type: ignore[dict-item]
        return reply(rows)

    async def create(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if query.get("fromImage"):
            return await self._pull(request)
        if query.get("fromSrc", "") != "-":
            raise InvalidArgument("only fromSrc=- (the request's body) can be imported")
        operating_system, _, architecture = query.get("platform", "").partition("/")
        if operating_system not in ("", "linux"):
            raise InvalidArgument(f'operating system "{operating_system}" is not supported')
        async with spooled(request, self._images.blobs.scratch) as archive:
            image = await self._images.import_rootfs(
                archive,
                changes=query.getall("changes", []),
                repository=query.get("repo", ""),
                tag=query.get("tag", ""),
                comment=query.get("message", ""),
                architecture=architecture,
            )
        return _lines([{"status": image.id}])

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
        async with spooled(request, self._images.blobs.scratch) as archive:
            try:
                loaded = await self._images.load(archive)
            except InvalidArgument as error:  # in the stream, as Docker does: its answer has begun by then
                return _lines([{"errorDetail": {"message": error.message}, "error": error.message}])
        lines = []
        for item in loaded:
            lines += [{"stream": f"Loaded image: {tag.familiar}\n"} for tag in item.tags]
            if not item.tags:
                lines.append({"stream": f"Loaded image ID: {item.image.id}\n"})
        return _lines(lines)

    async def save(self, request: web.Request) -> web.StreamResponse:
        from shoal.engine.images.export import save

        names = request.query.getall("names", []) or [request.match_info.get("name", "")]
        names = [name for value in names for name in value.split(",")]
        chunks = save(self._images, names)  # raises NotFound before anything is sent
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
        await response.prepare(request)
        async for chunk in chunks:
            await response.write(chunk)
        return response

    async def tag(self, request: web.Request) -> web.Response:
        repository = request.query.get("repo", "")
        await self._images.tag(request.match_info["name"], repository, request.query.get("tag", ""))
        return empty(201)

    async def remove(self, request: web.Request) -> web.Response:
        removals = await self._images.remove(request.match_info["name"], force=flag(request, "force"))
        return reply([_removal(removal) for removal in removals])

    async def prune(self, request: web.Request) -> web.Response:
        wanted = filters(request, PRUNE_FILTERS)
        dangling = all(truth(value, "dangling") for value in wanted.get("dangling", ["true"]))
        until = min((moment_ns(value, "until") / SECOND_NS for value in wanted.get("until", [])), default=None)
        removals, freed = await self._images.prune(dangling_only=dangling, until=until)
        return reply(
            {"ImagesDeleted": [_removal(removal) for removal in removals], "SpaceReclaimed": freed}
        )

    async def push(self, request: web.Request) -> web.StreamResponse:
        """One tag, or where none is named every tag of the repository."""
        name, tag = request.match_info["name"], request.query.get("tag", "")
        wanted = reference.parse(f"{name}:{tag}" if tag else name)
        if wanted.digest:
            raise InvalidArgument("cannot push a digest reference")
        credentials = parse_credentials(request.headers.get("X-Registry-Auth", ""))
        everything = not tag and reference.names_repository(name)
        return await told(request, lambda progress: self._pusher.push(wanted, credentials, progress,
                                                                      all_tags=everything))


def provides(image: Image, platform: str) -> bool:
    """Whether an image is for a platform such as linux/amd64; every image is for ""."""
    system, _, rest = platform.partition("/")
    architecture = rest.partition("/")[0]
    return system in ("", image.os) and ARCHITECTURES.get(architecture, architecture) in ("", image.architecture)


def image_summary(image: Image, patterns: Sequence[str] = (), *, legacy: bool = False) -> dict[str, Any]:
    """A line of `docker images`. `legacy`: for clients older than 1.44."""
    tags = [tag for tag in image.repo_tags if not patterns or any(_name_matches(p, tag) for p in patterns)]
    summary = {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": tags,
        "RepoDigests": list(image.repo_digests),
        "Created": stamp_ns(image.created) // SECOND_NS,
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config.labels,
        "Containers": -1,
    }
    if legacy:
        summary["VirtualSize"] = image.size
        if not tags:
            summary["RepoTags"] = ["<none>:<none>"]
    return summary


def _removal(removal: Removal) -> dict[str, str]:
    return {"Untagged": removal.untagged} if removal.untagged else {"Deleted": removal.deleted}


def _full_config(image: Image) -> dict[str, Any]:
    config: dict[str, Any] = {"User": "", "Env": [], "Cmd": [], "Entrypoint": [], "WorkingDir": "", "Labels": {}}
    return {**config, "Volumes": {}, "OnBuild": [], **config_json(image.config)}


def _lines(values: Any) -> web.Response:
    """A stream of JSON values, as Docker reports progress."""
    body = b"".join(msgspec.json.encode(value) + b"\r\n" for value in values)
    return web.Response(body=body, content_type="application/json")


def _name_matches(pattern: str, tag: str) -> bool:
    name = tag.rpartition(":")[0]
    return any(
        text.count("/") == pattern.count("/") and fnmatch.fnmatchcase(text, pattern) for text in (tag, name)
    )
