"""inotify(7): hear of changes in a folder, instead of asking for them. One descriptor for all watches."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE_SELF = 0x2, 0x80, 0x100, 0x400
_MASK = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF
_HEADER = struct.Struct("iIII")
_BUFFER_BYTES = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class Watches:
    """Folders and those who wait for changes in them."""

    def __init__(self) -> None:
        self._fd = -1
        self._waiting: dict[int, set[asyncio.Event]] = {}

    @contextmanager
    def watch(self, folder: Path) -> Iterator[asyncio.Event]:
        """An event that is set at each change of a file in the folder. Raises OSError."""
        if self._fd < 0:
            self._open()
        number = _libc.inotify_add_watch(self._fd, os.fsencode(folder), ctypes.c_uint32(_MASK))
        if number < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
        event = asyncio.Event()
        self._waiting.setdefault(number, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting.get(number, set())
            waiting.discard(event)
            if not waiting and self._waiting.pop(number, None) is not None and self._fd >= 0:
                _libc.inotify_rm_watch(self._fd, number)

    def _open(self) -> None:
        self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _BUFFER_BYTES)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            number, _, _, length = _HEADER.unpack_from(data, position)
            position += _HEADER.size + length
            # -1: the queue ran over, anything may have changed
            concerned = self._waiting.get(number, set()) if number >= 0 else set().union(*self._waiting.values())
            for event in concerned:
                event.set()

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
