"""The HTTP routes of the distribution specification, over a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from aiohttp import hdrs, web

from shoal.registry import manifests, names, transfer
from shoal.registry.auth.access import Access, Authenticator
from shoal.registry.errors import (
    AuthRequired,
    BlobUnknown,
    Denied,
    DigestInvalid,
    RangeInvalid,
    TooLarge,
    Unsupported,
)
from shoal.registry.proxy import Upstream
from shoal.registry.store import Store
from shoal.registry.uploads import PIECE, Upload, Uploads

MOST_TAGS = 10_000
MOST_REPOSITORIES = 1_000
DEFAULT_REPOSITORIES = 100
SILENCE_S = 60.0


class Registry:
    """The handlers of one store."""

    def __init__(self, store: Store, uploads: Uploads, authenticator: Authenticator, *, deletes: bool = False,
                 upstream: Upstream | None = None) -> None:
        self._store, self._uploads, self._authenticator = store, uploads, authenticator
        self._deletes, self._upstream = deletes, upstream

    def routes(self) -> list[web.RouteDef]:
        """In the order in which they are tried."""
        name = "/v2/{name:.+}"
        return [
            web.get("/v2/", self.base),
            web.get("/v2", self.base),
            web.get("/v2/_catalog", self.catalog),
            web.get(name + "/tags/list", self.tags),
            web.get(name + "/referrers/{digest}", self.referrers),
            web.post(name + "/blobs/uploads/", self.start),
            web.post(name + "/blobs/uploads", self.start),
            web.get(name + "/blobs/uploads/{id}", self.status),
            web.patch(name + "/blobs/uploads/{id}", self.patch),
            web.put(name + "/blobs/uploads/{id}", self.finish),
            web.delete(name + "/blobs/uploads/{id}", self.cancel),
            web.get(name + "/blobs/{digest}", self.blob),
            web.delete(name + "/blobs/{digest}", self.delete_blob),
            web.get(name + "/manifests/{reference}", self.manifest),
            web.put(name + "/manifests/{reference}", self.put_manifest),
            web.delete(name + "/manifests/{reference}", self.delete_manifest),
        ]

    async def _name(self, request: web.Request, action: str) -> names.Repository:
        """The repository of the request, once its sender may do `action` there."""
        name = names.repository(request.match_info["name"])
        actions = ("pull", "push") if action == "push" else (action,)
        await self._authenticator.allow(request.headers.get(hdrs.AUTHORIZATION), Access("repository", name, actions))
        if action == "push" and self._upstream:
            raise Unsupported("this registry is a cache of another; push there")
        if action == "delete" and not self._deletes:
            raise Unsupported("deletion is off; start the registry with --delete")
        return name

    async def base(self, request: web.Request) -> web.Response:
        await self._authenticator.allow(request.headers.get(hdrs.AUTHORIZATION), None)
        return web.json_response({})

    async def catalog(self, request: web.Request) -> web.Response:
        await self._authenticator.allow(
            request.headers.get(hdrs.AUTHORIZATION), Access("registry", "catalog", ("*",)))
        found = await asyncio.to_thread(self._store.catalog)
        return _page(request, found, DEFAULT_REPOSITORIES, MOST_REPOSITORIES, lambda part: {"repositories": part})

    async def tags(self, request: web.Request) -> web.Response:
        name = await self._name(request, "pull")
        found = await asyncio.to_thread(self._store.tags, name)
        return _page(request, found, MOST_TAGS, MOST_TAGS, lambda part: {"name": name, "tags": part})

    async def referrers(self, request: web.Request) -> web.Response:
        name = await self._name(request, "pull")
        digest = names.digest(request.match_info["digest"])
        found = await asyncio.to_thread(self._store.referrers, name, digest)
        headers = {}
        if wanted := request.query.getall("artifactType", []):
            found = [each for each in found if each.artifact_type in wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        body = msgspec.json.encode({"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": found})
        return web.Response(body=body, content_type=manifests.OCI_INDEX, headers=headers)

    # Uploads

    async def start(self, request: web.Request) -> web.Response:
        """Begin an upload, take a blob in one body (?digest=), or mount one of another repository (?mount=&from=)."""
        name = await self._name(request, "push")
        if "mount" in request.query and await self._mount(request, name):
            return _created_blob(name, names.digest(request.query["mount"]))
        wanted = names.digest(request.query["digest"]) if "digest" in request.query else None
        upload = await self._uploads.start(name)
        if wanted is None:
            return _accepted(upload, 0)
        try:
            async with self._uploads.writing(upload):
                await self._uploads.receive(upload, _body(request))
                await self._uploads.finish(upload, wanted)
        except BaseException:
            await self._uploads.cancel(upload)  # nobody knows its id
            raise
        return _created_blob(name, wanted)

    async def _mount(self, request: web.Request, name: names.Repository) -> bool:
        """Whether it could be done; where not, the client uploads. Without `from` we look nowhere."""
        digest = names.digest(request.query["mount"])
        if not request.query.get("from"):
            return False
        source = names.repository(request.query["from"])
        try:
            await self._authenticator.allow(
                request.headers.get(hdrs.AUTHORIZATION), Access("repository", source, ("pull",)))
            await asyncio.to_thread(self._store.mount, name, digest, source)
        except (BlobUnknown, AuthRequired, Denied):
            return False
        return True

    async def _upload(self, request: web.Request, name: names.Repository) -> Upload:
        return await self._uploads.find(name, request.match_info["id"])

    async def status(self, request: web.Request) -> web.Response:
        upload = await self._upload(request, await self._name(request, "push"))
        return _accepted(upload, await asyncio.to_thread(upload.size), status=204)

    async def patch(self, request: web.Request) -> web.Response:
        upload = await self._upload(request, await self._name(request, "push"))
        async with self._uploads.writing(upload):
            await self._take(request, upload)
            return _accepted(upload, await asyncio.to_thread(upload.size))

    async def finish(self, request: web.Request) -> web.Response:
        name = await self._name(request, "push")
        upload = await self._upload(request, name)
        if "digest" not in request.query:
            raise DigestInvalid("the query names no digest")
        digest = names.digest(request.query["digest"])
        async with self._uploads.writing(upload):
            await self._take(request, upload)
            await self._uploads.finish(upload, digest)
        return _created_blob(name, digest)

    async def _take(self, request: web.Request, upload: Upload) -> None:
        held = await asyncio.to_thread(upload.size)
        try:
            transfer.start_of(request.headers.get(hdrs.CONTENT_RANGE), request.content_length, held)
        except RangeInvalid as error:
            raise RangeInvalid(str(error), held, _location(upload)) from None
        await self._uploads.receive(upload, _body(request))

    async def cancel(self, request: web.Request) -> web.Response:
        upload = await self._upload(request, await self._name(request, "push"))
        async with self._uploads.writing(upload):
            await self._uploads.cancel(upload)
        return web.Response(status=204)

    # Blobs and manifests

    async def blob(self, request: web.Request) -> web.StreamResponse:
        """The file, by sendfile; ranges and conditions are aiohttp's work."""
        name = await self._name(request, "pull")
        digest = names.digest(request.match_info["digest"])
        try:
            path, _ = await asyncio.to_thread(self._store.blob, name, digest)
        except BlobUnknown:
            if self._upstream is None:
                raise
            path = await self._upstream.blob(name, digest)
        return web.FileResponse(path, chunk_size=PIECE, headers={
            "Docker-Content-Digest": digest, hdrs.CONTENT_TYPE: "application/octet-stream",
            hdrs.CACHE_CONTROL: "max-age=31536000", hdrs.ACCEPT_RANGES: "bytes",
        })

    async def delete_blob(self, request: web.Request) -> web.Response:
        name = await self._name(request, "delete")
        await asyncio.to_thread(self._store.delete_blob, name, names.digest(request.match_info["digest"]))
        return web.Response(status=202)

    async def manifest(self, request: web.Request) -> web.Response:
        name = await self._name(request, "pull")
        reference = request.match_info["reference"]
        if self._upstream:
            await self._upstream.refresh(name, reference)
        digest, content = await asyncio.to_thread(self._store.manifest, name, reference)
        headers = {"Docker-Content-Digest": digest, hdrs.ETAG: f'"{digest}"'}
        if request.headers.get(hdrs.IF_NONE_MATCH, "").strip('"') == digest:
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, content_type=manifests.stored(content).media_type, headers=headers)

    async def put_manifest(self, request: web.Request) -> web.Response:
        name = await self._name(request, "push")
        reference = request.match_info["reference"]
        content = await _small_body(request)
        if ":" in reference:
            wanted = names.digest(reference)
            digest, tag = names.digest_of(content, names.algorithm(wanted)), None
            if digest != wanted:
                raise DigestInvalid(f"the content is {digest}, not {wanted}")
        else:
            digest, tag = names.digest_of(content), names.tag(reference)
        manifest = manifests.parse(content, request.content_type)
        await asyncio.to_thread(self._store.add_manifest, name, digest, content, manifest, tag)
        headers = {hdrs.LOCATION: f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        if manifest.subject:
            headers["OCI-Subject"] = manifest.subject
        return web.Response(status=201, headers=headers)

    async def delete_manifest(self, request: web.Request) -> web.Response:
        """By digest with its tags; by tag only the tag."""
        name = await self._name(request, "delete")
        reference = request.match_info["reference"]
        if ":" in reference:
            await asyncio.to_thread(self._store.delete_manifest, name, names.digest(reference))
        else:
            await asyncio.to_thread(self._store.delete_tag, name, names.tag(reference))
        return web.Response(status=202)


def _page(request: web.Request, found: Sequence[str], default: int, most: int,
          body: Callable[[list[str]], object]) -> web.Response:
    part, more = transfer.page(found, request.query.get("last", ""), request.query.get("n"), default, most)
    headers = {hdrs.LINK: transfer.next_link(request.path, part[-1], len(part))} if more else {}
    return web.json_response(body(part), headers=headers)


def _location(upload: Upload) -> str:
    return f"/v2/{upload.name}/blobs/uploads/{upload.id}"


def _accepted(upload: Upload, size: int, status: int = 202) -> web.Response:
    return web.Response(status=status, headers={
        hdrs.LOCATION: _location(upload), hdrs.RANGE: transfer.held_range(size), "Docker-Upload-UUID": upload.id,
    })


def _created_blob(name: names.Repository, digest: names.Digest) -> web.Response:
    return web.Response(status=201, headers={
        hdrs.LOCATION: f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest,
    })


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Piece by piece; a sender that says nothing for a minute is given up."""
    while True:
        async with asyncio.timeout(SILENCE_S):
            piece = await request.content.readany()
        if not piece:
            return
        yield piece


async def _small_body(request: web.Request) -> bytes:
    content = bytearray()
    async for piece in _body(request):
        content += piece
        if len(content) > manifests.LARGEST_BYTES:
            raise TooLarge(f"a manifest has at most {manifests.LARGEST_BYTES} bytes")
    return bytes(content)
