"""Which hosts hold which images, as they say themselves. Pure.

Nothing of it is stored: hosts say it again to whoever leads next, and what a host said goes with its session.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.messages import HeldImage, HeldImages
from shoal.api.reference import Reference, is_digest, parse
from shoal.api.states import TaskState
from shoal.manager.store.state import State

MAX_IMAGES = 2000
MAX_NAMES = 200
MAX_NAME_CHARACTERS = 512
MOST_HOLDERS = 8
"""Hosts that are named to one that looks for an image."""

MOST_LOOKED_AT = 256
"""Of the hosts that have an image: thousands may have it, and thousands ask at once."""


class Holders(msgspec.Struct, frozen=True):
    """Who has an image. `digest`: of the manifest or index to begin with."""

    digest: str
    node_ids: tuple[str, ...]
    private: bool = False


class _Meaning(msgspec.Struct):
    """What a name means on some hosts."""

    tagged: float = 0.0  # when a host last called it so
    hosts: int = 0


class Holdings:
    """Invariant: `_holders` and `_named` are what `_held` says, under digests and under names."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, HeldImage]] = {}  # node id → manifest → image
        self._holders: dict[str, dict[str, HeldImage]] = {}  # manifest or index → node id → image
        self._named: dict[str, dict[str, _Meaning]] = {}  # name → manifest → …

    def hear(self, node_id: str, message: HeldImages) -> None:
        """Take in what a host says. Raises InvalidArgument for what no host may say."""
        for image in message.held:
            _check(image)
        if message.complete:
            self.forget(node_id)
        for manifest in (*message.gone, *(image.manifest for image in message.held)):
            self._unlist(node_id, manifest)
        if len(self._held.get(node_id, ())) + len(message.held) > MAX_IMAGES:
            raise InvalidArgument(f"more than {MAX_IMAGES} images of one host")
        for image in message.held:
            self._list(node_id, image)

    def forget(self, node_id: str) -> None:
        """The host's session has ended."""
        for manifest in list(self._held.get(node_id, ())):
            self._unlist(node_id, manifest)

    def find(self, wanted: Reference, asker: str, *, private: bool) -> Holders | None:
        """A few who have it besides the asker: by digest, or what was last called so; others at each time.

        `private`: such images count too.
        """
        digest = wanted.digest or self._newest(str(wanted))
        holders = self._holders.get(digest, {})
        looked_at = list(islice(holders, MOST_LOOKED_AT))
        chosen = [node_id for node_id in looked_at
                  if node_id != asker and (private or not holders[node_id].private)][:MOST_HOLDERS]
        if not chosen:
            return None
        for node_id in chosen:  # the next who asks is named others
            holders[node_id] = holders.pop(node_id)
        return Holders(digest=digest, node_ids=tuple(chosen),
                       private=any(holders[node_id].private for node_id in chosen))

    def manifests(self, wanted: Reference) -> set[str]:
        """Those of all images that the reference may mean."""
        if not wanted.digest:
            return set(self._named.get(str(wanted), ()))
        return {image.manifest for image in islice(self._holders.get(wanted.digest, {}).values(), MOST_LOOKED_AT)}

    def _newest(self, name: str) -> str:
        meant = self._named.get(name, {})
        return max(meant, key=lambda manifest: (meant[manifest].tagged, manifest), default="")

    def _list(self, node_id: str, image: HeldImage) -> None:
        same = next(iter(self._holders.get(image.manifest, {}).values()), image)
        image = same if same == image else image  # thousands of hosts may have it: it is kept once
        self._held.setdefault(node_id, {})[image.manifest] = image
        for digest in _digests(image):
            self._holders.setdefault(digest, {})[node_id] = image
        for name in image.names:
            meaning = self._named.setdefault(name, {}).setdefault(image.manifest, _Meaning())
            meaning.hosts += 1
            meaning.tagged = max(meaning.tagged, image.tagged)

    def _unlist(self, node_id: str, manifest: str) -> None:
        """Nothing where the host does not have it."""
        held = self._held.get(node_id, {})
        image = held.pop(manifest, None)
        if image is None:
            return
        if not held:
            del self._held[node_id]
        for digest in _digests(image):
            holders = self._holders[digest]
            other = next((each for each in held.values() if digest in _digests(each)), None)
            if other is not None:  # another platform's image of the same index
                holders[node_id] = other
            else:
                del holders[node_id]
            if not holders:
                del self._holders[digest]
        for name in image.names:
            meant = self._named[name]
            meant[manifest].hosts -= 1
            if not meant[manifest].hosts:
                del meant[manifest]
            if not meant:
                del self._named[name]


def images_used(state: State, node_id: str) -> set[Reference]:
    """The images of the tasks that a node has to run."""
    texts = {task.spec.container.image for task in state.node_tasks(node_id)
             if task.spec.container is not None and task.desired <= TaskState.RUNNING
             and not task.status.state.terminal}
    return {wanted for wanted in map(_parsed, texts) if wanted is not None}


def may_take(holdings: Holdings, state: State, node_id: str, manifest: str) -> bool:
    """Whether a task of the node uses the image of that manifest."""
    return any(manifest in holdings.manifests(wanted) for wanted in images_used(state, node_id))


def _parsed(text: str) -> Reference | None:
    try:
        return parse(text)
    except InvalidArgument:
        return None


def _digests(image: HeldImage) -> set[str]:
    return {image.manifest, image.index} - {""}


def _check(image: HeldImage) -> None:
    if not is_digest(image.manifest) or (image.index and not is_digest(image.index)):
        raise InvalidArgument(f"an image of the digests {image.manifest[:80]!r} and {image.index[:80]!r}")
    if len(set(image.names)) != len(image.names):
        raise InvalidArgument(f"image {image.manifest} has a name twice")
    if len(image.names) > MAX_NAMES or any(len(name) > MAX_NAME_CHARACTERS for name in image.names):
        raise InvalidArgument(f"image {image.manifest} has more than {MAX_NAMES} names, or one that is too long")
