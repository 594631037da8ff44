"""Gives blobs of images to the other hosts of the swarm: GET /blobs/DIGEST on port 7946.

    200, 206  the blob, or the rest of it
    300       these have it, or will have: {"ask": ["host:port", …]}
    403       it is of a private image that no task of that node uses
    404       it is not here
    503       too many are being served: ask again

Only what belongs to an image of the index is given, or what is being taken and was verified.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from aiohttp import web

from shoal.api.errors import InvalidArgument, NotFound, Overloaded, PermissionDenied
from shoal.api.reference import is_digest
from shoal.engine.images.blobs import CHUNK_BYTES
from shoal.engine.images.images import Images
from shoal.worker.peers.coming import Coming
from shoal.worker.peers.fanout import LEAST_BYTES, FanOut

log = logging.getLogger(__name__)

MOST_AT_ONCE = 4
"""Blobs that are being sent."""

MOST_WAITING = 128
WAIT_S = 20.0
"""For so long an asker waits for its turn, or for a blob that is still coming."""

STALL_S = 30.0
"""Who takes nothing for so long is cut off."""

ALLOWED_S = 30.0
MOST_ALLOWED = 10_000
MOST_FAILED = 64

MayTake = Callable[[str, str], Awaitable[bool]]
"""(node id, digest of a manifest): whether the managers let the node have that private image."""


class Sharing:
    def __init__(self, images: Images, coming: Coming, may_take: MayTake) -> None:
        self.sent_bytes = 0
        self._images = images
        self._coming = coming
        self._may_take = may_take
        self._allowed: dict[tuple[str, str], float] = {}  # (node id, manifest) → until
        self._fanout = FanOut()
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._waiting = 0

    async def blob(self, request: web.Request, node_id: str) -> web.StreamResponse:
        """`node_id`: whose certificate the asker has. Raises ShoalError."""
        digest = request.match_info["digest"]
        if not is_digest(digest):
            raise InvalidArgument(f"{digest[:80]!r} is no digest")
        await self._check(digest, node_id)
        with await self._open(digest) as file:
            size = os.fstat(file.fileno()).st_size
            if size < LEAST_BYTES or self._describes(digest):
                return await self._send(request, file, size)
            if others := self._instead(request, digest):
                return web.json_response({"ask": others}, status=300)
            async with self._turn():
                if others := self._instead(request, digest):  # others came first
                    return web.json_response({"ask": others}, status=300)
                asker = _asker(request)
                self._fanout.begun(digest, asker, asyncio.get_running_loop().time())
                try:
                    return await self._send(request, file, size)
                except BaseException:
                    self._fanout.cut(digest, asker)
                    raise

    def _instead(self, request: web.Request, digest: str) -> tuple[str, ...]:
        """Whom the asker should ask."""
        failed = request.query.getall("failed", [])[:MOST_FAILED]
        return self._fanout.ask_instead(digest, _asker(request), failed, asyncio.get_running_loop().time(),
                                        sent=request.query.get("sent") == "1")

    async def _check(self, digest: str, node_id: str) -> None:
        """Whether the node may have the blob. Raises NotFound where it is not here, and PermissionDenied."""
        records = [self._images.record(image_id) for image_id in self._images.catalog.holders_of(digest)]
        manifests = {record.contents[0] for record in records if record.contents}
        private = all(record.private for record in records)
        if not records:
            coming = self._coming.get(digest)
            if coming is None:
                raise NotFound(f"blob {digest} is not here")
            manifests, private = {coming.manifest}, coming.private
        if private and not await self._is_allowed(node_id, manifests):
            raise PermissionDenied(f"blob {digest} is of a private image that no task of node {node_id} uses")

    def _describes(self, digest: str) -> bool:
        """Whether it is no layer: a manifest, an index or a configuration."""
        records = [self._images.record(image_id) for image_id in self._images.catalog.holders_of(digest)]
        return bool(records) and not any(digest in record.layers for record in records)

    async def _is_allowed(self, node_id: str, manifests: set[str]) -> bool:
        now = asyncio.get_running_loop().time()
        if len(self._allowed) > MOST_ALLOWED:
            self._allowed = {key: until for key, until in self._allowed.items() if until > now}
        for manifest in manifests:
            if self._allowed.get((node_id, manifest), 0.0) > now:
                return True
            if await self._may_take(node_id, manifest):
                self._allowed[node_id, manifest] = now + ALLOWED_S
                return True
        return False

    async def _open(self, digest: str) -> IO[bytes]:
        """The blob, once it has arrived. Raises NotFound where it does not, Overloaded where it takes long."""
        coming = self._coming.get(digest)
        if coming is not None and not self._images.catalog.holders_of(digest):
            async with self._waits():
                await coming.settled.wait()
        places = [coming.path] if coming is not None and coming.path is not None else []
        for path in (*places, self._images.blobs.path(digest)):
            try:
                return await asyncio.to_thread(Path.open, path, "rb")
            except FileNotFoundError:
                continue  # it has just become a part of the store, or did not come
        raise NotFound(f"blob {digest} is not here")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with self._waits():
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()

    @asynccontextmanager
    async def _waits(self) -> AsyncIterator[None]:
        """What is awaited within may take a while. Raises Overloaded where it takes too long, or too many wait."""
        if self._waiting >= MOST_WAITING:
            raise Overloaded("too many wait here already: ask again")
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                yield
        except TimeoutError:
            raise Overloaded("it is not your turn yet: ask again") from None
        finally:
            self._waiting -= 1

    async def _send(self, request: web.Request, file: IO[bytes], size: int) -> web.StreamResponse:
        start = _start(request, size)
        response = web.StreamResponse(status=206 if start else 200)
        response.content_type = "application/octet-stream"
        response.content_length = size - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        file.seek(start)
        await response.prepare(request)
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            async with asyncio.timeout(STALL_S):
                await response.write(chunk)
            self.sent_bytes += len(chunk)
        await response.write_eof()
        return response


def _asker(request: web.Request) -> str:
    """Where the asker serves."""
    return request.query.get("from", "")[:300]


def _start(request: web.Request, size: int) -> int:
    """The first byte that is wanted. Raises InvalidArgument."""
    try:
        start = request.http_range.start or 0
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    if not 0 <= start < max(size, 1):
        raise InvalidArgument(f"a blob of {size} bytes does not begin at byte {start}")
    return start


