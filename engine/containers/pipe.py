"""A pipe to a process, for much at once: what is written goes straight into it, and little is waited for."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl

PIPE_BYTES = 1 << 20
"""As much as anybody may have. A smaller one has both sides wait for each other all the time."""


class Pipe:
    """`end` is for the process to read from, until `close_end`."""

    def __init__(self) -> None:
        self.end, self._ours = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._ours, False)
        with suppress(PermissionError):  # this user has too many
            fcntl(self._ours, F_SETPIPE_SZ, PIPE_BYTES)

    async def write(self, data: bytes) -> None:
        """All of it. Raises BrokenPipeError where nobody reads any more."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._ours, view) :]
            except BlockingIOError:
                await self._has_room()

    async def _has_room(self) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        loop.add_writer(self._ours, room.set)
        try:
            await room.wait()
        finally:
            loop.remove_writer(self._ours)

    def close_end(self) -> None:
        if self.end >= 0:
            os.close(self.end)
            self.end = -1

    def close(self) -> None:
        self.close_end()
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1
