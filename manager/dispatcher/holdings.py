"""Which hosts hold which images, as they say themselves. Pure.

Nothing of it is stored: hosts say it again to whoever leads next, and what a host said goes with its session.
"""

from __future__ import annotations

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.messages import HeldImage, HeldImages
from shoal.api.reference import Reference, is_digest, parse
from shoal.api.states import TaskState
from shoal.manager.store.state import State

MAX_IMAGES = 2000
MAX_NAMES = 200
MAX_NAME_CHARACTERS = 512


class Holders(msgspec.Struct, frozen=True):
    """Who has an image. `digest`: of the manifest or index to begin with."""

    digest: str
    node_ids: tuple[str, ...]
    private: bool = False


class Holdings:
    """Invariant: `_by_key` has every image of `_held` under its digests and its names, and nothing else."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, HeldImage]] = {}  # node id → manifest → image
        self._by_key: dict[str, dict[tuple[str, str], HeldImage]] = {}  # key → (node id, manifest) → image

    def hear(self, node_id: str, message: HeldImages) -> None:
        """Take in what a host says. Raises InvalidArgument for what no host may say."""
        for image in message.held:
            _check(image)
        if message.complete:
            self.forget(node_id)
        known = self._held.setdefault(node_id, {})
        for manifest in (*message.gone, *(image.manifest for image in message.held)):
            if (old := known.pop(manifest, None)) is not None:
                self._unlist(node_id, old)
        if len(known) + len(message.held) > MAX_IMAGES:
            raise InvalidArgument(f"more than {MAX_IMAGES} images of one host")
        for image in message.held:
            known[image.manifest] = image
            for key in _keys(image):
                self._by_key.setdefault(key, {})[node_id, image.manifest] = image

    def forget(self, node_id: str) -> None:
        """The host's session has ended."""
        for image in self._held.pop(node_id, {}).values():
            self._unlist(node_id, image)

    def find(self, wanted: Reference, asker: str, *, private: bool) -> Holders | None:
        """Who has it besides the asker: by digest, or what was last called so. `private`: such images count too."""
        having = {node_id: image for (node_id, _), image in self._newest(wanted).items()
                  if node_id != asker and (private or not image.private)}
        if not having:
            return None
        image = next(iter(having.values()))
        return Holders(digest=wanted.digest or image.manifest, node_ids=tuple(having),
                       private=any(each.private for each in having.values()))

    def manifests(self, wanted: Reference) -> set[str]:
        """Those of all images that the reference may mean."""
        return {manifest for _, manifest in self._by_key.get(_key(wanted), {})}

    def _newest(self, wanted: Reference) -> dict[tuple[str, str], HeldImage]:
        found = self._by_key.get(_key(wanted), {})
        if wanted.digest or not found:
            return found
        newest = max(found.values(), key=lambda image: (image.tagged, image.manifest)).manifest
        return {place: image for place, image in found.items() if image.manifest == newest}

    def _unlist(self, node_id: str, image: HeldImage) -> None:
        for key in _keys(image):
            places = self._by_key[key]
            del places[node_id, image.manifest]
            if not places:
                del self._by_key[key]


def images_used(state: State, node_id: str) -> set[str]:
    """The references to images of the tasks that a node has to run."""
    return {task.spec.container.image for task in state.node_tasks(node_id)
            if task.spec.container is not None and task.desired <= TaskState.RUNNING and not task.status.state.terminal}


def may_take(holdings: Holdings, state: State, node_id: str, manifest: str) -> bool:
    """Whether a task of the node uses the image of that manifest."""
    return any(manifest in holdings.manifests(wanted) for wanted in map(_parsed, images_used(state, node_id)) if wanted)


def _parsed(text: str) -> Reference | None:
    try:
        return parse(text)
    except InvalidArgument:
        return None


def _key(wanted: Reference) -> str:
    return wanted.digest or str(wanted)


def _keys(image: HeldImage) -> set[str]:
    return {image.manifest, image.index, *image.names} - {""}


def _check(image: HeldImage) -> None:
    if not is_digest(image.manifest) or (image.index and not is_digest(image.index)):
        raise InvalidArgument(f"an image of the digests {image.manifest[:80]!r} and {image.index[:80]!r}")
    if len(image.names) > MAX_NAMES or any(len(name) > MAX_NAME_CHARACTERS for name in image.names):
        raise InvalidArgument(f"image {image.manifest} has more than {MAX_NAMES} names, or one that is too long")
