"""A blob into a repository: looked for, mounted from another one, or sent in chunks that go on after a cut.

Source: the OCI distribution specification, push.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from yarl import URL

from shoal.api.errors import ShoalError
from shoal.engine.images.blobs import CHUNK_BYTES
from shoal.engine.images.distribution.attempts import Attempts, is_final, retried
from shoal.engine.images.distribution.registry import FAILURES, Refused, Registry
from shoal.engine.images.distribution.repository import Repository

SENT_BYTES = 32 << 20
"""Of one request: what a cut can cost."""

Count = Callable[[int], None]


async def is_there(repository: Repository, digest: str) -> bool:
    async def look() -> bool:
        async with repository.registry.request("HEAD", f"{repository.path}/blobs/{digest}", scope=repository.scope,
                                               expect=(200, 404)) as answer:
            return answer.status == 200

    return await retried(repository.policy, look)


async def mounted(repository: Repository, digest: str, sources: Iterable[str]) -> tuple[str, URL | None]:
    """Which of the other repositories of that registry the blob was mounted from; "" for none.

    With it an upload that the registry began in place of the mount, if any: to go on with.
    """
    begun: URL | None = None
    for source in sources:
        path = f"{repository.path}/blobs/uploads/?mount={digest}&from={source}"
        try:
            scope = f"{repository.scope} repository:{source}:pull"
            answer, _ = await retried(repository.policy, repository.registry.read, "POST", path, scope=scope,
                                      expect=(201, 202))
        except Refused:
            continue  # it is not for us to read there
        if begun is not None:
            await _abandon(repository, begun)
        if answer.status == 201:
            return source, None
        location = answer.headers.get("Location", "")
        begun = answer.url.join(URL(location, encoded=True)) if location else None
    return "", begun


async def _abandon(repository: Repository, begun: URL) -> None:
    """Give an upload back. Where that fails, the registry purges it in its own time."""
    with suppress(*FAILURES, Refused):
        async with repository.registry.request("DELETE", str(begun), scope=repository.scope, base=begun,
                                               expect=(200, 202, 204)):
            pass


async def upload(repository: Repository, digest: str, path: Path, count: Count, *,
                 sent_bytes: int = SENT_BYTES, begun: URL | None = None) -> None:
    """Send the blob, by an upload that is `begun` if there is one. Raises Refused; ShoalError when the policy gives up.
    """
    run = _Upload(repository.registry, repository, digest, path, count, sent_bytes, begun)
    attempts = Attempts(repository.policy)
    while True:
        before = run.done
        try:
            await run.go_on()
            return
        except (*FAILURES, Refused) as error:
            if isinstance(error, Refused):
                if is_final(error) and error.http_status not in (404, 416):
                    raise
                run.forget()  # it may be the upload that is refused
            await attempts.failed(error, brought_some=run.done > before)


class _Upload:
    """`done`: bytes that the registry has said it has."""

    def __init__(self, registry: Registry, repository: Repository, digest: str, path: Path, count: Count,
                 sent_bytes: int, begun: URL | None) -> None:
        self._registry, self._repository = registry, repository
        self._digest, self._path, self._count = digest, path, count
        self._size = path.stat().st_size
        self._sent_bytes = sent_bytes
        self._location = begun
        self._untouched = begun is not None
        self.done = 0

    async def go_on(self) -> None:
        untouched, self._untouched = self._untouched, False
        if self._location is None:
            await self._begin()
        elif not untouched:
            await self._ask()
        while self._size - self.done > self._sent_bytes:
            await self._chunk(self.done + self._sent_bytes)
        await self._finish()

    def forget(self) -> None:
        self._location = None

    async def _begin(self) -> None:
        self.done = 0
        path = f"{self._repository.path}/blobs/uploads/"
        async with self._registry.request("POST", path, scope=self._repository.scope, expect=(202,)) as answer:
            self._follow(answer.url, answer.headers.get("Location", ""))

    async def _ask(self) -> None:
        """How far the upload is; one that the registry forgot, or finished, begins anew."""
        location, self._location = self._location, None
        async with self._registry.request("GET", str(location), scope=self._repository.scope, base=location,
                                          expect=(204, 404)) as answer:
            if answer.status == 204:
                self.done = received(answer.headers.get("Range", ""))
                self._follow(answer.url, answer.headers.get("Location", "") or str(location))
        if self._location is None:
            await self._begin()

    async def _chunk(self, end: int) -> None:
        headers = {"Content-Range": f"{self.done}-{end - 1}", "Content-Length": str(end - self.done),
                   "Content-Type": "application/octet-stream"}
        async with self._registry.request("PATCH", str(self._location), scope=self._repository.scope, headers=headers,
                                          base=self._location, data=lambda: self._bytes(self.done, end),
                                          expect=(202, 204)) as answer:
            self._follow(answer.url, answer.headers.get("Location", ""))
            self.done = end

    async def _finish(self) -> None:
        assert self._location is not None
        headers = {"Content-Length": str(self._size - self.done), "Content-Type": "application/octet-stream"}
        if self.done:
            headers["Content-Range"] = f"{self.done}-{self._size - 1}"
        where = self._location.extend_query(digest=self._digest)
        async with self._registry.request("PUT", str(where), scope=self._repository.scope, headers=headers, base=where,
                                          data=lambda: self._bytes(self.done, self._size), expect=(201, 204)):
            self.done = self._size

    def _follow(self, base: URL, location: str) -> None:
        if not location:
            raise Refused(0, "", f"{base} names no place to upload to")
        self._location = base.join(URL(location, encoded=True))

    async def _bytes(self, start: int, end: int) -> AsyncIterator[bytes]:
        with self._path.open("rb") as source:
            source.seek(start)
            while start < end:
                data = await asyncio.to_thread(_read, source, min(CHUNK_BYTES, end - start))
                yield data
                start += len(data)
                self._count(start)


def _read(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if not data:
        raise ShoalError("a blob was shortened while it was sent")
    return data


def received(header: str) -> int:
    """Bytes that a Range header ("0-99") says are there. Pure."""
    _, _, last = header.removeprefix("bytes=").partition("-")
    return int(last) + 1 if last.isascii() and last.isdigit() and last != "0" else 0
