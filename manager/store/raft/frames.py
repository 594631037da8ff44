"""Frames on disk: how records of journal and snapshot are told from garbage.

    version u8 | sealed u8 | mark u16 | length u32 | crc32 u32 | payload

The CRC covers the eight bytes before it and the payload. `sealed` says that the
payload is encrypted and authenticated; who has the key passes a `Seal`. Pure.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

VERSION = 1
MARK = 0x5352
HEAD = struct.Struct("<BBHI")
CRC = struct.Struct("<I")
HEAD_BYTES = HEAD.size + CRC.size
MAX_PAYLOAD_BYTES = 256 << 20
_MARK_BYTES = struct.pack("<H", MARK)


class Seal(Protocol):
    """Authenticated encryption of one payload. `sealed` is the number stored in the frame."""

    sealed: int

    def seal(self, payload: bytes) -> bytes: ...

    def open(self, payload: bytes) -> bytes: ...


class Plain:
    """No encryption."""

    sealed = 0

    def seal(self, payload: bytes) -> bytes:
        return payload

    def open(self, payload: bytes) -> bytes:
        return payload


PLAIN = Plain()


class BadFrame(ValueError):
    """The bytes at `offset` are no frame."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"{reason} at byte {offset}")
        self.offset = offset


def pack(payload: bytes, seal: Seal = PLAIN) -> bytes:
    """One frame."""
    body = seal.seal(payload)
    head = HEAD.pack(VERSION, seal.sealed, MARK, len(body))
    return head + CRC.pack(zlib.crc32(body, zlib.crc32(head))) + body


def _frame_end(data: bytes | bytearray, offset: int, seal: Seal) -> int | None:
    """Where the frame at `offset` ends; None where more bytes are needed. Raises BadFrame. Checks no CRC."""
    if len(data) - offset < HEAD_BYTES:
        return None
    version, sealed, mark, length = HEAD.unpack_from(data, offset)
    if mark != MARK or length > MAX_PAYLOAD_BYTES:
        raise BadFrame(offset, "not a frame")
    if version != VERSION:
        raise BadFrame(offset, f"frame version {version} is unknown")
    if sealed != seal.sealed:
        raise BadFrame(offset, "encrypted, and no such key was given" if sealed else "not encrypted")
    end = offset + HEAD_BYTES + int(length)
    return end if end <= len(data) else None


def _checked(data: bytes | bytearray, offset: int, end: int) -> bytes:
    (crc,) = CRC.unpack_from(data, offset + HEAD.size)
    head, body = bytes(data[offset : offset + HEAD.size]), bytes(data[offset + HEAD_BYTES : end])
    if zlib.crc32(body, zlib.crc32(head)) != crc:
        raise BadFrame(offset, "checksum does not match")
    return body


class Reader:
    """Frames out of bytes that arrive in pieces."""

    def __init__(self, seal: Seal = PLAIN) -> None:
        self._seal = seal
        self._buffer = bytearray()
        self.consumed = 0  # bytes in whole, valid frames so far

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads that are complete now. Raises BadFrame; then the reader is spent."""
        self._buffer += data
        start = 0
        try:
            while (end := _frame_end(self._buffer, start, self._seal)) is not None:
                payload = self._seal.open(_checked(self._buffer, start, end))
                self.consumed += end - start
                start = end
                yield payload
        finally:
            del self._buffer[:start]

    @property
    def left(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._buffer)


def frame_follows(data: bytes, offset: int, seal: Seal = PLAIN) -> bool:
    """Whether a whole, valid frame starts anywhere after `offset`."""
    at = data.find(_MARK_BYTES, offset)
    while at >= 0:
        start = at - 2
        if start > offset:
            try:
                end = _frame_end(data, start, seal)
                if end is not None:
                    _checked(data, start, end)
                    return True
            except BadFrame:
                pass
        at = data.find(_MARK_BYTES, at + 1)
    return False
