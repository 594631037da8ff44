"""Content on disk under the digest of its bytes, and streams that check digests on the way.

    <root>/sha256/<hex>      configurations, manifests and layers as they came
    <root>/tmp/…             what is still being written; emptied at start

A blob appears under its name by one rename, after its bytes are on disk and its
digest is known to be right. Other hosts can be served from here by digest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from shoal.api.errors import InvalidArgument

CHUNK_BYTES = 256 << 10
"""Of what is read at once. The C library gives larger blocks back at once (see daemon/memory.py): their page faults
took half of the time of a load."""


class Blobs:
    """A content-addressed store. Blocking; used from threads."""

    def __init__(self, root: Path) -> None:
        self._place = root / "sha256"
        self.scratch = root / "tmp"
        for directory in (self._place, self.scratch):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in self.scratch.iterdir():
            left_over.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        return self._place / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def read(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def size(self, digest: str) -> int:
        return self.path(digest).stat().st_size

    def put(self, content: bytes) -> str:
        """Store small content; its digest."""
        with self.writer() as blob:
            blob.write(content)
        return blob.digest

    @contextmanager
    def writer(self, expected: str = "", expected_bytes: int = -1) -> Iterator[BlobWriter]:
        """Write a blob; it is stored when the block ends without an error.

        Raises InvalidArgument at the end where the digest or the length is not the expected one.
        """
        scratch = self.scratch / os.urandom(8).hex()
        try:
            with scratch.open("wb") as target:
                writer = BlobWriter(target)
                yield writer
                if expected and writer.digest != expected:
                    raise InvalidArgument(f"digest mismatch: expected {expected}, got {writer.digest}")
                if expected_bytes not in (-1, writer.size):
                    raise InvalidArgument(f"{expected}: {writer.size} bytes, not {expected_bytes}")
                target.flush()
                os.fsync(target.fileno())
            scratch.rename(self.path(writer.digest))
        finally:
            scratch.unlink(missing_ok=True)

    def adopt(self, path: Path, digest: str) -> None:
        """Take in a file of the scratch folder whose digest is known to be right."""
        with path.open("rb") as source:
            os.fsync(source.fileno())
        path.rename(self.path(digest))

    def share(self, path: Path, digest: str) -> None:
        """Take in a file whose digest is known to be right; it stays, too.

        One of the scratch folder is not copied: nobody writes to it any more.
        """
        scratch = self.scratch / os.urandom(8).hex()
        try:
            if path.parent != self.scratch or not _linked(path, scratch):
                shutil.copyfile(path, scratch)
            self.adopt(scratch, digest)
        finally:
            scratch.unlink(missing_ok=True)

    def remove(self, digest: str) -> int:
        """Delete the blob; the bytes that were freed."""
        with suppress(FileNotFoundError):
            size = self.size(digest)
            self.path(digest).unlink()
            return size
        return 0

    def digests(self) -> list[str]:
        return ["sha256:" + path.name for path in self._place.iterdir()]


def _linked(path: Path, name: Path) -> bool:
    """False where the file system has no hard links."""
    try:
        os.link(path, name)
    except OSError:
        return False
    return True


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class BlobWriter:
    """Counts and hashes what passes to the file, if there is one."""

    def __init__(self, target: IO[bytes] | None = None) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        if self._target is not None:
            self._target.write(data)
        self._hash.update(data)
        self.size += len(data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.write(piece)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class HashingReader:
    """A readable stream that hashes what is read, and has it written on the way where a writer is given.

    With `expect`, the end of the stream raises InvalidArgument where the digest differs:
    whoever consumes the stream never sees a clean end of wrong content.
    """

    def __init__(self, source: Any, writer: BlobWriter | None = None) -> None:
        self._source = source
        self._seen = writer or BlobWriter()
        self._expected = self._what = ""

    def expect(self, digest: str, what: str) -> None:
        """At the end, which has to be read once more where it was met before."""
        self._expected, self._what = digest, what

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(size)
        if data:
            self._seen.write(data)
        elif size != 0 and self._expected and self.digest != self._expected:
            raise InvalidArgument(f"{self._what}: digest mismatch: expected {self._expected}, got {self.digest}")
        return data

    def drain(self) -> None:
        """To the end."""
        while self.read(CHUNK_BYTES):
            pass

    @property
    def digest(self) -> str:
        """Of what has been read."""
        return self._seen.digest
