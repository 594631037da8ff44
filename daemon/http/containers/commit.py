"""POST /commit: an image of what a container changed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web
from msgspec import field

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.api.wire import Wire
from shoal.daemon.http.containers.config import health_check, words
from shoal.daemon.http.containers.networking import checked_port
from shoal.daemon.http.containers.wire import HealthWire, Words
from shoal.daemon.http.wire import body, flag, reply
from shoal.engine.containers.archive import Archives
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.nouns import Container, ContainerConfig, Status
from shoal.engine.images.config import ImageConfig
from shoal.engine.images.images import Images


class CommitWire(Wire, frozen=True):
    """What of a container's configuration an image has; what is not given is the container's own."""

    user: str = ""
    exposed_ports: dict[str, object] = field(default_factory=dict)
    env: tuple[str, ...] = ()
    cmd: Words | None = None
    entrypoint: Words | None = None
    volumes: dict[str, object] = field(default_factory=dict)
    working_dir: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    healthcheck: HealthWire | None = None


class CommitRoutes:
    def __init__(self, engine: Engine, images: Images, archives: Archives) -> None:
        self._engine = engine
        self._images = images
        self._archives = archives

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/commit", self.commit)

    async def commit(self, request: web.Request) -> web.Response:
        query = request.query
        if not query.get("container"):
            raise InvalidArgument("container: no container was given")
        container = self._engine.get(query["container"])
        raw = (await request.read()).strip()
        given = await body(request, CommitWire) if raw not in (b"", b"null") else CommitWire()
        on_build = self._images.resolve(container.image_id).config.on_build
        with tempfile.NamedTemporaryFile(dir=self._images.blobs.scratch) as layer:
            async with self._still(container, pause=flag(request, "pause") or "pause" not in query):
                await self._archives.pack_layer(container.id, layer)
            await asyncio.to_thread(layer.flush)
            image = await self._images.commit(
                Path(layer.name), container.image_id, image_config(container.config, given, on_build),
                changes=[line for text in query.getall("changes", []) for line in text.splitlines() if line.strip()],
                repository=query.get("repo", ""), tag=query.get("tag", ""), comment=query.get("comment", ""),
                author=query.get("author", ""), command=" ".join(container.argv))
        self._engine.events.publish("container", "commit", container.id, {
            **container.config.labels, "comment": query.get("comment", ""), "image": container.config.image,
            "imageID": image.id, "imageRef": query.get("repo", ""), "name": container.name})
        return reply({"Id": image.id}, 201)

    @asynccontextmanager
    async def _still(self, container: Container, *, pause: bool) -> AsyncIterator[None]:
        """Nothing writes meanwhile, with `pause`."""
        if not pause or container.state.status is not Status.RUNNING:
            yield
            return
        with suppress(ShoalError):  # it has just ended
            await self._engine.pause(container.id)
        try:
            yield
        finally:
            with suppress(ShoalError):
                await self._engine.unpause(container.id)


def image_config(config: ContainerConfig, given: CommitWire, on_build: tuple[str, ...]) -> ImageConfig:
    """What is given, and for the rest what the container has. Pure. Raises InvalidArgument."""
    names = {entry.partition("=")[0] for entry in given.env}
    env = (*given.env, *(entry for entry in config.env if entry.partition("=")[0] not in names))
    ports = ["{}/{}".format(*checked_port(port)) for port in given.exposed_ports]
    command, entrypoint = given.cmd, given.entrypoint
    if entrypoint is None:
        command, entrypoint = command or config.command, config.entrypoint
    return ImageConfig(
        user=given.user or config.user, env=env, entrypoint=words(entrypoint or ()), cmd=words(command or ()),
        working_dir=given.working_dir or config.working_dir, labels={**config.labels, **given.labels},
        exposed_ports=tuple(dict.fromkeys((*ports, *config.exposed_ports))),
        volumes=tuple(dict.fromkeys((*given.volumes, *config.volumes))),
        stop_signal=given.stop_signal or config.stop_signal,
        healthcheck=health_check(given.healthcheck) or config.health_check, on_build=on_build)
