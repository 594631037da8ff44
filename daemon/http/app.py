"""The HTTP application of one host, put together. Others plug in through `Hooks` and `extra_routes`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web

from shoal.daemon.http.errors import add_headers, errors
from shoal.daemon.http.hooks import HOOKS, Hooks
from shoal.daemon.http.images import ImageRoutes
from shoal.daemon.http.system import InfoProvider, SystemRoutes
from shoal.daemon.http.versions import versioned
from shoal.daemon.http.wire import MAX_BODY_BYTES
from shoal.engine.images.images import Images

RouteAdder = Callable[[web.Application], None]

MAX_LINE_BYTES = 64 << 10
"""Of a request's first line and of a header: filters and changes travel in queries."""

KEEPALIVE_S = 75.0


def build_app(
    images: Images,
    *,
    data_root: Path,
    hooks: Hooks | None = None,
    info: Sequence[InfoProvider] = (),
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
    SystemRoutes(hooks, info, data_root).add_to(app)
    ImageRoutes(images).add_to(app)
    return app


async def serve(app: web.Application) -> web.AppRunner:
    """A runner that takes versioned paths. Add sites to it, and clean it up at the end."""
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEPALIVE_S,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
        handler_cancellation=True,
        shutdown_timeout=2.0,
    )
    await runner.setup()
    server = runner.server
    assert isinstance(server, web.Server)
    server.request_factory = versioned(server.request_factory)
    return runner
