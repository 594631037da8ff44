"""A pull-through cache: what is asked for and is not here comes from another registry, and stays.

Nothing is served before its digest was verified. One fetch for each thing, however many ask for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import hdrs

from shoal.registry import manifests, names
from shoal.registry.errors import BlobUnknown, DigestInvalid, ManifestInvalid, ManifestUnknown, UpstreamFailed
from shoal.registry.manifests import Manifest
from shoal.registry.names import Digest, Repository
from shoal.registry.store import Store
from shoal.registry.uploads import PIECE, Uploads

log = logging.getLogger("shoal.registry")
MOST_DOWNLOADS = 16
LONGEST_TOKEN_ANSWER = 1 << 20
MOST_TAGS = 10_000
"""Of which is remembered that they were compared."""
PATIENCE_S = 5.0
"""For a comparison of what is here already."""
ASK_AGAIN_S = 10.0
"""After a comparison that failed, so that not everybody has to wait for it."""
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_ACCEPT = ", ".join(manifests.IMAGES + manifests.INDEXES)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class Upstream:
    """The other registry. `credentials`: user and password, for Basic and for its token server. A tag that was compared
    with it is served for `tag_ttl_s` without asking again."""

    def __init__(self, url: str, store: Store, uploads: Uploads, credentials: tuple[str, str] | None = None,
                 tag_ttl_s: float = 0.0, patience_s: float = PATIENCE_S) -> None:
        self._url, self._store, self._uploads = url.rstrip("/"), store, uploads
        self._tag_ttl_s, self._patience_s = tag_ttl_s, patience_s
        self._basic = aiohttp.BasicAuth(*credentials) if credentials else None
        self._authorization: dict[Repository, str] = {}
        self._fetches: dict[tuple[Repository, str], asyncio.Task[None]] = {}
        self._fresh_until: dict[tuple[Repository, str], float] = {}
        self._slots = asyncio.Semaphore(MOST_DOWNLOADS)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        for task in self._fetches.values():
            task.cancel()
        await asyncio.gather(*self._fetches.values(), return_exceptions=True)
        if self._session:
            await self._session.close()

    async def refresh(self, name: Repository, reference: str) -> None:
        """See that the manifest is here, and that a tag is what the other registry has, where that can be reached."""
        try:
            held: Digest | None = await asyncio.to_thread(self._store.resolve, name, reference)
        except ManifestUnknown:
            held = None
        fresh = time.monotonic() < self._fresh_until.get((name, reference), 0.0)
        if held and (fresh or names.is_digest(reference)):
            return
        try:
            async with asyncio.timeout(self._patience_s if held else None):
                await self._once(name, reference, lambda: self._manifest(name, reference, held))
            self._serve_for(self._tag_ttl_s, name, reference)
        except (UpstreamFailed, TimeoutError) as error:
            if held is None:
                raise
            self._serve_for(max(self._tag_ttl_s, ASK_AGAIN_S), name, reference)
            log.warning("serving what is cached repository=%s reference=%s error=%s", name, reference, error)

    def _serve_for(self, seconds: float, name: Repository, reference: str) -> None:
        if seconds and not names.is_digest(reference):
            if len(self._fresh_until) >= MOST_TAGS:
                self._fresh_until.clear()
            self._fresh_until[name, reference] = time.monotonic() + seconds

    async def blob(self, name: Repository, digest: Digest) -> Path:
        """Fetch it whole and verify it; then where it lies."""
        await self._once(name, digest, lambda: self._download(name, digest))
        path, _ = await asyncio.to_thread(self._store.blob, name, digest)
        return path

    async def _once(self, name: Repository, what: str, fetch: Callable[[], Coroutine[None, None, None]]) -> None:
        """One fetch, however many ask meanwhile. Who goes away leaves it to the others, and to the cache."""
        task = self._fetches.get((name, what))
        if task is None:
            task = asyncio.get_running_loop().create_task(fetch())
            self._fetches[name, what] = task
            task.add_done_callback(lambda done: self._fetched(name, what, done))
        await asyncio.shield(task)

    def _fetched(self, name: Repository, what: str, done: asyncio.Task[None]) -> None:
        self._fetches.pop((name, what), None)
        if not done.cancelled():
            done.exception()  # everybody who asked may have gone away

    async def _manifest(self, name: Repository, reference: str, held: Digest | None) -> None:
        path = f"/v2/{name}/manifests/{reference}"
        if held:
            async with await self._request("HEAD", name, path) as answer:
                if answer.status == 200 and answer.headers.get("Docker-Content-Digest") == held:
                    return
        async with await self._request("GET", name, path) as answer:
            if answer.status == 404:
                raise ManifestUnknown(f"manifest unknown: {name}:{reference}")
            if answer.status != 200:
                raise UpstreamFailed(f"{self._url} answered {answer.status} for {name}:{reference}")
            try:
                content = await _at_most(answer, manifests.LARGEST_BYTES)
                manifest = manifests.parse(content, answer.content_type)
            except (aiohttp.ClientError, ManifestInvalid) as error:
                raise UpstreamFailed(f"{self._url}: {error}") from error
        by_digest = names.is_digest(reference)
        digest = names.digest_of(content, reference.partition(":")[0] if by_digest else "sha256")
        if by_digest and digest != reference:
            raise UpstreamFailed(f"{self._url} sent {digest} where {reference} was asked for")
        await asyncio.to_thread(self._store.add_manifest, name, digest, content, _alone(manifest),
                                None if by_digest else names.tag(reference))

    async def _download(self, name: Repository, digest: Digest) -> None:
        with contextlib.suppress(BlobUnknown):  # who asked before may have brought it since
            await asyncio.to_thread(self._store.blob, name, digest)
            return
        async with self._slots, await self._request("GET", name, f"/v2/{name}/blobs/{digest}") as answer:
            if answer.status == 404:
                raise BlobUnknown(f"blob unknown to repository {name}: {digest}")
            if answer.status != 200:
                raise UpstreamFailed(f"{self._url} answered {answer.status} for {digest}")
            upload = await self._uploads.start(name)
            try:
                await self._uploads.receive(upload, _pieces(answer))
                await self._uploads.finish(upload, digest)
            except (aiohttp.ClientError, DigestInvalid) as error:
                raise UpstreamFailed(f"{self._url}: {error}") from error
            finally:
                await self._uploads.cancel(upload)

    async def _request(self, method: str, name: Repository, path: str) -> aiohttp.ClientResponse:
        """Once, and once more with what the answer's challenge asks for."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT, auto_decompress=False)
        try:
            for again in (False, True):
                headers = {hdrs.ACCEPT: _ACCEPT}
                if name in self._authorization:
                    headers[hdrs.AUTHORIZATION] = self._authorization[name]
                answer = await self._session.request(method, self._url + path, headers=headers)
                if answer.status != 401 or again:
                    return answer
                challenge = answer.headers.get(hdrs.WWW_AUTHENTICATE, "")
                answer.release()
                self._authorization[name] = await self._authorize(self._session, challenge, name)
        except aiohttp.ClientError as error:
            raise UpstreamFailed(f"{self._url} cannot be reached: {error}") from error
        raise AssertionError("unreachable")

    async def _authorize(self, session: aiohttp.ClientSession, challenge: str, name: Repository) -> str:
        scheme, _, rest = challenge.partition(" ")
        wanted = dict(_PARAMETER.findall(rest))
        if scheme.lower() == "basic" and self._basic:
            return self._basic.encode()
        if scheme.lower() != "bearer" or not wanted.get("realm", "").startswith(("http://", "https://")):
            raise UpstreamFailed(f"{self._url} wants credentials")
        query = {"service": wanted.get("service", ""), "scope": f"repository:{name}:pull"}
        async with session.get(wanted["realm"], params=query, auth=self._basic) as answer:
            if answer.status != 200:
                raise UpstreamFailed(f"{wanted['realm']} answered {answer.status}")
            found = _token(await _at_most(answer, LONGEST_TOKEN_ANSWER))
        return f"Bearer {found}"


def _token(content: bytes) -> str:
    try:
        found = msgspec.json.decode(content, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise UpstreamFailed(f"the token server's answer cannot be read: {error}") from error
    token = found.get("token") or found.get("access_token")
    if not isinstance(token, str):
        raise UpstreamFailed("the token server answered without a token")
    return token


def _alone(manifest: Manifest) -> Manifest:
    """Without what it refers to: that comes when it is asked for."""
    return Manifest(manifest.media_type, subject=manifest.subject)


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for piece in answer.content.iter_chunked(PIECE):
        yield piece


async def _at_most(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    content = bytearray()
    async for piece in answer.content.iter_chunked(PIECE):
        content += piece
        if len(content) > limit:
            raise UpstreamFailed(f"an answer has more than {limit} bytes")
    return bytes(content)
