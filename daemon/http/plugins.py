"""/plugins: managed plugins, of which there are none here. Legacy plugins (volumes) have no route of their own."""

from __future__ import annotations

from aiohttp import web

from shoal.api.errors import InvalidArgument, NotFound
from shoal.daemon.http.wire import filters, reply

LIST_FILTERS = frozenset({"capability", "enabled"})
OF_ONE = (("GET", "json"), ("POST", "enable"), ("POST", "disable"), ("POST", "upgrade"), ("POST", "push"),
          ("POST", "set"))


_INSTEAD = "managed plugins are not supported; install the plugin as a program of the host"


class PluginRoutes:
    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/plugins", self.list, allow_head=False)
        router.add_get("/plugins/privileges", self.fetch, allow_head=False)
        router.add_post("/plugins/pull", self.fetch)
        router.add_post("/plugins/create", self.create)
        for method, action in OF_ONE:
            router.add_route(method, f"/plugins/{{name:.*}}/{action}", self.of_one)
        router.add_delete("/plugins/{name:.*}", self.of_one)

    async def list(self, request: web.Request) -> web.Response:
        filters(request, LIST_FILTERS)
        return reply([])

    async def fetch(self, request: web.Request) -> web.Response:
        raise NotFound(f"plugin {request.query.get('remote', '')} not found: {_INSTEAD}")

    async def create(self, request: web.Request) -> web.Response:
        raise InvalidArgument(_INSTEAD)

    async def of_one(self, request: web.Request) -> web.Response:
        raise NotFound(f"plugin {request.match_info['name']!r} not found")
