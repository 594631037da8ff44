"""The images of one host. Which there are, and under what names, is read from `catalog`; only what is here changes it.

    <root>/blobs/sha256/…   content, by digest
    <root>/index.json       which images there are, and their names

The index is held in memory and replaced on disk before a change is answered.
Reading and unpacking run in threads, at most `CONCURRENT_IMPORTS` at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument, NotFound
from shoal.api.reference import Reference
from shoal.engine.images import index as index_file
from shoal.engine.images.archive import host_architecture
from shoal.engine.images.blobs import Blobs
from shoal.engine.images.catalog import Catalog, new_name
from shoal.engine.images.changes import apply_changes
from shoal.engine.images.config import HistoryEntry, Image, ImageConfig, parse_config
from shoal.engine.images.content import Content
from shoal.engine.images.distribution.manifests import Platform
from shoal.engine.images.importer import Heard, Imported, Importer, unheard
from shoal.engine.images.index import ImageRecord
from shoal.engine.images.removal import ImageUser, Removal, plan_removal
from shoal.engine.storage.driver import StorageDriver, chain_ids

CONCURRENT_IMPORTS = 2


Emit = Callable[[str, str, dict[str, str]], None]
"""(action, image id, attributes): an event of type image."""


class Images:
    """See the module. Every method that changes something is atomic against the others."""

    def __init__(
        self,
        root: Path,
        driver: StorageDriver,
        *,
        users: Callable[[str], Iterable[ImageUser]] = lambda image_id: (),
        emit: Emit = lambda action, image_id, attributes: None,
    ) -> None:
        """Reads the index. `users(image_id)` tells which containers were made from an image."""
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.users = users
        self.emit = emit
        self.changed: Callable[[], None] = lambda: None  # called after each change
        self.blobs = Blobs(root / "blobs")
        self._driver = driver
        self._importer = Importer(self.blobs, driver)
        self._path = root / "index.json"
        self._lock = asyncio.Lock()
        self._imports = asyncio.Semaphore(CONCURRENT_IMPORTS)
        self._importing = 0
        self._left_over = False  # content that no image has, and that may go once nothing is imported
        found = index_file.load(self._path)
        images = [parse_config(self.blobs.read(image_id), image_id) for image_id in found.images]
        self.catalog = Catalog.read(found, images)
        self._saved = self.catalog.copy()
        self._content = Content(self.blobs, driver)
        self._content.sweep(self.catalog)

    # --- reading ---

    def resolve(self, text: str) -> Image:
        """The image that `text` means: a name, a digest, an id or an unambiguous prefix of one.

        Raises NotFound, or InvalidArgument where `text` is no reference at all.
        """
        image_id = self.catalog.find(text)
        if image_id is None:
            raise NotFound(f"No such image: {text}")
        return self.catalog.get(image_id)

    def has(self, text: str) -> bool:
        try:
            return self.catalog.find(text) is not None
        except InvalidArgument:
            return False

    def all(self) -> list[Image]:
        """Every image, newest first."""
        return sorted(self.catalog.images.values(), key=lambda image: image.created, reverse=True)

    def layers_of(self, image_id: str) -> Sequence[str]:
        """The diff ids of an image, lowest first. Raises NotFound."""
        return self.catalog.get(image_id).layers

    def layer_bytes(self, image_id: str) -> list[int]:
        """The unpacked bytes of each layer, lowest first."""
        return self.chain_bytes(chain_ids(self.layers_of(image_id)))

    def chain_bytes(self, chain: Iterable[str]) -> list[int]:
        """The unpacked bytes of each of these layers."""
        known = self._driver.layers()
        return [known.get(chain_id, 0) for chain_id in chain]

    def layer_sizes(self) -> dict[str, int]:
        """Chain id → bytes, of all unpacked layers."""
        return self._driver.layers()

    def total_bytes(self) -> int:
        return sum(self.layer_sizes().values())

    @property
    def driver_name(self) -> str:
        return self._driver.name

    def lineage(self, image_id: str) -> list[Image]:
        """The image, what it was made on, and so on, as far as that is here."""
        return [self.catalog.images[one] for one in self.catalog.lineage(image_id)]

    def record(self, image_id: str) -> ImageRecord:
        return self.catalog.records[image_id]

    def layer_blob(self, chain_id: str, wanted: str) -> str:
        """The stored blob of a layer that is unpacked: `wanted` where it is here, else another of it, else ""."""
        if not self._driver.has_layer(chain_id):
            return ""
        if self.blobs.has(wanted):
            return wanted
        return next(filter(self.blobs.has, self.catalog.blobs_of(chain_id)), "")

    # --- what other hosts can have ---

    async def share(self, image_id: str, manifest: str) -> None:
        """Keep the manifest, a blob, that was made of an image for other hosts. Raises NotFound."""
        async with self._changing():
            self.catalog.share(image_id, manifest)

    # --- getting images in ---

    @asynccontextmanager
    async def importing(self) -> AsyncIterator[None]:
        """Holds back the removal of content while something may rely on it; what was left over goes after the last."""
        async with self._lock:  # no removal is under way
            self._importing += 1
        try:
            yield
        except BaseException:
            self._left_over = True
            raise
        finally:
            self._importing -= 1
            if self._left_over and not self._importing:
                await self._sweep()

    async def unpack(self, blob: Path, diff_id: str, chain_id: str, read: Callable[[int], None]) -> None:
        """Unpack a layer whose blob is verified; `read` hears, in a thread, how many bytes of it were read.

        Raises InvalidArgument where the plain bytes are not `diff_id`'s; nothing is left then. Cancelled,
        it returns once nothing touches the blob any more.
        """
        async with self._imports:
            await self._importer.unpack_blob(blob, diff_id, chain_id, read)

    async def add(self, item: Imported) -> Image:
        """Name an image whose content is on disk. Call it within `importing`."""
        async with self._changing():
            self._add(item)
        return self.catalog.get(item.image.id)

    def _add(self, item: Imported) -> None:
        before = self.catalog.records.get(item.image.id)
        self.catalog.add(item, time.time())
        self._left_over |= before is not None and before.blobs != self.catalog.records[item.image.id].blobs

    async def load(
        self, archive: Path, platform: Platform | None = None, heard: Heard = unheard
    ) -> list[tuple[Imported, dict[Reference, str]]]:
        """Take in every image of a `docker save` or OCI archive, and its names; with each, whose they were before.

        `heard` is told, in a thread, how far a layer is. Raises InvalidArgument, and NotFound as to the platform.
        """
        async with self._imports, self.importing():
            loaded = await asyncio.to_thread(self._importer.load, archive, platform, heard)
            taken = []
            async with self._changing():
                for item in loaded:
                    before = {tag: self.catalog.tags.get(str(tag), item.image.id) for tag in item.tags}
                    taken.append({tag: image_id for tag, image_id in before.items() if image_id != item.image.id})
                    self._add(item)
        for item in loaded:
            self._tell("load", item.image, item.image.id)
        return list(zip(loaded, taken, strict=True))

    async def import_rootfs(
        self, archive: Path, *, changes: Iterable[str] = (), repository: str = "", tag: str = "", comment: str = "",
        platform: Platform | None = None,
    ) -> Image:
        """Make an image of one layer from the tar of a root file system; for this host, if for no other platform."""
        name = new_name(repository, tag) if repository else None
        config = apply_changes(ImageConfig(), changes)
        async with self._imports, self.importing():
            made = await asyncio.to_thread(
                self._importer.import_rootfs,
                archive,
                config,
                comment=comment or "Imported from -",
                platform=platform or Platform("linux", host_architecture()),
            )
            image = await self.add(Imported(made.image, made.record, (name,) if name else ()))
        self._tell("import", image, image.id)
        return image

    async def commit(
        self, archive: Path, parent_id: str, config: ImageConfig, *, changes: Iterable[str] = (), repository: str = "",
        tag: str = "", comment: str = "", author: str = "", command: str = "",
    ) -> Image:
        """Make an image of the layers of another and one more, the plain tar at `archive`.

        `command`: what made the layer, for the history. Raises NotFound where the parent is no more.
        """
        name = new_name(repository, tag) if repository else None
        parent, now = self.resolve(parent_id), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        entry = HistoryEntry(created=now, created_by=command, author=author, comment=comment)
        draft = msgspec.structs.replace(
            parent, config=apply_changes(config, changes), created=now, author=author, comment=comment,
            history=(*parent.history, entry))
        record = self.catalog.records[parent.id]
        async with self._imports, self.importing():
            made = await asyncio.to_thread(self._importer.commit, archive, parent, record.layers, record.size, draft)
            return await self.add(Imported(made.image, made.record, (name,) if name else ()))

    async def extend(self, parent_id: str, draft: Image, layer: Path | None, *, cache_key: str, private: bool = False
                     ) -> Image:
        """A step of a build: `draft` on the layers of another image ("": on none) and the plain tar at `layer`, if any.

        `private`: something of a private image is in the layer. Raises NotFound where the parent is no more.
        """
        parent = self.resolve(parent_id) if parent_id else Image(id="")
        record = self.catalog.records[parent_id] if parent_id else ImageRecord()
        return await self._take(lambda: self._importer.extend(layer, parent, record, draft), cache_key,
                                private=private)

    async def extend_as(self, parent_id: str, draft: Image, source_id: str, *, cache_key: str) -> Image:
        """As `extend`, with the first of the layers of another image that the parent does not have, or with none."""
        parent_layers = self.layers_of(parent_id) if parent_id else ()
        record, sizes = self.catalog.records[source_id], self.layer_bytes(source_id)
        count = len(parent_layers) + (0 if draft.history[-1].empty_layer else 1)
        whole = msgspec.structs.replace(draft, layers=self.resolve(source_id).layers[:count])
        return await self._take(
            lambda: self._importer.described(whole, record.layers[:count], sum(sizes[:count]), parent_id), cache_key,
            private=record.private)

    async def _take(self, make: Callable[[], Imported], cache_key: str, *, private: bool = False) -> Image:
        async with self._imports, self.importing():
            made = await asyncio.to_thread(make)
            step = msgspec.structs.replace(made.record, cache_key=cache_key, private=private)
            return await self.add(Imported(made.image, step))

    # --- the steps of builds ---

    async def forget_steps(self, image_ids: Iterable[str]) -> tuple[list[str], int]:
        """Remove those of the images that have no name and no user. Returns which, and the bytes freed."""
        async with self._changing(removes=True):
            before, gone = self.total_bytes(), []
            for image_id in image_ids:
                if image_id in self.catalog.images and not self._is_needed(image_id):
                    await self._delete(image_id)
                    gone.append(image_id)
            return gone, before - self.total_bytes()

    def _is_needed(self, image_id: str) -> bool:
        """Whether it is called something, or who uses it."""
        standing = self.catalog.standing(image_id, self.users(image_id))
        return bool(standing.tags or standing.digests or standing.users)

    async def _delete_with_parents(self, image_id: str) -> list[Removal]:
        """The image, and those that it was made on and that are of no other use."""
        first, *parents = self.catalog.lineage(image_id)
        removals = await self._delete(first)
        for parent_id in parents:
            if self.catalog.has_children(parent_id) or self._is_needed(parent_id):
                break
            removals += await self._delete(parent_id)
        return removals

    # --- names and removal ---

    async def tag(self, text: str, repository: str, tag: str) -> None:
        """Give an image one more name; taken from another image where it was that one's."""
        image = self.resolve(text)
        name = new_name(repository, tag)
        async with self._changing():
            self.catalog.name(str(name), image.id, time.time())
        self._tell("tag", image, name.familiar)

    async def remove(self, text: str, *, force: bool = False, parents: bool = True) -> list[Removal]:
        """Take a name away, and the image with its last name; or an image by id.

        `parents`: what it was made on goes too, where it is of no other use. Raises NotFound, and Conflict as
        `plan_removal` has it.
        """
        async with self._changing(removes=True):
            image = self.resolve(text)
            standing = self.catalog.standing(image.id, self.users(image.id))
            plan = plan_removal(standing, text, self.catalog.name_meant(text, image.id), force=force)
            removals = self.catalog.untag(image.id, plan.names)
            if plan.image:
                removals += await (self._delete_with_parents if parents else self._delete)(image.id)
        self._tell_removals(image, removals)
        return removals

    async def prune(
        self, *, dangling_only: bool = True, matches: Callable[[Image], bool] = lambda image: True
    ) -> tuple[list[Removal], int]:
        """Remove the images that no container uses and (by default) that have no tag, of those that match.

        Returns what was done and the bytes freed.
        """
        done: list[tuple[Image, list[Removal]]] = []
        async with self._changing(removes=True):
            before = self.total_bytes()
            for image in self.all():
                if image.id not in self.catalog.images or not matches(image):
                    continue
                standing = self.catalog.standing(image.id, self.users(image.id))
                if standing.has_children or standing.users or (dangling_only and standing.tags):
                    continue  # a step that others were built on, or in use
                removals = self.catalog.untag(image.id, (*standing.tags, *standing.digests))
                done.append((image, removals + await self._delete_with_parents(image.id)))
            freed = before - self.total_bytes()
        for image, removals in done:
            self._tell_removals(image, removals)
        self.emit("prune", "", {"reclaimed": str(freed)})
        return [removal for _, removals in done for removal in removals], freed

    # --- inside ---

    def _tell(self, action: str, image: Image, name: str) -> None:
        self.emit(action, image.id, {**image.config.labels, "name": name})

    def _tell_removals(self, image: Image, removals: Iterable[Removal]) -> None:
        for removal in removals:
            if removal.untagged:
                self._tell("untag", image, image.id)
            elif not removal.layer:
                self.emit("delete", removal.deleted, {"name": removal.deleted})

    async def _delete(self, image_id: str) -> list[Removal]:
        """Forget the image; the index is saved before any content goes."""
        image, record = self.catalog.forget(image_id)
        await self._save(removes=True)
        if self._importing:  # an import may be counting on a layer
            self._left_over = True
            return [Removal(deleted=image_id)]
        chains, blobs = self._content.only_of(image, record, self.catalog)
        await asyncio.to_thread(self._content.discard, chains, blobs)
        return [Removal(deleted=image_id), *(Removal(deleted=chain, layer=True) for chain in chains)]

    async def _sweep(self) -> None:
        async with self._lock:
            if self._left_over and not self._importing:
                self._left_over = False
                await asyncio.to_thread(self._content.sweep, self.catalog.copy())

    @asynccontextmanager
    async def _changing(self, *, removes: bool = False) -> AsyncIterator[None]:
        """One change after the other: what of one cannot be written down has not been."""
        async with self._lock:
            try:
                yield
                await self._save(removes=removes)
            except BaseException:
                self.catalog = self._saved.copy()
                raise

    async def _save(self, *, removes: bool) -> None:
        wanted = self.catalog.copy()
        saving = asyncio.ensure_future(
            asyncio.to_thread(index_file.save, self._path, wanted.index(), removes=removes))
        try:
            await asyncio.shield(saving)
        finally:  # also where the caller goes: what is on the disk is known
            await asyncio.wait([saving])
            if saving.exception() is None:
                self._saved = wanted
                self.changed()
