"""`Collector`: what builds keep on this host, told, pruned, and kept within a bound."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from shoal.engine.build.folders import CacheFolders
from shoal.engine.build.garbage import FOLDER, STEP, Policy, Record, condemned
from shoal.engine.build.uses import Uses
from shoal.engine.images.images import Images
from shoal.engine.storage.driver import chain_ids

log = logging.getLogger(__name__)

DEFAULT_BYTES = 20 << 30
"""What steps and cache mounts together may keep, but for what named images stand on."""


class Collector:
    """`most_bytes` 0: no bound."""

    def __init__(self, root: Path, images: Images, most_bytes: int) -> None:
        self._root = root
        self._images = images
        self._uses = Uses(root / "uses.json")
        self.folders = CacheFolders(root / "cache", self._uses)
        self._most_bytes = most_bytes
        self._one_at_a_time = asyncio.Lock()

    async def records(self) -> list[Record]:
        sizes = await asyncio.to_thread(self._images.layer_sizes)
        return [*self._steps(sizes), *await asyncio.to_thread(self.folders.records)]

    async def used(self, image_ids: Collection[str]) -> None:
        """A build used or made these; others may be too much now."""
        self._uses.mark((image_id for image_id in image_ids if self._is_step(image_id)), time.time())
        await asyncio.to_thread(self._uses.save)

    async def collect(self, *, keep_since: float) -> None:
        """Bring the cache back within its bound; what was used since that time stays whatever there is of it."""
        if self._most_bytes:
            gone, freed = await self.prune(Policy(most_bytes=self._most_bytes, not_since=keep_since))
            if gone:
                log.info("event=build-cache-collected records=%d bytes=%d", len(gone), freed)

    async def prune(self, policy: Policy) -> tuple[list[str], int]:
        """Remove what goes by that policy. Returns the ids, and the bytes that were freed."""
        async with self._one_at_a_time:
            records = await self.records()
            free = shutil.disk_usage(self._root).free
            doomed = condemned(records, policy, free)
            gone, freed = await self._images.forget_steps(record.id for record in doomed if record.kind == STEP)
            for record in doomed:
                if record.kind == FOLDER and await self.folders.remove(record.id):
                    gone.append(record.id)
                    freed += record.bytes
            self._uses.keep_only({record.id for record in records} - set(gone))
            await asyncio.to_thread(self._uses.save)
            return gone, freed

    def _steps(self, sizes: dict[str, int]) -> list[Record]:
        """The steps of earlier builds that have no name."""
        needed, found = self._needed(), []
        for image in self._images.all():
            record = self._images.record(image.id)
            if not record.cache_key or image.repo_tags:
                continue
            done = image.history[-1]
            own = 0 if done.empty_layer or not image.layers else sizes.get(chain_ids(image.layers)[-1], 0)
            use = self._uses.of(image.id, record.added)
            found.append(Record(
                id=image.id, kind=STEP, description=done.created_by, parent=record.parent, bytes=own,
                in_use=any(self._images.users(image.id)), shared=image.id in needed, created=record.added,
                last_used=max(use.last, record.added), uses=use.count))
        return found

    def _needed(self) -> set[str]:
        """The images that have a name or a user, and the steps that led to them."""
        needed: set[str] = set()
        for image in self._images.all():
            at = image.id if image.repo_tags or any(self._images.users(image.id)) else ""
            while at and at not in needed and self._images.has(at):
                needed.add(at)
                at = self._images.record(at).parent
        return needed

    def _is_step(self, image_id: str) -> bool:
        return self._images.has(image_id) and bool(self._images.record(image_id).cache_key)
