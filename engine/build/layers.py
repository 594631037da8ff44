"""A step's layer: what changed in a root, as a tar whose times are bounded where a build is to be reproducible."""

from __future__ import annotations

import asyncio
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

import msgspec

from shoal.engine.build.effects import State
from shoal.engine.build.keys import Step
from shoal.engine.images.config import HistoryEntry, Image
from shoal.engine.storage.rootfs import RootFSStore


@asynccontextmanager
async def packed(rootfs: RootFSStore, root_id: str, scratch: Path, epoch: int | None) -> AsyncIterator[Path | None]:
    """The tar of what was written in a root, as long as the block lasts; None where that is nothing."""
    if not await rootfs.changes(root_id):
        yield None
        return
    with NamedTemporaryFile(dir=scratch) as layer:
        await rootfs.pack(root_id, layer)
        await asyncio.to_thread(layer.flush)
        if epoch is None:
            yield Path(layer.name)
            return
        with NamedTemporaryFile(dir=scratch) as bounded:
            await asyncio.to_thread(bound_times, Path(layer.name), bounded, epoch)
            yield Path(bounded.name)


def bound_times(layer: Path, target: IO[bytes], epoch: int) -> None:
    """Copy a tar with no time in it after `epoch`, and none of less than a second. Blocking."""
    with tarfile.open(layer, mode="r:") as source, tarfile.open(
            fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as out:
        for member in source:
            headers = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.")}
            member.mtime, member.pax_headers = min(int(member.mtime), epoch), headers
            out.addfile(member, source.extractfile(member) if member.isreg() else None)
    target.flush()


def draft(base: Image, state: State, step: Step, *, empty: bool, epoch: int | None) -> Image:
    """The image after a step, without its layer."""
    created = timestamp(epoch)
    entry = HistoryEntry(created=created, created_by=step.line, author=state.author, empty_layer=empty)
    return msgspec.structs.replace(
        base, config=state.config, created=created, author=state.author, comment="", history=(*base.history, entry))


def timestamp(epoch: int | None) -> str:
    if epoch is not None:
        return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    now = time.time_ns()
    return datetime.fromtimestamp(now // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{now % 10**9:09d}Z"
