"""The HTTP application of one host, put together. Others plug in through `Hooks` and `extra_routes`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web

from shoal.api.errors import InvalidArgument, NotFound
from shoal.daemon.http.build import BuildRoutes
from shoal.daemon.http.buildkit import BuildKitRoutes
from shoal.daemon.http.containers.archives import ArchiveRoutes
from shoal.daemon.http.containers.commit import CommitRoutes
from shoal.daemon.http.containers.execs import ExecRoutes
from shoal.daemon.http.containers.inspect import NetworkOf
from shoal.daemon.http.containers.listing import Lookups
from shoal.daemon.http.containers.routes import ContainerRoutes
from shoal.daemon.http.containers.streams import StreamRoutes
from shoal.daemon.http.containers.websocket import WebSocketRoutes
from shoal.daemon.http.errors import add_headers, errors
from shoal.daemon.http.events import EventRoutes
from shoal.daemon.http.hooks import HOOKS, Hooks
from shoal.daemon.http.images import ImageRoutes
from shoal.daemon.http.networks import NetworkRoutes
from shoal.daemon.http.plugins import PluginRoutes
from shoal.daemon.http.registries import RegistryRoutes
from shoal.daemon.http.serving import Serving
from shoal.daemon.http.system import InfoProvider, SystemRoutes
from shoal.daemon.http.usage import UsageRoutes
from shoal.daemon.http.volumes import VolumeRoutes
from shoal.daemon.http.wire import MAX_BODY_BYTES
from shoal.engine.build.builder import Builder
from shoal.engine.containers.archive import Archives
from shoal.engine.containers.engine import Engine
from shoal.engine.images.distribution.endpoints import NO_RULES, RegistryRules
from shoal.engine.images.distribution.puller import Puller
from shoal.engine.images.distribution.pusher import Pusher
from shoal.engine.images.images import Images
from shoal.overlay.networks import Networks

RouteAdder = Callable[[web.Application], None]

MAX_LINE_BYTES = 64 << 10
"""Of a request's first line and of a header: filters and changes travel in queries."""

KEEPALIVE_S = 75.0


def build_app(
    engine: Engine,
    images: Images,
    networks: Networks,
    archives: Archives,
    builder: Builder,
    *,
    data_root: Path,
    driver: str,
    hooks: Hooks | None = None,
    info: Sequence[InfoProvider] = (),
    puller: Puller | None = None,
    pusher: Pusher | None = None,
    registries: RegistryRules = NO_RULES,
    extra_routes: Sequence[RouteAdder] = (),
) -> web.Application:
    """The application; serve it with `serve`.

    `extra_routes` are called with the application, before the routes of the engine: a route
    of theirs wins over one of ours.
    """
    hooks = hooks or Hooks()
    app = web.Application(middlewares=[errors], client_max_size=MAX_BODY_BYTES)
    app[HOOKS] = hooks
    app.on_response_prepare.append(add_headers)
    for add in extra_routes:
        add(app)
    lookups = Lookups(container=engine.get, sandbox=engine.sandbox, network_of=names_of(networks),
                      image_id=image_ids(images))
    ContainerRoutes(engine, images, lookups, driver).add_to(app)
    StreamRoutes(engine).add_to(app)
    WebSocketRoutes(engine).add_to(app)
    ArchiveRoutes(archives).add_to(app)
    CommitRoutes(engine, images, archives).add_to(app)
    ExecRoutes(engine).add_to(app)
    ImageRoutes(images, puller or Puller(images), pusher or Pusher(images)).add_to(app)
    BuildRoutes(builder).add_to(app)
    BuildKitRoutes().add_to(app)
    RegistryRoutes(registries, hooks).add_to(app)
    VolumeRoutes(engine.volumes).add_to(app)
    NetworkRoutes(networks, engine, hooks).add_to(app)
    EventRoutes(engine.events).add_to(app)
    UsageRoutes(engine, images, lookups, builder.cache).add_to(app)
    PluginRoutes().add_to(app)
    SystemRoutes(hooks, info, data_root).add_to(app)
    return app


def names_of(networks: Networks) -> NetworkOf:
    """(id, name) of a network by either, of this host or of the swarm."""

    def name_of(reference: str) -> tuple[str, str]:
        for network in networks.networks():
            if reference in (network.id, network.name):
                return network.id, network.name
        for told in networks.cluster_networks():
            if reference in (told.id, told.name):
                return told.id, told.name
        return "", reference

    return name_of


def image_ids(images: Images) -> Callable[[str], str]:
    """The id of an image by a reference; "" where there is none such."""

    def image_id(reference: str) -> str:
        try:
            return images.resolve(reference).id
        except (NotFound, InvalidArgument):
            return ""

    return image_id


def serve(app: web.Application) -> Serving:
    """The application, ready to be started and given sockets. It takes versioned paths."""
    return Serving(app, {"keepalive_timeout": KEEPALIVE_S, "max_line_size": MAX_LINE_BYTES,
                         "max_field_size": MAX_LINE_BYTES})
