"""Reading a container's log: from its end, from a time, and on as it grows.

    <container's folder>/log, log.1, log.2 …    the newest first (see `rotation`)

A follower is told of growth by inotify, and ends once the container has ended and
everything has been read.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from shoal.engine.containers.logs.inotify import Watches
from shoal.engine.containers.logs.logline import Joiner, Line, count, tail_offset
from shoal.engine.containers.nouns import LogQuery

NAME = "log"
_CHUNK_BYTES = 64 * 1024
_FIRST_TAIL_BYTES = 16 * 1024


def files(folder: Path) -> list[Path]:
    """The files of the log, the oldest first."""
    numbered = [path for path in folder.glob(f"{NAME}.*") if path.suffix[1:].isdecimal()]
    older = sorted(numbered, key=lambda path: int(path.suffix[1:]), reverse=True)
    return [*older, folder / NAME]


async def lines(
    folder: Path, query: LogQuery, *, runs: Callable[[], bool], watches: Watches
) -> AsyncGenerator[list[Line], None]:
    """Those of the log, as many at once as are there. `runs`: whether more may come."""
    joiner = Joiner()
    reader = _Reader(folder, query.tail)
    try:
        if query.follow and runs():
            with watches.watch(folder) as grown:
                async for found in _follow(reader, joiner, grown, runs, query.until_ns):
                    yield found
        while data := reader.read():
            yield joiner.feed(data)
            await asyncio.sleep(0)
        yield joiner.end()
    finally:
        reader.close()


async def _follow(
    reader: _Reader, joiner: Joiner, grown: asyncio.Event, runs: Callable[[], bool], until_ns: int
) -> AsyncIterator[list[Line]]:
    """Until the container has ended; what is left to read then is left."""
    while runs():
        grown.clear()
        read_something = False
        while data := reader.read():
            read_something = True
            yield joiner.feed(data)
            await asyncio.sleep(0)
        if until_ns and time.time_ns() > until_ns:
            return
        if not read_something:
            timeout = (until_ns - time.time_ns()) / 1e9 if until_ns else None
            with suppress(TimeoutError):
                await asyncio.wait_for(grown.wait(), timeout)


class _Reader:
    """The bytes of the log's files in turn, and of the newest as it grows or is put aside.

    Rotation runs in this process, hence never between two lines of a method here.
    """

    def __init__(self, folder: Path, tail: int) -> None:
        self._folder = folder
        self._files = _open(files(folder))
        if tail >= 0:
            self._skip_to_tail(tail)

    def _skip_to_tail(self, lines: int) -> None:
        """Leave only the files that hold the last lines, the first of them at the right place."""
        newest = True
        for number in range(len(self._files) - 1, -1, -1):
            missing = _seek_tail(self._files[number], lines, newest=newest)
            newest = newest and not os.fstat(self._files[number].fileno()).st_size  # it was just opened
            if missing is None:
                for file in self._files[:number]:
                    file.close()
                del self._files[:number]
                return
            lines = missing

    def read(self) -> bytes:
        """The next bytes; b"" where there are none just now."""
        if not self._files:
            self._files = _open([self._folder / NAME])
        while self._files:
            data = self._files[0].read(_CHUNK_BYTES)
            if data:
                return data
            if len(self._files) == 1 and not self._open_newer():
                return b""
            if data := self._files[0].read(_CHUNK_BYTES):  # written between our end and its rotation
                return data
            self._files.pop(0).close()
        return b""

    def _open_newer(self) -> bool:
        """Open what came after the last file, if conmon writes to another by now: it has closed this one then."""
        current = os.fstat(self._files[-1].fileno()).st_ino
        with suppress(FileNotFoundError):
            if (self._folder / NAME).stat().st_ino == current:
                return False
        opened = _open(files(self._folder))
        inodes = [os.fstat(file.fileno()).st_ino for file in opened]
        newer = inodes.index(current) + 1 if current in inodes else 0
        for file in opened[:newer]:
            file.close()
        self._files += opened[newer:]
        return newer < len(opened)

    def close(self) -> None:
        for file in self._files:
            file.close()


def _open(paths: list[Path]) -> list[BinaryIO]:
    """Those that are there."""
    opened: list[BinaryIO] = []
    for path in paths:
        with suppress(FileNotFoundError):
            opened.append(path.open("rb", buffering=0))
    return opened


def _seek_tail(file: BinaryIO, lines: int, *, newest: bool) -> int | None:
    """Go to where the last `lines` lines begin. None, or how many of them are not in this file.

    That may be none: the first of them may begin with a piece at the end of the file before.
    """
    size = file.seek(0, os.SEEK_END)
    if newest and lines == 0:
        return None
    block_bytes = _FIRST_TAIL_BYTES
    while True:
        start = max(0, size - block_bytes)
        file.seek(start)
        block = file.read(size - start)
        whole_from = block.find(b"\n") + 1 if start else 0  # a line may be cut at the front
        offset = tail_offset(block[whole_from:], lines, newest=newest)
        if offset is not None:
            file.seek(start + whole_from + offset)
            return None
        if start == 0:
            file.seek(0)
            return lines - count(block, newest=newest)
        block_bytes *= 4
