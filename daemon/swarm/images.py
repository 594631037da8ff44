"""What an image is that no registry has, or that none can be asked for: as hosts of the swarm have it.

`docker service create` asks this before it pins an image, so that every task runs the same one.
"""

from __future__ import annotations

from shoal.api.errors import ShoalError
from shoal.api.reference import Reference
from shoal.daemon.swarm.host import SwarmHost
from shoal.engine.images.distribution.lookup import Described
from shoal.engine.images.distribution.manifests import Descriptor, Platform
from shoal.engine.images.images import Images
from shoal.engine.images.sharing import shared_manifest


class SwarmImages:
    """Implements `hooks.ClusterImages`."""

    def __init__(self, swarm: SwarmHost, images: Images) -> None:
        self._swarm = swarm
        self._images = images

    async def made_here(self, wanted: Reference) -> Described | None:
        if self._swarm.identity is None or not self._images.has(str(wanted)):
            return None
        record = self._images.record(self._images.resolve(str(wanted)).id)
        from_registry = any(one.startswith(wanted.name + "@") for one in record.repo_digests)
        return None if from_registry else await self._here(wanted)

    async def found(self, wanted: Reference) -> Described | None:
        if self._swarm.identity is None:
            return None
        if self._images.has(str(wanted)):
            return await self._here(wanted)
        try:
            return await self._swarm.peers.describe(wanted) if self._swarm.peers is not None else None
        except ShoalError:
            return None

    async def _here(self, wanted: Reference) -> Described:
        image = self._images.resolve(str(wanted))
        manifest = await shared_manifest(self._images, image.id)
        if self._swarm.peers is not None:  # hosts that are told to run it find it here
            await self._swarm.peers.announced(manifest.digest)
        return Described(Descriptor(manifest.digest, len(manifest.raw), manifest.media_type),
                         (Platform(image.os, image.architecture, image.variant),))
