"""A request's body, read in a thread while it still comes: nothing of it lies on a disk in between."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import TypeVar

from aiohttp import StreamReader

T = TypeVar("T")

MOST_PIECES = 4
"""Read ahead of the thread; each is what the reader holds at most, some 128 KiB."""


class Inflow:
    """`read` is for the thread alone."""

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(MOST_PIECES)
        self._pieces: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
        self._piece = b""
        self._end: Exception | None = None

    async def into(self, work: Callable[[Inflow], T]) -> T:
        """What `work` makes of it, in a thread. Cancelled, it returns once the thread has ended."""
        coming = self._loop.create_task(self._come())
        running = asyncio.ensure_future(asyncio.to_thread(work, self))
        try:
            made = await asyncio.shield(running)
        finally:
            coming.cancel()
            await asyncio.wait([coming, running])
            running.exception()
        while await self._content.readany():  # what a client sends behind the end of its archive
            pass
        return made

    def read(self, size: int = -1) -> bytes:
        """Some of the next bytes, all of them with -1; b"" at the end. Raises OSError where it was cut off."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        if not self._piece:
            self._piece = self._next()
        taken, self._piece = self._piece[:size], self._piece[size:]
        return taken

    def _next(self) -> bytes:
        if self._end is not None:
            raise self._end
        got = self._pieces.get()
        if isinstance(got, EOFError):
            self._pieces.put(got)
            return b""
        if isinstance(got, Exception):
            self._end = got
            raise got
        self._loop.call_soon_threadsafe(self._room.release)
        return got

    async def _come(self) -> None:
        """Bring pieces to the thread until the body ends."""
        end: Exception = ConnectionAbortedError("the request was cut off")
        try:
            while True:
                await self._room.acquire()
                piece = await self._content.readany()
                if not piece:
                    end = EOFError()
                    return
                self._pieces.put(piece)
        except Exception as error:  # whatever it breaks with is for the thread
            end = error if isinstance(error, OSError) else ConnectionAbortedError(str(error))
        finally:
            self._pieces.put(end)
