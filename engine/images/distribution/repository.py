"""One repository of a registry: manifests, tags and blobs, verified on the way."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.images.blobs import BlobWriter
from shoal.engine.images.distribution.attempts import Attempts, is_final, retried
from shoal.engine.images.distribution.manifests import (
    ACCEPTED,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Manifest,
    parse_manifest,
)
from shoal.engine.images.distribution.registry import FAILURES, Refused, Registry
from shoal.engine.images.distribution.retry import RetryPolicy

MAX_TAGS = 100_000
_WRITTEN_BYTES = 1 << 20
"""At once: each time takes a turn of a thread."""

_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Repository:
    """`path`: without the registry's domain."""

    def __init__(self, registry: Registry, path: str, policy: RetryPolicy, *, push: bool = False) -> None:
        self.registry = registry
        self.path = path
        self.scope = f"repository:{path}:pull" + (",push" if push else "")
        self.policy = policy

    @property
    def private(self) -> bool:
        """Whether the registry was sent credentials for what it gave."""
        return self.registry.sent_credentials

    async def manifest(self, reference: str, expected: str = "") -> Manifest:
        """By tag or digest. Raises Refused; InvalidArgument for what is no manifest, or not the expected one."""
        answer, raw = await retried(
            self.policy, self.registry.read, "GET", f"{self.path}/manifests/{reference}", scope=self.scope,
            headers={"Accept": ", ".join(ACCEPTED)})
        if len(raw) > MAX_MANIFEST_BYTES:
            raise InvalidArgument(f"invalid manifest: it is larger than {MAX_MANIFEST_BYTES} bytes")
        return parse_manifest(raw, answer.headers.get("Content-Type", ""), expected)

    async def tags(self) -> list[str]:
        found: list[str] = []
        path = f"{self.path}/tags/list"
        while path:
            answer, raw = await retried(self.policy, self.registry.read, "GET", path, scope=self.scope)
            try:
                found += msgspec.json.decode(raw, type=_Tags).tags or []
            except msgspec.MsgspecError as error:
                raise InvalidArgument(f"invalid list of tags: {error}") from error
            path = next_page(answer.headers.get("Link", "")) if len(found) < MAX_TAGS else ""
        return found

    async def small_blob(self, wanted: Descriptor, most_bytes: int) -> bytes:
        """A blob for memory. Raises InvalidArgument where it is larger, or not what it should be."""
        if wanted.size > most_bytes:
            raise InvalidArgument(f"blob {wanted.digest} has {wanted.size} bytes, at most {most_bytes} are allowed")
        _, raw = await retried(self.policy, self.registry.read, "GET", f"{self.path}/blobs/{wanted.digest}",
                               scope=self.scope)
        if len(raw) != wanted.size or "sha256:" + hashlib.sha256(raw).hexdigest() != wanted.digest:
            raise InvalidArgument(f"blob {wanted.digest}: the registry's bytes do not match it")
        return raw

    async def fetch(self, wanted: Descriptor, target: Path, count: Callable[[int], None]) -> None:
        """The blob into the file; a cut is mended by asking for the rest. `count` hears the bytes so far.

        Returns once length and digest are verified. Raises Refused, InvalidArgument, or one of FAILURES
        when the policy gives up.
        """
        with target.open("wb") as file:
            writer, attempts = BlobWriter(file), Attempts(self.policy)
            while True:
                before = writer.size
                try:
                    async for pieces in self._rest(wanted, before):
                        if writer.size + sum(map(len, pieces)) > wanted.size:
                            raise InvalidArgument(_wrong(wanted, "it is longer than its descriptor says"))
                        await asyncio.to_thread(writer.writelines, pieces)
                        count(writer.size)
                    if writer.size == wanted.size:
                        break
                    error: Exception = InvalidArgument(_wrong(wanted, f"it ends after {writer.size} bytes"))
                except (*FAILURES, Refused) as raised:
                    if is_final(raised):
                        raise
                    error = raised
                await attempts.failed(error, brought_some=writer.size > before)
            if writer.digest != wanted.digest:
                raise InvalidArgument(_wrong(wanted, f"its digest is {writer.digest}"))

    async def _rest(self, wanted: Descriptor, start: int) -> AsyncIterator[list[bytes]]:
        """From byte `start` on, in pieces as they came.

        A registry that knows no ranges sends all: what is here already is passed over.
        """
        if start == wanted.size:
            return
        headers = {"Range": f"bytes={start}-{wanted.size - 1}"} if start else {}
        async with self.registry.request("GET", f"{self.path}/blobs/{wanted.digest}", scope=self.scope,
                                         headers=headers, expect=(200, 206)) as answer:
            skip = start if answer.status == 200 else 0
            pending: list[bytes] = []
            size = 0
            try:
                async for chunk in answer.content.iter_any():
                    skipped = min(skip, len(chunk))
                    skip -= skipped
                    pending.append(chunk[skipped:] if skipped else chunk)
                    size += len(chunk) - skipped
                    if size >= _WRITTEN_BYTES:
                        yield pending
                        pending, size = [], 0
            except FAILURES:
                yield pending  # what came before the cut need not come again
                raise
            yield pending


def next_page(link: str) -> str:
    """Where a list goes on, by its Link header (RFC 8288); "" where it does not."""
    found = _NEXT.search(link)
    return found[1] if found else ""


def _wrong(wanted: Descriptor, what: str) -> str:
    return f"filesystem layer verification failed for digest {wanted.digest}: {what}"
