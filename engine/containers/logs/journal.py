"""Reading a container's log from systemd's journal, where its conmon writes it. `journalctl` reads it, as JSON.

Only what this user's processes wrote is believed: anybody may send the journal an entry that names a container.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec

from shoal.api.errors import ShoalError
from shoal.engine.containers.logs.logline import STDERR, STDOUT, Line, Pieces
from shoal.engine.containers.nouns import LogQuery

SOCKET = Path("/run/systemd/journal/socket")
SYNC_TIMEOUT_S = 10
MAX_ENTRY_BYTES = 1 << 20
_CHUNK_BYTES = 64 * 1024
_PRIORITY_OF_ERRORS = "3"
_FIELDS = "MESSAGE,PRIORITY,CONTAINER_PARTIAL_MESSAGE"


def check_writable() -> None:
    """Raises ShoalError where nobody would take what conmon writes."""
    if not SOCKET.exists():
        raise ShoalError("failed to initialize logging driver: journald is not enabled on this host")


def check_readable() -> None:
    """Raises ShoalError."""
    if shutil.which("journalctl") is None:
        raise ShoalError("the journal cannot be read: journalctl is not installed on this host")


# --- entries (pure) ---


_Number = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}$")]
_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class Entry(msgspec.Struct, frozen=True):
    cursor: str = msgspec.field(name="__CURSOR")
    time_us: _Number = msgspec.field(name="__REALTIME_TIMESTAMP")
    message: str | list[_Byte] | None = msgspec.field(name="MESSAGE", default=None)  # numbers: not in UTF-8
    priority: str = msgspec.field(name="PRIORITY", default="")
    partial: str = msgspec.field(name="CONTAINER_PARTIAL_MESSAGE", default="")


_decode = msgspec.json.Decoder(Entry).decode


def entry_of(raw: bytes) -> Entry | None:
    """None for what is none of conmon's."""
    try:
        return _decode(raw)
    except msgspec.MsgspecError:
        return None


def line_of(entry: Entry) -> Line:
    """A piece of a line where the program's write did not end one. Some conmons keep a line's newline."""
    seconds, rest_us = divmod(int(entry.time_us), 1_000_000)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_us:06}000+00:00"
    message = entry.message or ""
    content = message.encode() if isinstance(message, str) else bytes(message)
    return Line(stamp.encode(), STDERR if entry.priority == _PRIORITY_OF_ERRORS else STDOUT,
                content if entry.partial or content.endswith(b"\n") else content + b"\n")


# --- reading ---


async def lines(
    container_id: str, query: LogQuery, *, runs: Callable[[], bool], changed: asyncio.Event
) -> AsyncGenerator[list[Line], None]:
    """Whole lines, as many at once as are there. `changed` is set when the container is no more what it was."""
    await _sync()
    pieces = Pieces()
    place = await _beginning(container_id, query)
    async with _entries(container_id, place) as found:
        async for entries in found:
            place = [_after(entries[-1])]
            yield pieces.join(map(line_of, entries))
    if query.follow and runs():
        over = partial(_over, query.until_ns, runs, changed)
        async with _entries(container_id, ["--follow", "--no-tail", *place], over) as found:
            async for entries in found:
                place = [_after(entries[-1])]
                yield pieces.join(map(line_of, entries))
        await _sync()
        async with _entries(container_id, place) as found:  # what it wrote just before its end
            async for entries in found:
                yield pieces.join(map(line_of, entries))
    yield pieces.rest()


async def _beginning(container_id: str, query: LogQuery) -> list[str]:
    """How journalctl is told where the lines that are wanted begin: the last ones are counted back to."""
    if query.tail < 0:
        return [f"--since=@{query.since_ns // 1_000_000_000}"] if query.since_ns else []
    counted = 0
    async with _entries(container_id, ["--reverse"]) as found:
        async for entries in found:
            for entry in entries:
                counted += not entry.partial or not counted  # an unfinished line at the very end counts as one
                if counted > query.tail:
                    return [_after(entry)]
    return []


def _after(entry: Entry) -> str:
    return f"--after-cursor={entry.cursor}"


async def _over(until_ns: int, runs: Callable[[], bool], changed: asyncio.Event) -> None:
    """Until the container has ended, or that moment has come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, until_ns / 1e9 - time.time()) if until_ns else None):
            while runs():
                changed.clear()
                await changed.wait()


# --- journalctl ---


@asynccontextmanager
async def _entries(
    container_id: str, place: list[str], over: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> AsyncIterator[AsyncIterator[list[Entry]]]:
    """Those from `place` on, as many at once as come; none any more once it is `over`."""
    async with _journalctl(
            "--all", "--output=json", f"--output-fields={_FIELDS}", *place,
            f"CONTAINER_ID_FULL={container_id}", f"_UID={os.geteuid()}") as process:
        if over is None:
            yield _parsed(process)
            return
        ending = asyncio.get_running_loop().create_task(over())
        ending.add_done_callback(lambda _: _end(process))
        try:
            yield _parsed(process)
        finally:
            ending.cancel()


async def _parsed(process: asyncio.subprocess.Process) -> AsyncIterator[list[Entry]]:
    """Raises ShoalError for an entry that does not end."""
    assert process.stdout is not None
    rest = b""
    while chunk := await process.stdout.read(_CHUNK_BYTES):
        *raw, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_ENTRY_BYTES:
            raise ShoalError(f"the journal has an entry of more than {MAX_ENTRY_BYTES} bytes")
        if entries := [entry for each in raw if (entry := entry_of(each)) is not None]:
            yield entries


async def _sync() -> None:
    """Have journald write down what it was sent until now."""
    async with _journalctl("--sync") as process:
        with suppress(TimeoutError):  # it is overloaded, or gone: what is there is shown
            async with asyncio.timeout(SYNC_TIMEOUT_S):
                await process.wait()


@asynccontextmanager
async def _journalctl(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        "journalctl", "--quiet", *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        _end(process)
        await process.wait()


def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
