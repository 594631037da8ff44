"""Uploads that are under way: on disk in `_uploads`, so that they go on after a crash. The file is the truth.

The hash is taken as the bytes pass by; where that was lost (a restart, another algorithm) the file is read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.registry import files, names
from shoal.registry.errors import DigestInvalid, TooLarge, TooMany, UploadBusy, UploadUnknown
from shoal.registry.names import Digest, Repository
from shoal.registry.store import Store

if TYPE_CHECKING:
    from hashlib import _Hash

PIECE = 1 << 18
"""Of an upload a few times so many bytes are in memory at once."""
WRITE = 1 << 16
"""Written and hashed at once, while the processor has it. For larger writes the kernel takes larger pages, which on a
virtual machine are seldom among those that it has at hand: four times slower where this was measured."""
MOST_UPLOADS = 1_000
CROWDED_S = 3600.0
"""Where there are too many, those that nobody wrote to for so long go."""
LOOK_EVERY_S = 10.0
LARGEST_BLOB = 64 << 30


class Upload:
    """One upload in this process. `lock`: one request at a time writes."""

    def __init__(self, name: Repository, upload_id: str, folder: Path) -> None:
        self.name, self.id, self.folder = name, upload_id, folder
        self.lock = asyncio.Lock()
        self._hash: _Hash | None = None
        self._hashed = 0

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def size(self) -> int:
        try:
            return self.data.stat().st_size
        except FileNotFoundError:
            raise UploadUnknown(f"upload unknown: {self.id}") from None

    def append(self, pieces: list[bytes]) -> None:
        with self.data.open("r+b", buffering=0) as file:
            begin = file.seek(0, os.SEEK_END)
            if begin == 0:
                self._hash, self._hashed = hashlib.sha256(), 0
            follows = self._hash if self._hashed == begin else None  # else `digest` reads it all
            for piece in pieces:
                for part in _parts(piece):
                    _write(file, part)
                    if follows:
                        follows.update(part)
                        self._hashed += len(part)

    def digest(self, like: Digest) -> str:
        """Of the whole content, by the algorithm of `like`; the content is on the disk afterwards."""
        with self.data.open("rb") as file:
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
            if names.algorithm(like) == "sha256" and self._hash is not None and self._hashed == size:
                return f"sha256:{self._hash.hexdigest()}"
            taken = names.hasher(like)
            while piece := file.read(PIECE):
                taken.update(piece)
            return f"{names.algorithm(like)}:{taken.hexdigest()}"


class Uploads:
    """Those of one store. At most `most` lie there, those of other processes among them."""

    def __init__(self, store: Store, most: int = MOST_UPLOADS, largest: int = LARGEST_BLOB) -> None:
        self._store, self._most, self._largest = store, most, largest
        self._known: dict[str, Upload] = {}
        self._others = 0  # on the disk, when last looked at, that are not known here
        self._look_again = 0.0
        self._looking = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._known) + self._others

    async def start(self, name: Repository) -> Upload:
        if len(self) >= self._most:
            await self._make_room()
        upload_id = str(uuid.uuid4())
        upload = Upload(name, upload_id, self._store.layout.uploads(name) / upload_id)
        self._known[upload_id] = upload
        try:
            await asyncio.to_thread(_begin, upload.folder)
        except BaseException:
            self._known.pop(upload_id, None)
            raise
        return upload

    async def _make_room(self) -> None:
        """Raises TooMany where that cannot be. Looks at the disk now and then only: it may hold many repositories."""
        if time.monotonic() >= self._look_again:
            self._look_again = time.monotonic() + LOOK_EVERY_S
            await self.purge(CROWDED_S)
        if len(self) >= self._most:
            raise TooMany(f"{self._most} uploads are open; try again later")

    async def find(self, name: Repository, upload_id: str) -> Upload:
        """By id; also one that an earlier process, or Docker's registry, began."""
        try:
            canonical = str(uuid.UUID(upload_id))
        except ValueError:
            raise UploadUnknown(f"upload unknown: {upload_id[:80]}") from None
        upload = self._known.get(canonical)
        if upload is None:
            upload = Upload(name, canonical, self._store.layout.uploads(name) / canonical)
            await asyncio.to_thread(upload.size)
            if canonical not in self._known:
                self._known[canonical] = upload
                self._others = max(self._others - 1, 0)
            upload = self._known[canonical]
        if upload.name != name:
            raise UploadUnknown(f"upload unknown to repository {name}: {canonical}")
        return upload

    @contextlib.asynccontextmanager
    async def writing(self, upload: Upload) -> AsyncIterator[None]:
        if upload.lock.locked():
            raise UploadBusy(f"another request writes to upload {upload.id}")
        async with upload.lock:
            yield

    async def receive(self, upload: Upload, body: AsyncIterator[bytes]) -> None:
        """Append a body. What came before a connection broke stays, and the upload can go on from there."""
        size = await asyncio.to_thread(upload.size)
        pieces: list[bytes] = []
        waiting = 0
        try:
            async for piece in body:
                waiting += len(piece)
                if size + waiting > self._largest:
                    raise TooLarge(f"a blob has at most {self._largest} bytes")
                pieces.append(piece)
                if waiting >= PIECE:
                    full, pieces = pieces, []
                    size, waiting = size + waiting, 0
                    await _whole(asyncio.to_thread(upload.append, full))
        finally:
            if pieces:
                await _whole(asyncio.to_thread(upload.append, pieces))

    async def finish(self, upload: Upload, digest: Digest) -> None:
        """Verify, and make it a blob of the repository. Content that is something else is thrown away."""
        found = await asyncio.to_thread(upload.digest, digest)
        if found != digest:
            await self.cancel(upload)
            raise DigestInvalid(f"the content is {found}, not {digest}")
        await _whole(asyncio.to_thread(self._store.add_blob, upload.name, digest, upload.data))
        await self.cancel(upload)

    async def cancel(self, upload: Upload) -> None:
        await asyncio.to_thread(shutil.rmtree, upload.folder, True)
        self._known.pop(upload.id, None)

    async def purge(self, older_than_s: float) -> int:
        """Remove uploads that nobody wrote to for so long, and count those that lie there. How many went."""
        async with self._looking:
            ours, before, gone = set(self._known), time.time() - older_than_s, set()
            lying = await asyncio.to_thread(_lying, self._store)
            for folder, written in lying.items():
                if written < before and not self._busy(folder.name):
                    await asyncio.to_thread(shutil.rmtree, folder, True)
                    self._known.pop(folder.name, None)
                    gone.add(folder)
            for upload in list(self._known.values()):
                if not self._busy(upload.id) and not upload.folder.is_dir():
                    self._known.pop(upload.id, None)
            self._others = sum(folder.name not in ours | self._known.keys() for folder in lying.keys() - gone)
            return len(gone)

    def _busy(self, upload_id: str) -> bool:
        upload = self._known.get(upload_id)
        return upload is not None and upload.lock.locked()


def _parts(piece: bytes) -> Iterator[memoryview]:
    view = memoryview(piece)
    return (view[begin:begin + WRITE] for begin in range(0, len(view), WRITE))


def _write(file: io.FileIO, part: memoryview) -> None:
    while part:
        part = part[file.write(part):]


async def _whole(work: Coroutine[object, object, None]) -> None:
    """Let the thread end before a cancellation goes on: nobody may write to a file that another request took over."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _begin(folder: Path) -> None:
    files.make_folders(folder)
    (folder / "data").touch()
    (folder / "startedat").write_text(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def _lying(store: Store) -> dict[Path, float]:
    """The folders of all uploads, and when each was last written to."""
    found = {}
    for name in store.repositories():
        with contextlib.suppress(FileNotFoundError):
            for folder in store.layout.uploads(name).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found[folder] = _last_write(folder)
    return found


def _last_write(folder: Path) -> float:
    times = [folder.stat().st_mtime]
    with contextlib.suppress(FileNotFoundError):
        times.append((folder / "data").stat().st_mtime)
    return max(times)
