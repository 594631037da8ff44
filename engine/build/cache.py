"""Which image a step has led to before: the steps of earlier builds, or the images of --cache-from."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shoal.api.errors import InvalidArgument, NotFound
from shoal.engine.build import keys
from shoal.engine.build.keys import Step
from shoal.engine.build.platforms import is_for
from shoal.engine.images.config import Image
from shoal.engine.images.distribution.manifests import Platform
from shoal.engine.images.images import Images


class Found(msgspec.Struct, frozen=True):
    """`image` is what the step gives; or `goes_on`: it did the step, and more after it."""

    image: Image
    goes_on: bool = False


class Cache:
    """Of one stage. After the first step that is not found, nothing is looked for any more."""

    def __init__(self, images: Images, platform: Platform, *, sources: Sequence[str] = (), off: bool = False) -> None:
        self._images = images
        self._platform = platform  # of what begins with nothing
        self._off = off
        self._sources = _known(images, sources)
        self._limited = bool(sources)

    def find(self, parent: Image | None, step: Step) -> Found | None:
        if self._off:
            return None
        found = self._step(parent, step) or self._continued(parent, step)
        self._off = found is None
        return found

    def _step(self, parent: Image | None, step: Step) -> Found | None:
        known = self._images.catalog.steps_after(parent.id if parent else "", step.key)
        if parent is None:
            known = [image for image in known if is_for(image, self._platform)]
        if self._limited:
            known = [image for image in known if any(self._leads_to(image, source) for source in self._sources)]
        return Found(known[-1]) if known else None

    def _leads_to(self, image: Image, source: Image) -> bool:
        """Whether the source was built on the image, or is it."""
        at = source.id
        while at and self._images.has(at):
            if at == image.id:
                return True
            at = self._images.record(at).parent
        return False

    def _continued(self, parent: Image | None, step: Step) -> Found | None:
        """By the histories of sources that came without their steps (pulled, or loaded)."""
        done = parent.history if parent else ()
        layers = parent.layers if parent else ()
        for source in self._sources:
            if parent is None and not is_for(source, self._platform):
                continue
            if source.layers[: len(layers)] == layers and keys.continues(source.history, done, step.line):
                return Found(source, goes_on=len(source.history) > len(done) + 1)
        return None


def _known(images: Images, references: Sequence[str]) -> list[Image]:
    found = []
    for reference in references:
        try:
            found.append(images.resolve(reference))
        except (NotFound, InvalidArgument):
            continue  # it may be the first build of all
    return found
