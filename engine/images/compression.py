"""Layers come plain or compressed; which of them the first bytes say, never a name."""

from __future__ import annotations

import io
import zlib
from typing import IO, Any

from shoal.api.errors import InvalidArgument

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
BZIP2 = b"BZh"
XZ = b"\xfd7zXZ\x00"
_PEEK = 6


class _Prefixed(io.RawIOBase):
    """A stream whose first bytes were already taken off, put back in front."""

    def __init__(self, prefix: bytes, rest: Any) -> None:
        self._prefix = prefix
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._prefix[: len(buffer)] or self._rest.read(len(buffer))
        self._prefix = self._prefix[len(data) :]
        buffer[: len(data)] = data
        return len(data)


class _Decompressed:
    """Reads of a decompressor, with damage reported as the caller's mistake."""

    def __init__(self, source: Any, kind: str) -> None:
        self._source = source
        self._kind = kind

    def read(self, size: int = -1) -> bytes:
        try:
            return self._source.read(size)  # type: ignore[no-any-return]
        except InvalidArgument:
            raise
        except (EOFError, zlib.error, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the disk, not the stream
            raise InvalidArgument(f"damaged {self._kind} stream: {error}") from error
        except Exception as error:
            if type(error).__module__ in ("zstd", "zstandard", "_lzma", "lzma"):
                raise InvalidArgument(f"damaged {self._kind} stream: {error}") from error
            raise


def decompressed(source: IO[bytes] | Any) -> tuple[Any, str]:
    """A stream of the plain bytes of `source`, and what it was: "", gzip, zstd, bzip2 or xz."""
    head = b""
    while len(head) < _PEEK and (data := source.read(_PEEK - len(head))):
        head += data
    whole = io.BufferedReader(_Prefixed(head, source), 1 << 16)
    if head.startswith(GZIP):
        import gzip

        return _Decompressed(gzip.GzipFile(fileobj=whole), "gzip"), "gzip"
    if head.startswith(ZSTD):
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
            whole, read_across_frames=True
        )
        return _Decompressed(reader, "zstd"), "zstd"
    if head.startswith(BZIP2):
        import bz2

        return _Decompressed(bz2.BZ2File(whole), "bzip2"), "bzip2"
    if head.startswith(XZ):
        import lzma

        return _Decompressed(lzma.LZMAFile(whole), "xz"), "xz"
    return whole, ""
