"""Stdio over HTTP: the frames in which streams travel together, and the two ways between a client and a process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from aiohttp import web

from shoal.daemon.http.containers.detachkeys import DetachKeys
from shoal.daemon.http.hijack import MULTIPLEXED_STREAM, RAW_STREAM
from shoal.daemon.http.versions import version_of
from shoal.engine.containers.engine import Attachment


class Connection(Protocol):
    """A client's end."""

    closed: asyncio.Event

    async def read(self) -> bytes:
        """The next input; b"" at its end."""

    async def write(self, data: bytes) -> None:
        """Raises ConnectionResetError once the client has gone."""


def frame(stream: int, data: bytes) -> bytes:
    """`data` of one stream (0 stdin, 1 stdout, 2 stderr) among others."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def content_type(request: web.Request, *, tty: bool) -> str:
    """Clients older than 1.42 know only the raw kind, whatever is in it."""
    return RAW_STREAM if tty or version_of(request) < (1, 42) else MULTIPLEXED_STREAM


async def carry(
    connection: Connection, attachment: Attachment, *, stdin: bool, closes_stdin: bool = True,
    keys: DetachKeys | None = None, raw: bool | None = None,
) -> None:
    """Both ways, until the process's output ends, the client goes, or it lets go.

    The end of the client's input ends the process's too, or, without `closes_stdin`, lets go.
    `raw`: output goes out without frames (None: that of a terminal does).
    """
    ways = {asyncio.ensure_future(_inward(connection, attachment, stdin, closes_stdin, keys)),
            asyncio.ensure_future(_outward(connection, attachment, attachment.tty if raw is None else raw))}
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in done:
            with suppress(ConnectionError):  # the client has gone
                way.result()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        await attachment.detach()


async def _inward(
    connection: Connection, attachment: Attachment, stdin: bool, closes_stdin: bool, keys: DetachKeys | None
) -> None:
    """Until the client lets go or is gone."""
    while data := await connection.read():
        if not stdin:
            continue
        if keys is not None:
            data = keys.pass_on(data)
        if data:
            await attachment.write(data)
        if keys is not None and keys.found:
            return
    if stdin and not closes_stdin:
        return
    if stdin:
        await attachment.close_stdin()
    await connection.closed.wait()


async def _outward(connection: Connection, attachment: Attachment, raw: bool) -> None:
    while (output := await attachment.read()) is not None:
        stream, data = output
        await connection.write(data if raw else frame(stream, data))
