"""`Builder`: builds of one host, from a request and a context to an image with names."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from shoal.api import reference
from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.build import args as build_args
from shoal.engine.build import context as contexts
from shoal.engine.build import output, platforms, remote, squash, stages, words
from shoal.engine.build.args import Args
from shoal.engine.build.collector import DEFAULT_BYTES, Collector
from shoal.engine.build.context import Context
from shoal.engine.build.instructions import Dockerfile, Instruction, Stage, label_instruction
from shoal.engine.build.job import Job, Pull
from shoal.engine.build.output import Message, Send, Turns, short
from shoal.engine.build.request import Request
from shoal.engine.build.running import Containers
from shoal.engine.build.steps import StageRun
from shoal.engine.containers.engine import Engine
from shoal.engine.images.config import Image
from shoal.engine.images.distribution.keyring import Keyring, account_for
from shoal.engine.images.distribution.puller import Puller
from shoal.engine.images.images import Images
from shoal.engine.images.removal import ImageUser
from shoal.engine.storage.driver import StorageDriver
from shoal.engine.storage.rootfs import RootFSStore
from shoal.engine.storage.trees import remove_tree

Fill = Callable[[Path], Awaitable[Context]]
"""Makes the folder, of the files of a context. Raises InvalidArgument."""

CONCURRENT_BUILDS = 8
"""More have to wait."""


def pulled_by(puller: Puller) -> Pull:
    """How a build brings an image that is not here: what the registry says goes to its client."""

    async def pull(name: str, platform: str, keyring: Keyring, send: Send) -> Image:
        wanted = reference.parse(name)
        messages: asyncio.Queue[Message | None] = asyncio.Queue()  # a layer tells a few times a second
        pulling = asyncio.ensure_future(
            puller.pull(wanted, platform, account_for(keyring, wanted), progress=messages.put_nowait))
        pulling.add_done_callback(lambda _: messages.put_nowait(None))
        try:
            while (message := await messages.get()) is not None:
                await send(message)
            return await pulling
        finally:
            pulling.cancel()

    return pull


class Builder:
    """`root`: where contexts are unpacked while they are needed, and what RUN --mount=type=cache keeps."""

    def __init__(self, root: Path, engine: Engine, images: Images, driver: StorageDriver, pull: Pull, *,
                 cache_bytes: int = DEFAULT_BYTES) -> None:
        self._work = root / "work"
        self._images = images
        self._rootfs = RootFSStore(driver, lambda image_id: images.layers_of(image_id) if image_id else ())
        self._containers = Containers(root / "containers", engine, self._rootfs)
        self.cache = Collector(root, images, cache_bytes)
        self._pull = pull
        self._jobs: list[Job] = []
        self._slots = asyncio.Semaphore(CONCURRENT_BUILDS)
        self._removals: set[asyncio.Future[None]] = set()

    async def open(self) -> None:
        """Take away what a daemon that was killed left of its builds. The engine is open."""
        await asyncio.to_thread(remove_tree, self._work, ignore_errors=True)
        self._work.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._containers.sweep()

    def image_users(self, image_id: str) -> Iterable[ImageUser]:
        """The builds that need an image (beside `Engine.image_users`)."""
        return [ImageUser("a build", running=True) for job in self._jobs if image_id in job.held]

    async def build(self, request: Request, sent: Fill | None, send: Send) -> str:
        """The id of the image. `sent`: the context, where it is sent. `send` gets what Docker's clients are told.

        Raises ShoalError, before anything is sent where the request or the Dockerfile is wrong.
        """
        check(request)
        names = [_name(tag) for tag in request.tags]
        began = time.time()
        async with self._folder() as folder:
            context, file = await self._context(request, sent, folder)
            async with self._job(request, context, file, folder) as job:
                image_id = await _built(job, send)
                await send(output.stream(f"Successfully built {short(image_id)}\n"))
                for name in names:
                    await self._images.tag(image_id, name.name, name.tag)
                    await send(output.stream(f"Successfully tagged {name.familiar}\n"))
        if job.grew:
            await self.cache.collect(keep_since=began)
        return image_id

    @asynccontextmanager
    async def _folder(self) -> AsyncIterator[Path]:
        """In one of the slots, which is free once the folder is gone: only who comes next waits for that."""
        await self._slots.acquire()
        folder = self._work / secrets.token_hex(8)
        try:
            folder.mkdir(mode=0o700)
            yield folder
        finally:
            removal = asyncio.ensure_future(asyncio.to_thread(remove_tree, folder, ignore_errors=True))
            self._removals.add(removal)
            removal.add_done_callback(self._removed)

    def _removed(self, removal: asyncio.Future[None]) -> None:
        self._removals.remove(removal)
        self._slots.release()

    async def _context(self, request: Request, sent: Fill | None, folder: Path) -> tuple[Context | None, Dockerfile]:
        root = folder / "context"
        if remote.is_git(request.remote):
            context = Context(await remote.clone(request.remote, root))
        elif request.remote:
            if not remote.is_url(request.remote):
                raise InvalidArgument(f"remoteURL ({request.remote}) could not be recognized as URL")
            got = await remote.fetch(request.remote, folder / "remote")
            if got.kind == "text/plain":
                return None, contexts.read_text(await asyncio.to_thread(got.path.read_bytes), request.dockerfile)
            context = await asyncio.to_thread(contexts.open_file, got.path, root)
        elif sent is not None:
            context = await sent(root)
        else:
            raise InvalidArgument("there is neither a context nor a remote one")
        return context, await asyncio.to_thread(contexts.read_dockerfile, context.root, request.dockerfile)

    @asynccontextmanager
    async def _job(self, request: Request, context: Context | None, file: Dockerfile,
                   folder: Path) -> AsyncIterator[Job]:
        """While it lasts, nothing that the build uses goes away."""
        args = global_args(file, Args(given=request.args, predefined=build_args.platform_args(
            platforms.asked(request.platform), platforms.host())))
        plan = stages.plan(file, request.target, args.for_from())
        job = Job(request=request, file=file, plan=plan, args=args, context=context, folder=folder, images=self._images,
                  rootfs=self._rootfs, containers=self._containers, caches=self.cache.folders, pull=self._pull)
        self._jobs.append(job)
        try:
            yield job
        finally:
            self._jobs.remove(job)
            await asyncio.shield(job.close())
            await self.cache.used(job.held)


async def _built(job: Job, send: Send) -> str:
    """The id of the image that the job is about."""
    given, target = job.request.args, job.plan.target.index
    for warning in job.file.warnings:
        await send(output.stderr(f"[WARNING]: {warning}\n"))
    await run_stages(job, send)
    declared = job.declared | set(job.args.before) | {"SOURCE_DATE_EPOCH"}
    if unused := build_args.unconsumed(given, declared):
        await send(output.stream(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n"))
    result = await job.result(target)
    if result.image is None:
        raise ShoalError("No image was generated. Is your Dockerfile empty?")
    if not job.request.squash:
        return result.image.id
    image = await squash.squashed(job, result)
    await send(output.image_id(image.id))
    return image.id


def check(request: Request) -> None:
    """Raises InvalidArgument for what cannot be, whatever the Dockerfile says."""
    platforms.asked(request.platform)
    if request.shm_size_bytes < 0:
        raise InvalidArgument("SHM size can not be less than 0")


def _name(tag: str) -> reference.Reference:
    name = reference.parse(tag)
    if name.digest:
        raise InvalidArgument("build tag cannot contain a digest")
    return name


def global_args(file: Dockerfile, args: Args) -> Args:
    """With those before the first FROM. Pure. Raises InvalidArgument."""
    for instruction in file.global_args:
        for word in instruction.args:
            name, equals, value = word.partition("=")
            args = args.declare_before(name, words.expand(value, args.for_from(), file.escape) if equals else None)
    return args


def numbered(file: Dockerfile, plan: stages.Plan, labels: int) -> Iterator[tuple[Stage, int]]:
    """Each stage that is built, and the number of its first step. Pure."""
    number = len(file.global_args) + 1
    for stage in plan.stages:
        yield stage, number
        number += 1 + len(stage.instructions) + (labels if stage is plan.target else 0)


async def run_stages(job: Job, send: Send) -> None:
    """All at once; each waits for those that it needs. The first error ends the others."""
    labels = [label_instruction(name, value) for name, value in sorted(job.request.labels.items())]
    places = list(numbered(job.file, job.plan, len(labels)))
    total = len(job.file.global_args) + sum(1 + len(stage.instructions) for stage, _ in places) + len(labels)
    for number, instruction in enumerate(job.file.global_args, 1):
        await send(output.stream(f"Step {number}/{total} : {instruction.text}\n"))
    turns = Turns([stage.index for stage, _ in places], send)
    try:
        async with asyncio.TaskGroup() as group:
            for stage, number in places:
                own = labels if stage is job.plan.target else []
                group.create_task(_run_stage(job, stage, number, total, own, turns))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _run_stage(job: Job, stage: Stage, number: int, total: int, labels: list[Instruction], turns: Turns) -> None:
    for index in sorted(job.plan.needs[stage.index]):
        await job.result(index)
    try:
        result = await StageRun(job, stage, number, total, turns.of(stage.index)).run(labels)
    except ShoalError:
        await turns.fail(stage.index)
        raise
    await turns.end(stage.index)
    job.done(stage.index, result)
