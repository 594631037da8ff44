"""One stage, instruction by instruction: what is found in the cache is taken, the rest is done and kept as an image."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.build import (
    copying,
    effects,
    instructions,
    keys,
    layers,
    mounts,
    output,
    parser,
    platforms,
    sources,
    words,
)
from shoal.engine.build.cache import Cache
from shoal.engine.build.effects import State
from shoal.engine.build.instructions import Instruction, Stage
from shoal.engine.build.job import Job, Result
from shoal.engine.build.keys import Step
from shoal.engine.build.mounting import mounted
from shoal.engine.build.output import Send, StepFailed, short
from shoal.engine.build.remote import fetch, is_url
from shoal.engine.build.running import Command
from shoal.engine.build.sources import Source
from shoal.engine.containers.nouns import MountRequest
from shoal.engine.images.config import Image

PIPES = "/dev/pipes"
"""Where a script of a heredoc lies while it runs."""


class StageRun:
    """`number`: of its first step among the `total`."""

    def __init__(self, job: Job, stage: Stage, number: int, total: int, send: Send) -> None:
        self._job = job
        self._stage = stage
        self._number = number
        self._total = total
        self._send = send
        self._image: Image | None = None
        self._base: Image | None = None
        self._private = False  # something was taken of an image that is not for everybody
        self._empty: Image = platforms.empty_image(job.platform(stage.index))
        self._cache = Cache(job.images, platforms.of_image(self._empty), sources=job.request.cache_from,
                            off=job.request.no_cache)
        self._state = State(config=self._empty.config, args=job.args)

    async def run(self, labels: list[Instruction]) -> Result:
        """Raises ShoalError, naming the place in the Dockerfile."""
        await self._announce(self._stage.text)
        await self._at(self._stage.line, self._stage.text, self._begin())
        await self._tell_image()
        for instruction in (*self._stage.instructions, *labels):
            await self._announce(instruction.text)
            await self._at(instruction.line, instruction.text, self._do(instruction))
            await self._tell_image()
        if self._image is not None:
            await self._send(output.image_id(self._image.id))
        return Result(self._image, self._state, self._base)

    async def _at(self, line: int, text: str, work: Awaitable[None]) -> None:
        try:
            await work
        except StepFailed:
            await self._send(output.stderr(f"{self._job.file.where(line)}: {text}\n"))
            raise
        except ShoalError as error:
            if not line:
                raise
            raise type(error)(f"{error} ({self._job.file.where(line)}: {text})") from error

    async def _announce(self, text: str) -> None:
        await self._send(output.stream(f"Step {self._number}/{self._total} : {text}\n"))
        self._number += 1

    async def _tell_image(self) -> None:
        await self._send(output.stream(f" ---> {short(self._image.id) if self._image else ''}\n"))

    async def _begin(self) -> None:
        self._image = self._base = await self._job.base(self._stage.index, self._send)
        self._state = effects.begin((self._image or self._empty).config, self._job.args)
        triggers = self._state.config.on_build
        if not triggers:
            return
        self._state = msgspec.structs.replace(
            self._state, config=msgspec.structs.replace(self._state.config, on_build=()))
        plural = "s" if len(triggers) > 1 else ""
        await self._send(output.stream(f"# Executing {len(triggers)} build trigger{plural}\n"))
        for trigger in triggers:
            await self._do(instructions.instruction(parser.parse_trigger(trigger, self._job.file.escape)))

    # --- one instruction ---

    async def _do(self, instruction: Instruction) -> None:
        escape = self._job.file.escape
        instruction = effects.expanded(instruction, self._state.environment(), escape)
        if instruction.keyword == "RUN":
            await self._run(instruction)
        elif instruction.keyword in ("COPY", "ADD"):
            await self._copy(instruction)
        elif instruction.keyword == "WORKDIR":
            await self._work_dir(instruction)
        else:
            self._state, line = effects.apply(self._state, instruction)
            self._job.declared |= set(self._state.args.declared)
            step = keys.nop(self._state, line)
            if not await self._found(step):
                await self._keep(step, None)

    async def _found(self, step: Step) -> bool:
        found = self._cache.find(self._image, step)
        if found is None:
            return False
        self._job.hold(found.image.id)
        await self._send(output.stream(" ---> Using cache\n"))
        if not found.goes_on:
            self._take(found.image)
            return True
        entry = found.image.history[len(self._image.history) if self._image else 0]
        draft = layers.draft(self._image or self._empty, self._state, step, empty=entry.empty_layer,
                             epoch=self._job.request.epoch)
        self._take(await self._job.images.extend_as(
            self._image.id if self._image else "", draft, found.image.id, cache_key=step.key))
        return True

    def _take(self, image: Image) -> None:
        self._job.hold(image.id)
        self._image = image

    async def _keep(self, step: Step, layer: Path | None) -> None:
        self._job.grew = True
        draft = layers.draft(self._image or self._empty, self._state, step, empty=layer is None,
                             epoch=self._job.request.epoch)
        self._take(await self._job.images.extend(
            self._image.id if self._image else "", draft, layer, cache_key=step.key, private=self._private))

    async def _keep_root(self, step: Step, root_id: str) -> None:
        job = self._job
        async with layers.packed(job.rootfs, root_id, job.images.blobs.scratch, job.request.epoch) as layer:
            await self._keep(step, layer)

    async def _write(self, step: Step, change: Callable[[str], None]) -> None:
        """A step that changes files by itself: `change` gets the root, in a thread."""
        async with self._job.fresh_root(self._image) as (root_id, root):
            try:
                await asyncio.to_thread(change, str(root))
            except OSError as error:
                raise ShoalError(f"failed to copy files: {error}") from error
            await self._keep_root(step, root_id)

    async def _work_dir(self, instruction: Instruction) -> None:
        self._state = effects.working_dir(self._state, instruction)
        path = self._state.config.working_dir
        step = keys.nop(self._state, f"WORKDIR {path}", one_word=True)
        if not await self._found(step):
            await self._write(step, lambda root: copying.make_folder(root, path))

    # --- COPY and ADD ---

    async def _copy(self, instruction: Instruction) -> None:
        scratch, flags, target = self._job.scratch(), instruction.flags, instruction.args[-1]
        found = await self._sources(instruction, scratch)
        if len(found) > 1 and not target.endswith("/"):
            raise InvalidArgument(f"When using {instruction.keyword} with more than one source file, the destination "
                                  "must be a directory and end with a /")
        mode, chown = copying.mode(flags.get("chmod", "")), flags.get("chown", "")
        hashes = [source.hash for source in found]
        shown = "".join(f"--{name}={flags[name]} " for name in ("chown", "chmod", "link", "parents") if flags.get(name))
        what = hashes[0] if len(hashes) == 1 else keys.combined("multi", hashes)
        step = keys.nop(self._state, f"{instruction.keyword} {shown}{what} in {target} ", one_word=True)
        if await self._found(step):
            return
        place = copying.destination(self._state.config.working_dir, target)

        def change(root: str) -> None:
            owner: tuple[int, int] | None = (0, 0)
            if chown:
                owner = copying.owner(root, chown)
            elif "from" in flags:
                owner = None
            copying.copy(root, found, place, copying.Options(
                owner=owner, mode=mode, unpack=instruction.keyword == "ADD" and flags.get("unpack") != "false",
                parents=instruction.flag("parents"), excludes=instruction.excludes))

        await self._write(step, change)

    async def _sources(self, instruction: Instruction, scratch: Path) -> list[Source]:
        flags, found = instruction.flags, []
        contents = {heredoc.name: heredoc for heredoc in instruction.heredocs}
        patterns: list[str] = []
        for number, word in enumerate(instruction.args[:-1]):
            heredoc = parser.heredoc_word(word)
            if heredoc is not None and heredoc[0] in contents:
                found.append(await asyncio.to_thread(self._written, contents[heredoc[0]], scratch))
            elif is_url(word):
                if instruction.keyword == "COPY":
                    raise InvalidArgument("COPY failed: source can't be a URL for COPY")
                found.append(await self._downloaded(word, flags.get("checksum", ""), instruction.args[-1],
                                                    scratch / str(number)))
            else:
                patterns.append(word)
        if patterns:
            try:
                root = await self._root_of(flags.get("from", ""))
            except ShoalError as error:
                raise type(error)(f"invalid from flag value {flags.get('from', '')}: {error}") from error
            try:
                found += await asyncio.to_thread(
                    sources.select, str(root), patterns, instruction.excludes, context="from" not in flags,
                    digests=self._job.digests(root))
            except ShoalError as error:
                raise type(error)(f"{instruction.keyword} failed: {error}") from error
            except OSError as error:
                raise ShoalError(f"{instruction.keyword} failed: {error}") from error
        return found

    async def _root_of(self, reference: str) -> Path:
        root = await self._job.root_of(reference, self._stage.index, self._send)
        self._private = self._private or self._job.is_private(root)
        return root

    def _written(self, heredoc: parser.Heredoc, folder: Path) -> Source:
        """The file of a heredoc."""
        content = heredoc.content
        if heredoc.expand:
            content = words.expand_content(content, self._state.environment())
        (folder / heredoc.name).write_text(content)
        (folder / heredoc.name).chmod(0o644)
        os.utime(folder / heredoc.name, (0, 0))
        return Source(root=str(folder), path=heredoc.name, name=heredoc.name, unpack=False,
                      hash=f"file:{sources.file_hash(str(folder / heredoc.name), heredoc.name)}")

    async def _downloaded(self, url: str, checksum: str, target: str, folder: Path) -> Source:
        await asyncio.to_thread(folder.mkdir)
        got = await fetch(url, folder / "download", checksum)
        if not got.name and target.endswith("/"):
            raise InvalidArgument(f"cannot determine filename for source {url}")
        place = got.path.rename(folder / (got.name or "__unnamed__"))
        place.chmod(0o600)
        os.utime(place, (got.modified, got.modified))
        name = f"file:{await asyncio.to_thread(sources.file_hash, str(place), place.name)}"
        return Source(root=str(folder), path=place.name, name=place.name, hash=name, unpack=False)

    # --- RUN ---

    async def _run(self, instruction: Instruction) -> None:
        scratch, job = self._job.scratch(), self._job
        script, command = self._command(instruction, scratch)
        network = instruction.flags.get("network", "")
        if network not in ("", "default", "none", "host"):
            raise InvalidArgument(f'unsupported network mode "{network}"')
        if instruction.flags.get("security", "sandbox") != "sandbox":
            raise InvalidArgument("RUN --security=insecure is not supported")
        asked = [mounts.parse(text, self._state.config.working_dir, self._expand) for text in instruction.mounts]
        extra = [*instruction.mounts, *(f"network={network}" for _ in range(bool(network))),
                 *(f"script={heredoc.content}" for heredoc in instruction.heredocs)]
        extra += [await self._mount_hash(mount) for mount in asked if mount.kind == "bind"]
        step = keys.run(self._state, command, extra)
        if await self._found(step):
            return
        if self._image is None:
            raise InvalidArgument("there is nothing to run in: the stage is empty (FROM scratch)")
        foreign = platforms.foreign(self._image)
        async with mounted(
                asked, root_of=self._root_of, caches=job.caches,
                secrets=job.request.secrets, scratch=scratch) as requests:
            ran = Command(words=command, network=network, mounts=(*script, *requests), if_it_fails=foreign)
            async with job.containers.ran(self._image.id, self._state, ran, job.request, self._send) as container_id:
                await self._keep_root(step, container_id)

    def _expand(self, text: str) -> str:
        return words.expand(text, self._state.environment(), self._job.file.escape)

    async def _mount_hash(self, mount: mounts.Mount) -> str:
        root = await self._root_of(mount.source_of)
        found = await asyncio.to_thread(sources.select, str(root), [mount.source or "/"],
                                        digests=self._job.digests(root))
        return found[0].hash

    def _command(self, instruction: Instruction, scratch: Path) -> tuple[tuple[MountRequest, ...], tuple[str, ...]]:
        """What has to be mounted for it (a script of a heredoc), and the command."""
        shell, heredocs = self._state.shell, instruction.heredocs
        if not heredocs:
            return (), instructions.shell_words(instruction.args, instruction.json, shell)
        alone = parser.heredoc_word(instruction.args[0]) is not None
        if alone and heredocs[0].content.startswith("#!"):
            script = scratch / heredocs[0].name
            script.write_text(heredocs[0].content)
            script.chmod(0o755)
            scratch.chmod(0o755)
            mount = MountRequest(source=str(scratch), target=PIPES, read_only=True)
            return (mount,), (f"{PIPES}/{script.name}",)
        if alone:
            return (), (*shell, heredocs[0].content)
        whole = instruction.args[0] + "".join(f"\n{each.content}{each.name}" for each in heredocs)
        return (), (*shell, whole)
