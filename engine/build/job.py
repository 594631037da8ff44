"""One build while it goes on: what its stages share, and the roots of stages and images that they read."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.build import platforms, stages
from shoal.engine.build.args import Args
from shoal.engine.build.context import Context
from shoal.engine.build.effects import State
from shoal.engine.build.folders import CacheFolders
from shoal.engine.build.instructions import Dockerfile
from shoal.engine.build.output import Message
from shoal.engine.build.request import Request
from shoal.engine.build.running import Containers
from shoal.engine.build.stages import Plan
from shoal.engine.images.config import Image
from shoal.engine.images.distribution.keyring import Keyring
from shoal.engine.images.images import Images
from shoal.engine.storage.rootfs import RootFSStore
from shoal.engine.storage.unpack import Digests

Pull = Callable[[str, str, Keyring, Callable[[Message], Awaitable[None]]], Awaitable[Image]]
"""(reference, platform, accounts, where progress goes): bring an image here. Raises ShoalError."""

ROOT_PREFIX = "build-"


class Result(msgspec.Struct, frozen=True):
    """A stage that is done. `image` None: FROM scratch, and nothing after it; `base`: what its FROM meant."""

    image: Image | None
    state: State
    base: Image | None


class Job:
    """`folder`: of this build alone. Roots are named so that the engine's start takes those away that were left."""

    def __init__(
        self, *, request: Request, file: Dockerfile, plan: Plan, args: Args, context: Context | None, folder: Path,
        images: Images, rootfs: RootFSStore, containers: Containers, caches: CacheFolders, pull: Pull,
    ) -> None:
        self.request = request
        self.file = file
        self.plan = plan
        self.args = args
        self.context = context
        self.folder = folder
        self.images = images
        self.rootfs = rootfs
        self.containers = containers
        self.caches = caches
        self.held: set[str] = set()  # images that must not go away meanwhile
        self.grew = False  # whether it did something that the cache did not have
        self.declared: set[str] = set()  # every ARG of the stages that were built
        self._pull = pull
        self._results: dict[int, asyncio.Future[Result]] = {
            stage.index: asyncio.get_running_loop().create_future() for stage in plan.stages}
        self._roots: dict[str, tuple[str, Path]] = {}
        self._private: set[Path] = set()  # roots of images that a registry was sent a password for
        self._mounting = asyncio.Lock()

    # --- stages ---

    def done(self, index: int, result: Result) -> None:
        self._results[index].set_result(result)

    async def result(self, index: int) -> Result:
        """Once that stage is done. Raises InvalidArgument for one that is not built (a trigger's, unforeseen)."""
        if index not in self._results:
            name = self.file.stages[index].name or index
            raise InvalidArgument(f"stage {name} is not built, because no instruction of the Dockerfile names it")
        return await asyncio.shield(self._results[index])

    async def base(self, index: int, send: Callable[[Message], Awaitable[None]]) -> Image | None:
        """The image that a stage's FROM means; None: scratch."""
        name = self.plan.bases[index]
        for other in self.file.stages[:index]:
            if other.name and other.name == name.lower():
                return (await self.result(other.index)).image
        if name.lower() == stages.SCRATCH:
            return None
        return await self.image(name, self.platform(index), send)

    def platform(self, index: int) -> str:
        """What a stage is asked to be for; "": this host's."""
        return self.plan.platforms[index] or self.request.platform

    async def image(self, name: str, platform: str, send: Callable[[Message], Awaitable[None]]) -> Image:
        """An image by its name, pulled where it is not here for the platform or the build asks for that.

        Raises ShoalError.
        """
        wanted = platforms.asked(platform)
        image = self.images.resolve(name) if self.images.has(name) else None
        if self.request.pull or image is None or (platform and not platforms.is_for(image, wanted)):
            image = await self._pull(name, platform, self.request.keyring, send)
        platforms.check(image, platform, name)
        self.hold(image.id)
        return image

    def hold(self, image_id: str) -> None:
        self.held.add(image_id)

    # --- roots ---

    async def root_of(self, reference: str, before: int, send: Callable[[Message], Awaitable[None]]) -> Path:
        """The files of a stage or an image (to be read only), of the context where `reference` is "". """
        if not reference:
            if self.context is None:
                raise InvalidArgument("missing build context")
            return self.context.root
        index = stages.find(self.file.stages, reference, before)
        image = (await self.result(index)).image if index is not None else await self.image(
            reference, self.request.platform, send)
        image_id = image.id if image else ""
        async with self._mounting:
            if image_id not in self._roots:
                root_id = _root_id()
                self._roots[image_id] = root_id, await self.rootfs.prepare(root_id, image_id)
        root = self._roots[image_id][1]
        if image is not None and self.images.record(image.id).private:
            self._private.add(root)
        return root

    def digests(self, root: Path) -> Digests:
        """What is known of the content of the files there, by inode."""
        return self.context.digests if self.context is not None and root == self.context.root else {}

    def is_private(self, root: Path) -> bool:
        """Whether what is taken from there is not for everybody."""
        return root in self._private

    @asynccontextmanager
    async def fresh_root(self, image: Image | None) -> AsyncIterator[tuple[str, Path]]:
        """(id, path) of a root to write a step into."""
        root_id = _root_id()
        try:
            yield root_id, await self.rootfs.prepare(root_id, image.id if image else "")
        finally:
            await asyncio.shield(self.rootfs.remove(root_id))

    async def close(self) -> None:
        for future in self._results.values():
            future.cancel()
        for root_id, _ in self._roots.values():
            await self.rootfs.remove(root_id)

    def scratch(self) -> Path:
        """A new folder, for one step."""
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        return folder


def _root_id() -> str:
    return f"{ROOT_PREFIX}{secrets.token_hex(8)}"
