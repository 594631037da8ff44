"""A stream as a file that is read from front to back, in large pieces: what tarfile's own streams join and copy."""

from __future__ import annotations

import os

from shoal.engine.storage.driver import Readable

PIECE_BYTES = 256 << 10


class ForwardReader:
    """`seek` goes forward, and back within the piece at hand: that much tarfile asks for."""

    def __init__(self, stream: Readable, piece_bytes: int = PIECE_BYTES) -> None:
        self._stream = stream
        self._piece_bytes = piece_bytes
        self._piece = b""
        self._start = 0  # of the piece, in the stream
        self._position = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """To a place in the stream, or to its end. Raises ValueError for one that is over."""
        if whence != os.SEEK_SET or position < self._start:
            raise ValueError("a stream is read from front to back")
        while position > self._start + len(self._piece) and self._next():
            pass
        self._position = min(position, self._start + len(self._piece))
        return self._position

    def read(self, size: int) -> bytes:
        """Less than `size` only at the end."""
        at = self._position - self._start
        data = self._piece[at:at + size]
        self._position += len(data)
        return data if len(data) == size else self._gathered(data, size)

    def _gathered(self, data: bytes, size: int) -> bytes:
        parts = [data]
        left = size - len(data)
        while left and self._next():
            parts.append(self._piece[:left])
            left -= len(parts[-1])
            self._position += len(parts[-1])
        return b"".join(parts)

    def _next(self) -> bool:
        piece = self._stream.read(self._piece_bytes)
        if piece:
            self._start += len(self._piece)
            self._piece = piece
        return bool(piece)
