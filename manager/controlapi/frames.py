"""The frames of a log stream: one byte of stream, three of zero, four of length, then the message. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from urllib.parse import quote

from shoal.api.errors import ShoalError

STDOUT, STDERR = 1, 2
MAX_FRAME_BYTES = 4 << 20

_HEADER = struct.Struct(">BxxxI")


class BrokenStream(ShoalError):
    """What came is no log stream."""


def frame(stream: int, message: bytes) -> bytes:
    return _HEADER.pack(stream, len(message)) + message


class FrameReader:
    """Cuts received bytes, cut anywhere, into (stream, message)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are complete with `data`. Raises BrokenStream."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._buffer)
            if stream > STDERR or length > MAX_FRAME_BYTES:
                raise BrokenStream(f"a frame of stream {stream} with {length} bytes is none of a log")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            message = bytes(memoryview(self._buffer)[_HEADER.size : end])
            del self._buffer[:end]
            yield stream, message


def details(attributes: dict[str, str]) -> bytes:
    """Attributes as they stand before a message: sorted, and escaped so that they hold no space."""
    return ",".join(f"{quote(key, safe='')}={quote(attributes[key], safe='')}" for key in sorted(attributes)).encode()


def with_details(message: bytes, attributes: bytes, timestamps: bool) -> bytes:
    """A message's lines with attributes before each, after the time where there is one."""
    lines = message.splitlines(keepends=True) or [b""]
    return b"".join(_with_details(line, attributes, timestamps) for line in lines)


def _with_details(line: bytes, attributes: bytes, timestamps: bool) -> bytes:
    if not timestamps:
        return attributes + b" " + line
    time, _, rest = line.partition(b" ")
    return time + b" " + attributes + b" " + rest
