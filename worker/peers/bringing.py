"""The image of a task: what is here, else what other hosts of the swarm have, or what its registry has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol

from shoal.api.errors import NotFound, ShoalError
from shoal.api.messages import FoundImage, HeldImages
from shoal.api.reference import Reference, parse
from shoal.engine.images.distribution.challenges import ANONYMOUS, Credentials
from shoal.engine.images.distribution.lookup import Described, describe_in
from shoal.engine.images.distribution.puller import Puller
from shoal.worker.credentials import Credentials as NodeCredentials
from shoal.worker.peers.coming import Coming
from shoal.worker.peers.held import Teller
from shoal.worker.peers.sharing import Sharing
from shoal.worker.peers.taking import PACE, Hosts, Pace, Taking

log = logging.getLogger(__name__)

ANNOUNCE_S = 2.0
ASK_AGAIN_S = 1.0
"""After this the managers are asked once more: one that has just begun to lead has not heard from every host."""


class Managers(Protocol):
    """What is asked of the managers."""

    async def find_image(self, image: str) -> FoundImage | None:
        """Where the image is; None where no other host has it, or nobody can say. Raises ShoalError."""

    async def may_take(self, node_id: str, manifest: str) -> bool:
        """Whether a node may have a private image of this host."""


class Peers:
    """The images of this host and those of the others. `managers`: None while there is no agent."""

    def __init__(self, puller: Puller, credentials: NodeCredentials, own: Callable[[], str],
                 managers: Callable[[], Managers | None], pace: Pace = PACE) -> None:
        self._puller = puller
        self._pace = pace
        self._managers = managers
        self._coming = Coming()
        self._hosts = Hosts(credentials, own)
        self._teller = Teller(puller.images)
        self.sharing = Sharing(puller.images, self._coming, self._may_take)

    async def tell(self, send: Callable[[HeldImages], Awaitable[None]]) -> None:
        """Keep the managers informed of what is here, in one session."""
        await self._teller.tell(send)

    async def announced(self, manifest: str) -> None:
        """Return once the managers know that an image of this host is here, or after a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ANNOUNCE_S):
                await self._teller.knows(manifest)

    async def close(self) -> None:
        await self._hosts.close()

    async def bring(self, image: str, credentials: Credentials = ANONYMOUS) -> None:
        """The image is here when this returns. Raises NotFound with every reason why it cannot be had.

        A digest is had from whoever is nearest. What a name means its registry says, and other hosts only where
        it does not: else one host could have all the others run what it likes to call so.
        """
        if self._puller.images.has(image) or image.startswith("sha256:"):
            return
        wanted, reasons = parse(image), []
        again_at = asyncio.get_running_loop().time() + ASK_AGAIN_S
        first = (self._from_others, self._from_registry)
        for source in (*(first if wanted.digest else first[::-1]), partial(self._from_others, after=again_at)):
            try:
                if await source(wanted, credentials):
                    return
            except ShoalError as error:
                log.warning("event=image-not-had image=%s why=%s", image, error.message)
                reasons.append(error.message)
        raise NotFound(f"No such image: {image}: {'; '.join(dict.fromkeys(reasons))}")

    async def _from_registry(self, wanted: Reference, credentials: Credentials) -> bool:
        await self._puller.pull(wanted, credentials=credentials)
        return True

    async def _from_others(self, wanted: Reference, credentials: Credentials, after: float = 0.0) -> bool:
        """Whether other hosts had it; it is here then. `after`: not before that moment. Raises ShoalError."""
        await asyncio.sleep(after - asyncio.get_running_loop().time())
        async with self._elsewhere(wanted.familiar) as taking:
            if taking is None:
                return False
            await self._puller.pull_from(taking, wanted)
        log.info("event=image-taken image=%s", wanted.familiar)
        return True

    async def describe(self, wanted: Reference) -> Described | None:
        """What other hosts say that it is; None where none has it. Raises ShoalError."""
        async with self._elsewhere(wanted.familiar) as taking:
            return await describe_in(taking, wanted) if taking is not None else None

    @asynccontextmanager
    async def _elsewhere(self, image: str) -> AsyncIterator[Taking | None]:
        """What takes it from other hosts; None where none has it. Raises ShoalError."""
        managers = self._managers()
        found = await managers.find_image(image) if managers is not None else None
        taking = Taking(found, self._hosts, self._coming, self._pace) if found is not None else None
        try:
            yield taking
        finally:
            if taking is not None:
                taking.close()

    async def _may_take(self, node_id: str, manifest: str) -> bool:
        managers = self._managers()
        return managers is not None and await managers.may_take(node_id, manifest)
