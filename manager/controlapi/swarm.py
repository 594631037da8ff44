"""/swarm (inspect, update, unlock), /internal/swarm-summary, and /secrets and /configs as far as they go yet.

Making, joining and leaving a swarm is the daemon's: it happens where there is no manager yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from shoal.api.errors import Conflict, NotFound, NotImplementedHere
from shoal.manager.ca.tokens import rotated
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.errors import out_of_sequence
from shoal.manager.controlapi.lookups import cluster_of
from shoal.manager.controlapi.requests import body, filters, flag, object_version, reply
from shoal.manager.controlapi.services import counts_of
from shoal.manager.controlapi.wire_swarm import SwarmSpecWire, cluster_json, cluster_spec, swarm_json
from shoal.manager.controlapi.writes import applied_before, change, request_id_of
from shoal.manager.store.changes import Update
from shoal.manager.store.state import State

_FILTERS = frozenset({"id", "name", "names", "label"})


class SwarmRoutes:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        routes = [
            web.get("/swarm", self.inspect),
            web.post("/swarm/update", self.update),
            web.get("/swarm/unlockkey", self.unlock_key),
            web.post("/swarm/unlock", self.unlock),
            web.get("/internal/swarm-summary", self.summary),
        ]
        for kind in ("secret", "config"):
            routes += [
                web.get(f"/{kind}s", self.none_yet),
                web.post(f"/{kind}s/create", self.not_yet),
                web.post(f"/{kind}s/{{id}}/update", self.unknown),
                web.get(f"/{kind}s/{{id}}", self.unknown),
                web.delete(f"/{kind}s/{{id}}", self.unknown),
            ]
        return routes

    async def inspect(self, request: web.Request) -> web.Response:
        await self._context.store.read_barrier()
        return reply(swarm_json(cluster_of(self._context.store.view())))

    async def summary(self, request: web.Request) -> web.Response:
        """What /info shows of the swarm; read here without asking the others, so that it never waits."""
        view = self._context.store.view()
        return reply({**counts_of(view), "Cluster": cluster_json(cluster_of(view))})

    async def update(self, request: web.Request) -> web.Response:
        context, request_id = self._context, request_id_of(self._context, request)
        version = object_version(request)
        worker, manager = flag(request, "rotateWorkerToken"), flag(request, "rotateManagerToken")
        if flag(request, "rotateManagerUnlockKey"):
            raise NotImplementedHere("locking managers (autolock) is not supported yet: there is no key to rotate")
        wire = await body(request, SwarmSpecWire)

        def decide(view: State) -> Sequence[Update]:
            cluster = cluster_of(view)
            if cluster.meta.version != version:
                raise out_of_sequence()
            spec = cluster_spec(wire, cluster.spec)
            tokens = rotated(cluster.join_tokens, worker=worker, manager=manager)
            return [Update(record=msgspec.structs.replace(cluster, spec=spec, join_tokens=tokens), wanted=True)]

        if not applied_before(context, request_id):
            await change(context, decide, request_id)
        return web.Response()

    async def unlock_key(self, request: web.Request) -> web.Response:
        """No manager is locked with a key, so the key is empty."""
        cluster_of(self._context.store.view())
        return reply({"UnlockKey": ""})

    async def unlock(self, request: web.Request) -> web.Response:
        raise Conflict("swarm is not locked")

    async def none_yet(self, request: web.Request) -> web.Response:
        filters(request, _FILTERS)
        return reply([])

    async def not_yet(self, request: web.Request) -> web.Response:
        raise NotImplementedHere("secrets and configs are not supported yet: use bind mounts or the environment")

    async def unknown(self, request: web.Request) -> web.Response:
        kind = "secret" if request.path.startswith("/secrets") else "config"
        raise NotFound(f"{kind} {request.match_info['id']} not found")
