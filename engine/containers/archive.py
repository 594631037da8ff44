"""Files of containers: in and out as tar (`docker cp`, `docker export`), and what changed (`docker diff`).

`archiver` reads and writes, in a process of its own. A container that runs is seen as
it sees itself, with its mounts; one that does not is mounted, with its volumes and binds.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from shoal.api import errors
from shoal.api.errors import NotFound, NotImplementedHere, PermissionDenied, ShoalError
from shoal.api.ids import new_container_id
from shoal.engine.containers import archiver
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.nouns import Container
from shoal.engine.containers.pipe import Pipe
from shoal.engine.storage.driver import Change
from shoal.engine.storage.rootfs import RootFSStore

CHUNK_BYTES = 1 << 16
MAX_SAID_BYTES = 64 << 10
_KINDS = {kind.status: kind for kind in (errors.InvalidArgument, errors.PermissionDenied, errors.NotFound)}


class PathStat(msgspec.Struct, frozen=True, kw_only=True):
    """What is at a path. `mode` as lstat(2) has it; `link`: where a link leads, resolved."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link: str = ""


class Archives:
    def __init__(self, engine: Engine, rootfs: RootFSStore) -> None:
        self._engine = engine
        self._rootfs = rootfs

    async def stat(self, ref: str, path: str) -> PathStat:
        """Raises NotFound."""
        async with self._running(ref, "stat", path) as process:
            return await _stat(process, ref, path)

    async def changes(self, ref: str) -> list[Change]:
        """What it changed of its image, by path."""
        return await self._rootfs.changes(self._engine.get(ref).id)

    @asynccontextmanager
    async def pack(self, ref: str, path: str) -> AsyncIterator[tuple[PathStat, AsyncIterator[bytes]]]:
        """What is at the path, and a tar of it. Raises NotFound."""
        async with self._running(ref, "pack", path) as process:
            yield await _stat(process, ref, path), _chunks(process)

    @asynccontextmanager
    async def export(self, ref: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """A tar of the whole root, without what is mounted in it."""
        async with self._running(ref, "export", "/") as process:
            yield _chunks(process)

    async def pack_layer(self, ref: str, target: IO[bytes]) -> None:
        """The tar of a layer: what it changed of its image."""
        await self._rootfs.pack(self._engine.get(ref).id, target)

    async def unpack(self, ref: str, path: str, content: AsyncIterator[bytes], *, keep_kinds: bool,
                     as_user: bool) -> None:
        """A tar into a folder. `keep_kinds`: no file takes a folder's place, nor the other way round.

        Raises NotFound, InvalidArgument, PermissionDenied where it is read-only.
        """
        container = self._engine.get(ref)
        if as_user and container.config.user not in ("", "0", "root"):
            raise NotImplementedHere("copyUIDGID is not supported for a container with a user of its own")
        covered = any(_below(path, mount.target) for mount in container.mounts)
        if container.host.read_only and not covered:
            raise PermissionDenied("container rootfs is marked read-only")
        pipe = Pipe()
        try:
            async with self._running(container.id, "unpack", path, stdin=pipe.end, keep_kinds=keep_kinds) as process:
                pipe.close_end()
                with suppress(BrokenPipeError):  # it has refused: it says why
                    async for chunk in content:
                        await pipe.write(chunk)
                pipe.close()
                await _finished(process, container.id, path)
        finally:
            pipe.close()

    @asynccontextmanager
    async def _running(
        self, ref: str, do: str, path: str, *, stdin: int = asyncio.subprocess.DEVNULL, **more: Any
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """The program at work; ended in any case."""
        container = self._engine.get(ref)
        request: dict[str, Any] = {"do": do, "path": _absolute(path), **more}
        if container.state.pid and do != "export":
            root_fd = request["root_fd"] = os.open(f"/proc/{container.state.pid}/root", os.O_PATH | os.O_DIRECTORY)
            try:
                process = await _start(request, stdin, root_fd)
            finally:
                os.close(root_fd)
            async with _ended(process):
                yield process
            return
        # The root stays mounted: a start under way meanwhile needs it, and a removal takes it away.
        request["root"] = str(await self._rootfs.prepare(container.id, container.image_id))
        holder = new_container_id()
        try:
            request["binds"] = [] if do == "export" else await self._binds(container, holder)
            async with _ended(await _start(request, stdin)) as process:
                yield process
        finally:
            await self._engine.mounts.close(container.mounts, holder)

    async def _binds(self, container: Container, holder: str) -> list[tuple[str, str, bool]]:
        """(source, target, read-only), outer before inner. What is in memory only (tmpfs) is not there."""
        sources = await self._engine.mounts.open(container.mounts, holder)
        points = sorted(container.mounts, key=lambda each: each.target.count("/"))
        binds = [point.source for point in points if point.type == "bind"]
        there = {source for source in binds if await asyncio.to_thread(Path(source).exists)}
        return [(sources.get(point.target, point.source), point.target, not point.writable)
                for point in points if point.target in sources or point.source in there]


async def _start(request: dict[str, Any], stdin: int, *descriptors: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(Path(archiver.__file__)), msgspec.json.encode(request).decode(),
        stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=MAX_SAID_BYTES,
        pass_fds=descriptors)


@asynccontextmanager
async def _ended(process: asyncio.subprocess.Process) -> AsyncIterator[asyncio.subprocess.Process]:
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _below(path: str, folder: str) -> bool:
    return f"{os.path.normpath(_absolute(path))}/".startswith(f"{folder.rstrip('/')}/")


async def _stat(process: asyncio.subprocess.Process, ref: str, path: str) -> PathStat:
    assert process.stderr is not None
    line = await process.stderr.readline()
    try:
        return msgspec.json.decode(line, type=PathStat)
    except msgspec.MsgspecError:
        raise _error(line, ref, path) from None


async def _chunks(process: asyncio.subprocess.Process) -> AsyncIterator[bytes]:
    """The tar. Raises ShoalError where the program broke off."""
    assert process.stdout is not None and process.stderr is not None
    while chunk := await process.stdout.read(CHUNK_BYTES):
        yield chunk
    if await process.wait():
        raise _error(await process.stderr.read(MAX_SAID_BYTES), "", "/")


async def _finished(process: asyncio.subprocess.Process, ref: str, path: str) -> None:
    assert process.stderr is not None
    said = await process.stderr.read(MAX_SAID_BYTES)
    if await process.wait():
        raise _error(said, ref, path)


class _Said(msgspec.Struct):
    status: int
    message: str


def _error(said: bytes, ref: str, path: str) -> ShoalError:
    try:
        told = msgspec.json.decode(said, type=_Said)
    except msgspec.MsgspecError:
        return ShoalError(f"cannot read or write {path}: {said.decode(errors='replace').strip()[-300:]}")
    if told.status == NotFound.status:
        return NotFound(f"Could not find the file {path} in container {ref}")
    return _KINDS.get(told.status, ShoalError)(told.message)
