"""/containers/{id}/archive, /export and /changes: files of containers."""

from __future__ import annotations

import base64
import stat

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument
from shoal.daemon.http.times import rfc3339
from shoal.daemon.http.wire import empty, flag, reply
from shoal.engine.containers.archive import Archives, PathStat

_TAR = {"Content-Type": "application/x-tar"}
_STAT = "X-Docker-Container-Path-Stat"

_GO_KINDS = {stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFBLK: 1 << 26, stat.S_IFIFO: 1 << 25,
             stat.S_IFSOCK: 1 << 24, stat.S_IFCHR: 1 << 26 | 1 << 21}
_GO_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}
"""Source: Go, io/fs, FileMode."""


class ArchiveRoutes:
    def __init__(self, archives: Archives) -> None:
        self._archives = archives

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_head("/containers/{id}/archive", self.stat)
        router.add_get("/containers/{id}/archive", self.pack, allow_head=False)
        router.add_put("/containers/{id}/archive", self.unpack)
        router.add_get("/containers/{id}/changes", self.changes, allow_head=False)
        router.add_get("/containers/{id}/export", self.export, allow_head=False)

    async def stat(self, request: web.Request) -> web.Response:
        found = await self._archives.stat(request.match_info["id"], _path(request))
        return web.Response(headers={_STAT: _encoded(found)})

    async def pack(self, request: web.Request) -> web.StreamResponse:
        async with self._archives.pack(request.match_info["id"], _path(request)) as (found, chunks):
            response = web.StreamResponse(headers={**_TAR, _STAT: _encoded(found)})
            await response.prepare(request)
            async for chunk in chunks:
                await response.write(chunk)
            return response

    async def changes(self, request: web.Request) -> web.Response:
        found = await self._archives.changes(request.match_info["id"])
        return reply([{"Path": each.path, "Kind": int(each.kind)} for each in found])

    async def export(self, request: web.Request) -> web.StreamResponse:
        async with self._archives.export(request.match_info["id"]) as chunks:
            response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            await response.prepare(request)
            async for chunk in chunks:
                await response.write(chunk)
            return response

    async def unpack(self, request: web.Request) -> web.Response:
        await self._archives.unpack(
            request.match_info["id"], _path(request), request.content.iter_any(),
            keep_kinds=flag(request, "noOverwriteDirNonDir"), as_user=flag(request, "copyUIDGID"))
        return empty(200)


def _path(request: web.Request) -> str:
    path = request.query.get("path", "")
    if not path or "\0" in path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    return path


def _encoded(found: PathStat) -> str:
    shown = {"name": found.name, "size": found.size, "mode": go_mode(found.mode), "mtime": rfc3339(found.mtime_ns),
             "linkTarget": found.link}
    return base64.b64encode(msgspec.json.encode(shown)).decode()


def go_mode(mode: int) -> int:
    """A mode of lstat(2) as Go numbers it."""
    bits = sum(go for bit, go in _GO_BITS.items() if mode & bit)
    return _GO_KINDS.get(stat.S_IFMT(mode), 0) | bits | mode & 0o777
