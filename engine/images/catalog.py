"""Which images there are, what they are called, and which came of which: in memory, read from and given to an index.

Invariant: every name means an image of the catalog, and what an image says of its names and size is what the
catalog says. Nothing here touches a disk or a clock. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from shoal.api import reference
from shoal.api.errors import InvalidArgument, NotFound
from shoal.api.reference import Reference
from shoal.engine.images import index as index_file
from shoal.engine.images.config import Image
from shoal.engine.images.importer import Imported
from shoal.engine.images.index import ImageRecord, Index
from shoal.engine.images.removal import ImageUser, Removal, Standing
from shoal.engine.storage.driver import chain_ids


class Catalog:
    """`tags`: complete names with their tag → image id."""

    def __init__(self, tags: dict[str, str], records: dict[str, ImageRecord], images: dict[str, Image]) -> None:
        self.tags = tags
        self.records = records
        self.images = images

    @classmethod
    def read(cls, found: Index, images: Iterable[Image]) -> Catalog:
        """`images`: what the configurations of those in the index say."""
        made = cls(found.tags, found.images, {image.id: image for image in images})
        for image_id in made.images:
            made._refresh(image_id)
        return made

    def index(self) -> Index:
        """What is to be written, as it is now."""
        return Index(tags=dict(self.tags), images=dict(self.records))

    def copy(self) -> Catalog:
        """Another one, of the same images."""
        return Catalog(dict(self.tags), dict(self.records), dict(self.images))

    # --- finding ---

    def get(self, image_id: str) -> Image:
        """By its full id. Raises NotFound."""
        image = self.images.get(image_id)
        if image is None:
            raise NotFound(f"No such image: {image_id}")
        return image

    def find(self, text: str) -> str | None:
        """The id of the image that `text` means: a name, a digest, an id or the beginning of one.

        Raises NotFound for a beginning that several have, InvalidArgument where it is no reference at all.
        """
        if text in self.images:
            return text
        prefix = reference.as_id_prefix(text)
        if prefix is not None and len(prefix) == 64:
            return "sha256:" + prefix if "sha256:" + prefix in self.images else None
        named = None if text.startswith("sha256:") else self._named(reference.parse(text))
        if named is not None or prefix is None:
            return named
        found = [image_id for image_id in self.images if image_id[7:].startswith(prefix)]
        if len(found) > 1:
            raise NotFound(f"No such image: {text} (the prefix is ambiguous)")
        return found[0] if found else None

    def _named(self, wanted: Reference) -> str | None:
        if not wanted.digest:
            return self.tags.get(str(wanted))
        full = f"{wanted.name}@{wanted.digest}"
        for image_id, record in self.records.items():
            if full in record.repo_digests:
                return image_id
            if wanted.digest in (image_id, *record.contents) and self._is_named(image_id, wanted.name):
                return image_id
        return None

    def _is_named(self, image_id: str, repository: str) -> bool:
        return any(name.startswith(repository + ":") for name in self.names(image_id))

    def name_meant(self, text: str, image_id: str) -> str | None:
        """The name that `text` is, or the digest with its repository; None where it is an id."""
        prefix = reference.as_id_prefix(text)
        if text.startswith("sha256:") or (prefix is not None and len(prefix) == 64):
            return None
        wanted = reference.parse(text)
        if wanted.digest:
            full = f"{wanted.name}@{wanted.digest}"
            return full if full in self.records[image_id].repo_digests else None
        return str(wanted) if self.tags.get(str(wanted)) == image_id else None

    def names(self, image_id: str) -> list[str]:
        """All that the image is called, sorted."""
        return sorted(name for name, named in self.tags.items() if named == image_id)

    def names_in(self, repository: str) -> list[Reference]:
        """The tags of a repository, sorted."""
        return [name for name in map(reference.parse, sorted(self.tags)) if name.name == repository]

    def repositories_of(self, blob: str) -> list[Reference]:
        """Where images that have the blob came from, or were pushed to."""
        return [reference.parse(name) for record in self.records.values() if blob in record.layers
                for name in record.repo_digests]

    def blobs_of(self, chain_id: str) -> list[str]:
        """The blobs that some image has a layer as."""
        return [blob for image_id, record in self.records.items()
                for chain, blob in zip(chain_ids(self.images[image_id].layers), record.layers, strict=False)
                if chain == chain_id]

    # --- the steps of builds ---

    def steps_after(self, parent_id: str, cache_key: str) -> list[Image]:
        """The images that a build made of another one ("": of none) by doing just that, the newest last."""
        return sorted((self.images[image_id] for image_id, record in self.records.items()
                       if record.cache_key == cache_key and record.parent == parent_id),
                      key=lambda image: (image.created, self.records[image.id].added))

    def has_children(self, image_id: str) -> bool:
        return any(record.parent == image_id for record in self.records.values())

    def standing(self, image_id: str, users: Iterable[ImageUser]) -> Standing:
        """What a removal of it has to look at."""
        return Standing(image_id=image_id, tags=tuple(self.names(image_id)),
                        digests=self.records[image_id].repo_digests, has_children=self.has_children(image_id),
                        users=tuple(users))

    def lineage(self, image_id: str) -> list[str]:
        """The image, what it was made on, and so on, as far as that is here."""
        found: list[str] = []
        while image_id in self.records and image_id not in found:
            found.append(image_id)
            image_id = self.records[image_id].parent
        return found

    # --- what other hosts can have ---

    def named(self) -> dict[str, ImageRecord]:
        """The images that have a name or a digest of a repository."""
        tagged = set(self.tags.values())
        return {image_id: record for image_id, record in self.records.items()
                if image_id in tagged or record.repo_digests}

    def holders_of(self, blob: str) -> list[str]:
        """The images that the blob belongs to."""
        return [image_id for image_id, record in self.records.items() if blob == image_id or blob in record.blobs]

    # --- changing ---

    def add(self, item: Imported, now: float) -> None:
        """Take an image in, or what came with it when it came again, and its names."""
        parent = self.records.get(item.record.parent)
        record = msgspec.structs.replace(item.record, private=item.record.private or bool(parent and parent.private))
        self.records[item.image.id] = index_file.merged(self.records.get(item.image.id), record)
        self.images[item.image.id] = msgspec.structs.replace(item.image, size=item.record.size)
        self._refresh(item.image.id)
        for name in item.tags:
            if name.tag:
                self.name(str(name), item.image.id, now)

    def share(self, image_id: str, manifest: str) -> None:
        """Keep the manifest that was made of an image for other hosts. Raises NotFound."""
        self.get(image_id)
        self.records[image_id] = msgspec.structs.replace(self.records[image_id], shared=manifest)

    def name(self, name: str, image_id: str, now: float) -> None:
        """Call the image so, and no other one."""
        before = self.tags.get(name)
        self.tags[name] = image_id
        self.records[image_id] = msgspec.structs.replace(self.records[image_id], last_tagged=now)
        self._refresh(image_id)
        if before is not None and before != image_id:
            self._refresh(before)

    def untag(self, image_id: str, names: Sequence[str]) -> list[Removal]:
        """Take names and digests away, as a plan of removal has them."""
        for name in names:
            self.tags.pop(name, None)
        record = self.records[image_id]
        digests = tuple(digest for digest in record.repo_digests if digest not in names)
        self.records[image_id] = msgspec.structs.replace(record, repo_digests=digests)
        self._refresh(image_id)
        return [Removal(untagged=reference.parse(name).familiar) for name in names]

    def forget(self, image_id: str) -> tuple[Image, ImageRecord]:
        """Take an image without a name out."""
        return self.images.pop(image_id), self.records.pop(image_id)

    def _refresh(self, image_id: str) -> None:
        """Bring what the image says of itself in line with the catalog."""
        record = self.records[image_id]
        self.images[image_id] = msgspec.structs.replace(
            self.images[image_id],
            repo_tags=tuple(reference.parse(name).familiar for name in self.names(image_id)),
            repo_digests=record.repo_digests,
            size=record.size,
            last_tagged=record.last_tagged,
        )


def new_name(repository: str, tag: str) -> Reference:
    """What an image is to be called. Raises InvalidArgument."""
    name = reference.parse(f"{repository}:{tag}" if tag else repository)
    if name.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    if name.familiar_name == "sha256":
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
    return name
