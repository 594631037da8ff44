"""A stream of JSON lines that tells how work goes on, as the docker command reads it. Work ends with its client."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from shoal.api.errors import ShoalError, in_words

MAX_WAITING = 10_000
_LOOK_S = 1.0
"""How often it is seen whether a client that is told nothing is still there."""

Line = dict[str, Any]


class _Lines:
    """What is not sent yet. Past the bound the lines of figures go first: later ones replace them."""

    def __init__(self) -> None:
        self._waiting: deque[Line] = deque()
        self.some = asyncio.Event()

    def put(self, line: Line) -> None:
        if len(self._waiting) < MAX_WAITING or not line.get("progressDetail"):
            self._waiting.append(line)
            self.some.set()

    def take(self) -> bytes:
        lines = b"".join(msgspec.json.encode(line) + b"\r\n" for line in self._waiting)
        self._waiting.clear()
        self.some.clear()
        return lines


async def told(request: web.Request, work: Callable[[Callable[[Line], None]], Awaitable[None]]) -> web.StreamResponse:
    """Do the work and stream what it tells.

    An error before its first line is raised; a later one is the stream's last line, for the status has been sent.
    """
    lines = _Lines()
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    task = asyncio.ensure_future(work(lines.put))
    task.add_done_callback(lambda _: lines.some.set())
    try:
        while True:
            await _some_or_gone(request, lines)
            done = task.done()
            if content := lines.take():
                if not response.prepared:
                    await response.prepare(request)
                await response.write(content)
            if done:
                break
    except BaseException:
        task.cancel()
        await asyncio.wait([task])
        raise
    return await _ended(request, response, task)


async def _some_or_gone(request: web.Request, lines: _Lines) -> None:
    while not lines.some.is_set():
        try:
            async with asyncio.timeout(_LOOK_S):
                await lines.some.wait()
        except TimeoutError:
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client has gone") from None


async def _ended(request: web.Request, response: web.StreamResponse, task: asyncio.Future[None]) -> web.StreamResponse:
    try:
        task.result()
    except (ShoalError, OSError) as error:
        if not response.prepared or isinstance(error, ConnectionError):
            raise
        message = error.message if isinstance(error, ShoalError) else in_words(error)
        last = {"errorDetail": {"message": message}, "error": message}
        await response.write(msgspec.json.encode(last) + b"\r\n")
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response
