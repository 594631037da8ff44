"""An image from other hosts of the swarm: a source for the engine's pulls. Nothing is believed: digests decide.

A layer may come in pieces from several hosts, one after the other. Where its bytes turn out wrong, it begins
anew, whole from one host: who lies alone is dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import aiohttp
import msgspec

from shoal.api.errors import InvalidArgument, ShoalError, Unavailable
from shoal.api.messages import FoundImage
from shoal.engine.images.blobs import CHUNK_BYTES, BlobWriter
from shoal.engine.images.distribution.manifests import MAX_MANIFEST_BYTES, Descriptor, Manifest, parse_manifest
from shoal.worker.credentials import Credentials
from shoal.worker.peers.choice import Choice
from shoal.worker.peers.coming import Coming

log = logging.getLogger(__name__)

CONNECT_S = 3.0
SILENCE_S = 30.0
"""A host that waits for the blob itself answers within this, and one that sends never pauses for so long."""

MAX_ANSWER_BYTES = 64 << 10
FAILURES = (aiohttp.ClientError, TimeoutError, OSError)


class Lied(Exception):
    """What came is not what was asked for."""


class Slow(Exception):
    """It comes too slowly."""


class _Elsewhere(msgspec.Struct):
    ask: list[str] = []


class Pace(msgspec.Struct, frozen=True):
    """How fast a host has to send; a slower one is dropped where there is another one."""

    least_rate: float = 64 << 10  # bytes a second
    over_s: float = 10.0
    small_s: float = 60.0  # for a manifest or a configuration, whether there is another one or not

    def is_slow(self, received: int, seconds: float) -> bool:
        return seconds >= self.over_s and received < self.least_rate * seconds


PACE = Pace()


class Hosts:
    """Connections to other hosts, as this node. `own`: where this host serves, host:port."""

    def __init__(self, credentials: Credentials, own: Callable[[], str]) -> None:
        self._credentials = credentials
        self._own = own
        self._client: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def get(self, host: str, digest: str, start: int = 0, failed: Collection[str] = (), *, sent: bool = False
                  ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of a host asked for a blob from byte `start` on. `sent`: another one named it.

        Raises one of FAILURES.
        """
        if self._client is None:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S))
        query = [("from", self._own()), ("sent", str(int(sent))), *(("failed", each) for each in sorted(failed))]
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self._client.get(f"https://{host}/blobs/{digest}", params=query, headers=headers,
                                    ssl=self._credentials.client, allow_redirects=False) as answer:
            yield answer

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None


class Taking:
    """One pull of one image. A `Source`; `close` it when the pull is over."""

    def __init__(self, found: FoundImage, hosts: Hosts, coming: Coming, pace: Pace) -> None:
        self._found = found
        self._hosts = hosts
        self._pace = pace
        self._coming = coming
        self._manifest = found.digest
        self._expected: set[str] = set()
        self._banned: set[str] = set()

    @property
    def private(self) -> bool:
        return self._found.private

    def close(self) -> None:
        for digest in self._expected:
            self._coming.forget(digest)

    async def manifest(self, reference: str, expected: str = "") -> Manifest:
        digest = expected or self._found.digest
        manifest = parse_manifest(await self._small(digest, MAX_MANIFEST_BYTES), "", digest)
        self._manifest = digest
        return manifest

    async def small_blob(self, wanted: Descriptor, most_bytes: int) -> bytes:
        if wanted.size > most_bytes:
            raise InvalidArgument(f"blob {wanted.digest} has {wanted.size} bytes, at most {most_bytes} are allowed")
        return await self._small(wanted.digest, wanted.size)

    async def fetch(self, wanted: Descriptor, target: Path, count: Callable[[int], None]) -> None:
        self._expected.add(wanted.digest)
        self._coming.expect(wanted.digest, self._manifest, private=self.private)
        choice = Choice(shuffled(self._found.peers), self._banned)
        with target.open("wb") as file:
            part = _Part(file, wanted)
            while not part.whole and (host := choice.next()) is not None:
                await self._ask(host, part, choice, count)
        if not part.whole:
            self._coming.forget(wanted.digest)
            raise Unavailable(f"no other host gives layer {wanted.digest}")
        self._coming.arrived(wanted.digest, target)

    async def _ask(self, host: str, part: _Part, choice: Choice, count: Callable[[int], None]) -> None:
        try:
            async with self._hosts.get(host, part.wanted.digest, part.size, choice.failed,
                                       sent=host in choice.sent) as answer:
                if answer.status in (200, 206):
                    await _receive(answer, host, part, choice, count, self._pace)
                elif answer.status == 300:
                    choice.sent_on(host, shuffled(await _named(answer)))
                elif answer.status == 503:
                    choice.again(host)
                    await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 (spreads askers)
                else:
                    choice.lost(host)
        except Lied:
            log.warning("event=peers-lied hosts=%s blob=%s", ",".join(sorted(part.givers)), part.wanted.digest)
            if len(part.givers) == 1:
                choice.drop(host)
            else:  # one of several: each has to show by itself
                part.mixed = False
                choice.again(host)
            part.restart()
        except Slow:
            log.warning("event=peer-slow host=%s blob=%s", host, part.wanted.digest)
            choice.drop(host)
        except FAILURES as error:
            log.info("event=peer-failed host=%s blob=%s why=%s", host, part.wanted.digest,
                     error or type(error).__name__)
            choice.lost(host)
            if not part.mixed:
                part.restart()

    async def _small(self, digest: str, most_bytes: int) -> bytes:
        """A blob that any one of the hosts gives. Raises Unavailable."""
        for host in shuffled(self._found.peers):
            if host in self._banned:
                continue
            try:
                async with asyncio.timeout(self._pace.small_s), self._hosts.get(host, digest) as answer:
                    content = await _limited(answer, most_bytes) if answer.status == 200 else b""
            except FAILURES as error:
                log.info("event=peer-failed host=%s blob=%s why=%s", host, digest, error or type(error).__name__)
                continue
            if "sha256:" + hashlib.sha256(content).hexdigest() == digest:
                return content
            if answer.status == 200:
                log.warning("event=peers-lied hosts=%s blob=%s", host, digest)
                self._banned.add(host)
        raise Unavailable(f"no other host gives {digest}")


class _Part:
    """What is there of a blob so far, and who gave it."""

    def __init__(self, file: IO[bytes], wanted: Descriptor) -> None:
        self.wanted = wanted
        self.givers: set[str] = set()
        self.whole = False
        self.mixed = True  # several may give pieces of it
        self._file = file
        self._writer = BlobWriter(file)

    @property
    def size(self) -> int:
        return self._writer.size

    async def add(self, pieces: Sequence[bytes]) -> None:
        """Raises Lied where that is too much, or all and wrong, and ShoalError where it cannot be written."""
        if self.size + sum(map(len, pieces)) > self.wanted.size:
            raise Lied
        try:
            await asyncio.to_thread(self._writer.writelines, pieces)
        except OSError as error:
            raise ShoalError(f"layer {self.wanted.digest} cannot be kept: {error.strerror or error}") from error
        self.check()

    def check(self) -> None:
        if self.size == self.wanted.size:
            if self._writer.digest != self.wanted.digest:
                raise Lied
            self.whole = True

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._writer = BlobWriter(self._file)
        self.givers.clear()


async def _receive(answer: aiohttp.ClientResponse, host: str, part: _Part, choice: Choice,
                   count: Callable[[int], None], pace: Pace) -> None:
    """All that a host sends. Raises Lied, Slow, or one of FAILURES."""
    part.givers.add(host)
    if answer.status == 200 and part.size:
        part.restart()
        part.givers.add(host)
    clock = asyncio.get_running_loop().time
    since, received = clock(), 0
    pending: list[bytes] = []
    size = 0
    try:
        async for chunk in answer.content.iter_any():
            pending.append(chunk)
            size += len(chunk)
            received += len(chunk)
            if size >= CHUNK_BYTES:
                await part.add(pending)
                pending, size = [], 0
                count(part.size)
            if choice.has_other and pace.is_slow(received, clock() - since):
                raise Slow
            if clock() - since >= pace.over_s:
                since, received = clock(), 0
    finally:
        await part.add(pending)  # what came before a cut need not come again
    count(part.size)
    if not part.whole:
        raise Lied


def shuffled(hosts: Iterable[str]) -> list[str]:
    """In no order, so that not all ask the same one first."""
    found = list(hosts)
    random.shuffle(found)
    return found


async def _named(answer: aiohttp.ClientResponse) -> list[str]:
    try:
        return _elsewhere.decode(await _limited(answer, MAX_ANSWER_BYTES)).ask
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


async def _limited(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """What it says, cut off after that and one byte."""
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > most_bytes:
            break
    return bytes(content[:most_bytes + 1])


_elsewhere = msgspec.json.Decoder(_Elsewhere)
