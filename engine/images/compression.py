"""Layers come plain or compressed; which of them the first bytes say, never a name. They are packed as gzip."""

from __future__ import annotations

import zlib
from typing import IO, Any

from shoal.api.errors import InvalidArgument

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
BZIP2 = b"BZh"
XZ = b"\xfd7zXZ\x00"
_PEEK = 6
_XZ_BYTES = 1 << 16
_PIECE_BYTES = 256 << 10
_LEVEL = 3
"""The most that the library has: 5 % more bytes than zlib's level 6, in a tenth of the time."""

MAX_WINDOW_BYTES = 128 << 20
"""What a stream may make its reader keep in memory: what zstd's own command allows; xz -9 takes half of it."""


class _Prefixed:
    """A stream whose first bytes were already taken off, put back in front."""

    def __init__(self, prefix: bytes, rest: Any) -> None:
        self._prefix = prefix
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        head, self._prefix = (self._prefix, b"") if size < 0 else (self._prefix[:size], self._prefix[size:])
        if head and size >= 0:
            return head
        data: bytes = head + self._rest.read(size)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[:len(data)] = data
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
            if type(error).__module__.partition(".")[0] in ("igzip_lib", "isal", "zstd", "zstandard", "_lzma", "lzma"):
                raise InvalidArgument(f"damaged {self._kind} stream: {error}") from error
            raise


class _Xz:
    """LZMAFile with a bound: a stream says itself how much memory it takes, up to 4 GiB."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._stream = self._open()

    def _open(self) -> Any:
        import lzma

        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW_BYTES)

    def read(self, size: int = -1) -> bytes:
        while True:
            raw = b""
            if self._stream.eof:  # another stream may follow
                raw = self._stream.unused_data or self._source.read(_XZ_BYTES)
                if not raw.lstrip(b"\0"):
                    return b""
                self._stream = self._open()
            elif self._stream.needs_input:
                raw = self._source.read(_XZ_BYTES)
                if not raw:
                    raise EOFError("it ends in the middle")
            if data := self._stream.decompress(raw, size):
                return data  # type: ignore[no-any-return]


def decompressed(source: IO[bytes] | Any) -> tuple[Any, str]:
    """A stream of the plain bytes of `source`, and what it was: "", gzip, zstd, bzip2 or xz."""
    head = b""
    while len(head) < _PEEK and (data := source.read(_PEEK - len(head))):
        head += data
    whole: Any = _Prefixed(head, source)
    if head.startswith(GZIP):
        from isal import igzip

        return _Decompressed(igzip.IGzipFile(fileobj=whole), "gzip"), "gzip"  # type: ignore[no-untyped-call]
    if head.startswith(ZSTD):
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(
            whole, read_size=_PIECE_BYTES, read_across_frames=True)
        return _Decompressed(reader, "zstd"), "zstd"
    if head.startswith(BZIP2):
        import bz2

        return _Decompressed(bz2.BZ2File(whole), "bzip2"), "bzip2"
    if head.startswith(XZ):
        return _Decompressed(_Xz(whole), "xz"), "xz"
    return whole, ""


def compress(source: IO[bytes], target: Any) -> None:
    """The plain `source` as gzip, without a name or a time: equal bytes give equal bytes. Blocking."""
    from isal import isal_zlib

    packer = isal_zlib.compressobj(_LEVEL, wbits=16 + zlib.MAX_WBITS)
    while data := source.read(_PIECE_BYTES):
        target.write(packer.compress(data))
    target.write(packer.flush())
