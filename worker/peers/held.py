"""What this host tells the managers that it can give to others: all of it at first, then what changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from shoal.api.errors import NotFound
from shoal.api.messages import HeldImage, HeldImages
from shoal.engine.images.images import Images
from shoal.engine.images.sharing import shared_manifest

log = logging.getLogger(__name__)

MOST_IMAGES = 2000
MOST_NAMES = 200
PAUSE_S = 0.05
"""Between two messages: changes that come together are told together."""


class Teller:
    """Tells in one session after the other. One for a host's images: it is who hears of their changes."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._changed = asyncio.Event()
        self._told: dict[str, HeldImage] = {}  # in the session that is open
        self._news = asyncio.Condition()
        images.changed = self._changed.set

    async def tell(self, send: Callable[[HeldImages], Awaitable[None]]) -> None:
        """Until cancelled, or until `send` raises."""
        told: dict[str, HeldImage] | None = None
        while True:
            self._changed.clear()
            now = await held(self._images)
            message = news(told, now)
            if message is not None:
                await send(message)
            told = now
            await self._note(now)
            await asyncio.sleep(PAUSE_S)
            await self._changed.wait()


    async def knows(self, manifest: str) -> None:
        """Wait until the managers have been told that the image is here."""
        async with self._news:
            await self._news.wait_for(lambda: manifest in self._told)

    async def _note(self, told: dict[str, HeldImage]) -> None:
        async with self._news:
            self._told = told
            self._news.notify_all()


async def held(images: Images) -> dict[str, HeldImage]:
    """What is here under a name or a digest of a repository, by its manifest. Makes manifests where there are none."""
    found = {}
    for image_id, record in list(images.catalog.named().items())[:MOST_IMAGES]:
        try:
            manifest = (await shared_manifest(images, image_id)).digest
        except (NotFound, KeyError):
            continue  # it went meanwhile
        except OSError as error:
            log.warning("event=image-not-shared image=%s error=%s", image_id, error)
            continue
        names = tuple(images.catalog.names(image_id)[:MOST_NAMES])
        found[manifest] = HeldImage(manifest=manifest, index=record.top, names=names,
                                    tagged=record.last_tagged if names else 0.0, private=record.private)
    return found


def news(told: Mapping[str, HeldImage] | None, now: Mapping[str, HeldImage]) -> HeldImages | None:
    """What the managers have to hear; None for nothing. `told`: what they know; None at first. Pure."""
    if told is None:
        return HeldImages(complete=True, held=tuple(now.values()))
    fresh = tuple(image for manifest, image in now.items() if told.get(manifest) != image)
    gone = tuple(manifest for manifest in told if manifest not in now)
    return HeldImages(held=fresh, gone=gone) if fresh or gone else None
