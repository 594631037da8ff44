"""The lines of a container's log, as conmon writes them. Pure.

    2026-11-25T01:16:15.123456789+00:00 stdout F a whole line
    2026-11-25T01:16:15.123456789+00:00 stderr P a piece, to be joined with what follows

A piece ends where the program's write did, or at 8 KiB; its newline is conmon's.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Iterable

import msgspec

STDOUT, STDERR = 1, 2
_STREAMS = {b"stdout": STDOUT, b"stderr": STDERR}
MAX_MESSAGE_BYTES = 16 * 1024
"""Pieces are joined up to this size, as Docker does."""

_TIME = re.compile(rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))$")


class Line(msgspec.Struct, frozen=True, gc=False):
    """`content` has its newline, where the program wrote one. `time`: RFC 3339 as written."""

    time: bytes
    stream: int
    content: bytes

    @property
    def stamp(self) -> bytes:
        """The time as the API shows it: in UTC."""
        return self.time[:-6] + b"Z" if self.time.endswith(b"+00:00") else self.time


class Pieces:
    """Joins pieces to whole lines. Those of the two streams are kept apart."""

    def __init__(self) -> None:
        self._begun: dict[int, Line] = {}

    def join(self, pieces: Iterable[Line]) -> list[Line]:
        """The lines that these complete."""
        return [line for piece in pieces if (line := self._joined(piece)) is not None]

    def _joined(self, line: Line) -> Line | None:
        if (before := self._begun.pop(line.stream, None)) is not None:
            line = Line(before.time, line.stream, before.content + line.content)
        if line.content.endswith(b"\n") or len(line.content) >= MAX_MESSAGE_BYTES:
            return line
        self._begun[line.stream] = line
        return None

    def rest(self) -> list[Line]:
        """What never got its newline."""
        begun, self._begun = self._begun, {}
        return sorted(begun.values(), key=lambda line: line.time)


class Joiner:
    """Turns the bytes of a log file into whole lines."""

    def __init__(self) -> None:
        self._rest = b""  # an incomplete line of the file
        self._pieces = Pieces()

    def feed(self, data: bytes) -> list[Line]:
        """The lines that `data` completes. What is no line of a log is skipped."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return self._pieces.join(line for raw in lines if (line := _parse(raw)) is not None)

    def end(self) -> list[Line]:
        """What never got its newline."""
        return self._pieces.rest()


def _parse(raw: bytes) -> Line | None:
    parts = raw.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in _STREAMS:
        return None
    whole = parts[2] == b"F"
    return Line(parts[0], _STREAMS[parts[1]], parts[3] + b"\n" if whole else parts[3])


def time_ns(stamp: bytes) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; 0 for what is none."""
    found = _TIME.match(stamp)
    if found is None:
        return 0
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    seconds = timegm((year, month, day, hour, minute, second))
    if found[8]:
        offset = int(found[9]) * 3600 + int(found[10]) * 60
        seconds += offset if found[8] == b"-" else -offset
    return seconds * 1_000_000_000 + int((found[7] or b"0").ljust(9, b"0"))


def tail_offset(block: bytes, lines: int, *, newest: bool = True) -> int | None:
    """Where the last `lines` lines of a file's end `block` begin, with all their pieces; None where it has fewer.

    An unfinished line at the very end counts as one in the newest file; in an older one it ends in the next.
    """
    found, position = 0, len(block)
    while position > 0:
        start = block.rfind(b"\n", 0, position - 1) + 1
        if _is_whole(block[start:position]) or (newest and position == len(block)):
            if found == lines:
                return position
            found += 1
        position = start
    return None


def count(block: bytes, *, newest: bool) -> int:
    """How many lines `tail_offset` would find."""
    raw = block.splitlines()
    return sum(map(_is_whole, raw)) + bool(newest and raw and not _is_whole(raw[-1]))


def _is_whole(raw: bytes) -> bool:
    parts = raw.split(b" ", 3)
    return len(parts) == 4 and parts[2] == b"F"
