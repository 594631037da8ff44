"""RUN: a command in a container of the step before it, with what is mounted into it.

A container is noted in a folder before it is made. One that is found there at the start of the daemon is left of a
build that was cut off, and goes.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from shoal.api.errors import NotFound
from shoal.api.specs import HealthCheck
from shoal.engine.build import output
from shoal.engine.build.effects import State
from shoal.engine.build.output import Send, StepFailed, short
from shoal.engine.build.request import Request
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.nouns import ContainerConfig, HostConfig, LogConfig, MountRequest
from shoal.engine.containers.stdio.client import STDERR, Attachment
from shoal.engine.storage.driver import ChangeKind
from shoal.engine.storage.rootfs import RootFSStore


class Command(msgspec.Struct, frozen=True, kw_only=True):
    words: tuple[str, ...]
    network: str = ""
    mounts: tuple[MountRequest, ...] = ()
    if_it_fails: str = ""  # what is said beside its code then


class Containers:
    """Of all builds of a host."""

    def __init__(self, notes: Path, engine: Engine, rootfs: RootFSStore) -> None:
        notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._notes = notes
        self._engine = engine
        self._rootfs = rootfs

    async def sweep(self) -> None:
        """Remove what an earlier run of the daemon left."""
        for note in self._notes.iterdir():
            with suppress(NotFound):
                await self._engine.remove(note.name, force=True, volumes=True)
            note.unlink()

    @asynccontextmanager
    async def ran(self, image_id: str, state: State, command: Command, request: Request, send: Send
                  ) -> AsyncIterator[str]:
        """The id of a container in which the command ended well; it is there as long as the block lasts.

        Raises StepFailed where the command's code is not 0.
        """
        name = f"build-{secrets.token_hex(6)}"
        note = self._notes / name
        note.touch()
        keep = False
        try:
            container_id = await self._create(name, image_id, state, command, request, send)
            try:
                await self._run(container_id, command, send)
                await self._clear_mount_points(container_id, command.mounts)
                yield container_id
                keep = not request.remove
            except StepFailed:
                keep = not request.force_remove
                raise
        finally:
            if not keep:
                await asyncio.shield(self._remove(name))
            note.unlink(missing_ok=True)
        if not keep:
            await send(output.stream(f"Removing intermediate container {short(container_id)}\n"))

    async def _remove(self, name: str) -> None:
        with suppress(NotFound):
            await self._engine.remove(name, force=True, volumes=True)

    async def _create(self, name: str, image_id: str, state: State, command: Command, request: Request, send: Send
                      ) -> str:
        config = state.config
        args = tuple(f"{key}={value}" for key, value in state.args.environment(config.env).items())
        made = await self._engine.create(
            name,
            ContainerConfig(image=image_id, entrypoint=("",), command=command.words, env=(*config.env, *args),
                            working_dir=config.working_dir, user=config.user, health_check=HealthCheck(test=("NONE",)),
                            attach_stdout=True, attach_stderr=True),
            HostConfig(network_mode=command.network or request.network_mode or "default", limits=request.limits,
                       ulimits=request.ulimits, shm_size_bytes=request.shm_size_bytes, mounts=command.mounts,
                       extra_hosts=request.extra_hosts, cgroup_parent=request.cgroup_parent,
                       log=LogConfig(driver="none")))
        for warning in made.warnings:
            await send(output.stream(f" ---> [Warning] {warning}\n"))
        await send(output.stream(f" ---> Running in {short(made.id)}\n"))
        return made.id

    async def _run(self, container_id: str, command: Command, send: Send) -> None:
        attachment = await self._engine.attach(container_id)
        ended = self._engine.wait(container_id, "next-exit")
        try:
            await self._engine.start(container_id)
            await _forward(attachment, send)
            result = await ended
        finally:
            ended.cancel()
            await attachment.detach()
        if result.exit_code:
            said = f": {result.error}" if result.error else ""
            raise StepFailed(f"The command '{' '.join(command.words)}' returned a non-zero code: {result.exit_code}"
                             f"{said}{command.if_it_fails}", result.exit_code)

    async def _clear_mount_points(self, container_id: str, mounts: Sequence[MountRequest]) -> None:
        """Take away what was made only to mount something on, so that it is no part of the layer."""
        if not mounts:
            return
        added = {change.path for change in await self._rootfs.changes(container_id) if change.kind is ChangeKind.ADDED}
        root = await self._rootfs.prepare(container_id, "")
        await asyncio.to_thread(_clear, str(root), [mount.target for mount in mounts], added)


async def _forward(attachment: Attachment, send: Send) -> None:
    """The output of a command, as it comes."""
    decoders = {number: codecs.getincrementaldecoder("utf-8")("replace") for number in (1, STDERR)}
    while (piece := await attachment.read()) is not None:
        number, data = piece
        if text := decoders[number].decode(data):
            await send(output.stderr(text) if number == STDERR else output.stream(text))


def _clear(root: str, targets: Sequence[str], added: set[str]) -> None:
    """Blocking. What something else was put into stays."""
    for target in sorted(targets, reverse=True):
        path = target
        while path in added:
            place = root + path
            try:
                if os.path.isdir(place) and not os.path.islink(place):  # noqa: PTH112, PTH114 (text, as below)
                    os.rmdir(place)  # noqa: PTH106
                elif os.lstat(place).st_size == 0:
                    os.unlink(place)  # noqa: PTH108
            except OSError:
                break
            path = path.rpartition("/")[0]
