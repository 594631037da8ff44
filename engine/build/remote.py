"""What lies elsewhere: contexts and Dockerfiles by URL, git repositories, the URLs of ADD. Everything is bounded."""

from __future__ import annotations

import asyncio
import hashlib
import posixpath
import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import msgspec
from yarl import URL

from shoal.api.errors import InvalidArgument, NotFound, Unavailable

MAX_BYTES = 8 << 30
TIMEOUT_S = 900.0
_CHUNK_BYTES = 1 << 20
_GIT_PREFIXES = ("git://", "github.com/", "git@")
_GIT_ENDING = re.compile(r"\.git(?:#.+)?$")
_BINARY = frozenset((*range(9), 11, *range(14, 27), *range(28, 32)))
"""Bytes that no text has."""

_HEAD_BYTES = 100
_CHECKSUM = re.compile(r"^sha256:[0-9a-f]{64}\Z")


class Download(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was fetched. `name`: what it is called, "" where nothing tells; `kind`: its media type."""

    path: Path
    name: str
    kind: str
    modified: float  # seconds since the epoch; 0: not told


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def is_git(text: str) -> bool:
    return text.startswith(_GIT_PREFIXES) or (is_url(text) and _GIT_ENDING.search(text) is not None)


async def fetch(url: str, target: Path, checksum: str = "") -> Download:
    """The file at a URL, written to `target`. Raises ShoalError naming the URL."""
    if checksum and not _CHECKSUM.match(checksum):
        raise InvalidArgument(f'invalid checksum digest format: "{checksum}" (sha256:… is supported)')
    try:
        return await _fetch(url, target, checksum)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise Unavailable(f"failed to get {url}: {error or 'no answer in time'}") from error


async def _fetch(url: str, target: Path, checksum: str) -> Download:
    digest, size, head = hashlib.sha256(), 0, b""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with (aiohttp.ClientSession(auto_decompress=False, trust_env=True, timeout=timeout) as session,
                session.get(URL(url)) as answer):
        if answer.status >= 400:
            raise NotFound(f"failed to GET {url} with status {answer.status} {answer.reason}")
        with target.open("wb") as file:
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                size += len(chunk)
                if size > MAX_BYTES:
                    raise InvalidArgument(f"{url} is larger than {MAX_BYTES} bytes")
                digest.update(chunk)
                head = head or chunk[:_HEAD_BYTES]
                await asyncio.to_thread(file.write, chunk)
        if checksum and checksum != f"sha256:{digest.hexdigest()}":
            raise InvalidArgument(f"digest mismatch sha256:{digest.hexdigest()}: {checksum} ({url})")
        return Download(path=target, name=_name(URL(url), answer), kind=kind_of(answer.content_type, head),
                        modified=_modified(answer.headers.get("Last-Modified", "")))


def kind_of(told: str, head: bytes) -> str:
    """What a file is that begins so: plain text also where a server says just bytes, as of names without an ending.

    Pure. Source: moby, builder/remotecontext/remote.go.
    """
    return "text/plain" if told == "application/octet-stream" and head and not _BINARY & set(head) else told


def _name(url: URL, answer: aiohttp.ClientResponse) -> str:
    if not url.path.endswith("/") and (name := posixpath.basename(url.path)):
        return name
    told = answer.content_disposition.filename if answer.content_disposition else None
    return posixpath.basename(told or "")


def _modified(text: str) -> float:
    with suppress(ValueError, TypeError):
        return parsedate_to_datetime(text).timestamp()
    return 0.0


class GitReference(msgspec.Struct, frozen=True):
    """`url#reference:folder`."""

    url: str
    reference: str = ""
    folder: str = ""


def parse_git(text: str) -> GitReference:
    """Pure. Raises InvalidArgument."""
    url, _, fragment = text.partition("#")
    reference, _, folder = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if reference.startswith("-") or url.startswith("-") or any(part == ".." for part in folder.split("/")):
        raise InvalidArgument(f"invalid git reference: {text}")
    return GitReference(url, reference, folder.strip("/"))


async def clone(text: str, target: Path) -> Path:
    """A git repository at a reference, without its history; the folder that is the context. Raises ShoalError."""
    wanted = parse_git(text)
    await _git("init", "--quiet", str(target))
    await _git("-C", str(target), "fetch", "--quiet", "--depth=1", "--recurse-submodules=yes", wanted.url,
               wanted.reference or "HEAD")
    await _git("-C", str(target), "checkout", "--quiet", "FETCH_HEAD")
    await _git("-C", str(target), "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    place = target / wanted.folder
    if not place.is_dir() or place.resolve() != place:
        raise InvalidArgument(f"error setting git context, {wanted.folder!r} is not a folder of {wanted.url}")
    return place


async def _git(*words: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "git", "-c", "protocol.file.allow=never", "-c", "core.hooksPath=/dev/null", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_TERMINAL_PROMPT": "0", "HOME": "/nonexistent"})
    except FileNotFoundError:
        raise Unavailable("unable to prepare context: git is not installed on this host") from None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, said = await process.communicate()
    except TimeoutError:
        raise Unavailable(f"git did not end in {TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise InvalidArgument(f"error fetching: {said.decode(errors='replace').strip()[-500:]}")
