"""/networks: those of this host, and the swarm's beside them (by `Hooks.networks`)."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from shoal.api.errors import Conflict, InvalidArgument, NotFound, NotManager, ShoalError
from shoal.daemon.http.containers.networking import endpoint
from shoal.daemon.http.containers.wire import ConnectWire, DisconnectWire
from shoal.daemon.http.hooks import NOT_A_MANAGER, Hooks
from shoal.daemon.http.networkwire import LIST_FILTERS, NetworkWire, local_spec, matches, network_json
from shoal.daemon.http.times import moment_ns, stamp_ns
from shoal.daemon.http.versions import version_of
from shoal.daemon.http.wire import body, empty, filters, flag, labels_match, reply
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.events import Events
from shoal.overlay.networks import Networks
from shoal.overlay.records import LocalNetwork

PRUNE_FILTERS = frozenset({"label", "label!", "until"})


class NetworkRoutes:
    def __init__(self, networks: Networks, engine: Engine, hooks: Hooks) -> None:
        self._networks = networks
        self._engine = engine
        self._hooks = hooks

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/networks", self.list, allow_head=False)
        router.add_get("/networks/{id}", self.inspect, allow_head=False)
        router.add_post("/networks/create", self.create)
        router.add_post("/networks/prune", self.prune)
        router.add_post("/networks/{id}/connect", self.connect)
        router.add_post("/networks/{id}/disconnect", self.disconnect)
        router.add_delete("/networks/{id}", self.remove)

    # --- reading ---

    async def list(self, request: web.Request) -> web.Response:
        wanted = filters(request, LIST_FILTERS)
        found = [network_json(network) for network in self._networks.networks()]
        if self._hooks.networks is not None:
            found += await self._hooks.networks.list()
        shown = [each for each in found if matches(each, wanted, self._is_used)]
        for each in shown:
            each["Containers"] = {}
            _fit_version(each, request)
        return reply(shown)

    async def inspect(self, request: web.Request) -> web.Response:
        reference, scope = request.match_info["id"], request.query.get("scope", "")
        shown = await self._find(reference, scope, verbose=flag(request, "verbose"))
        shown["Containers"] = {
            record.container_id: {
                "Name": record.name,
                "EndpointID": one.endpoint_id,
                "MacAddress": one.mac,
                "IPv4Address": f"{one.address}/{one.prefix_length}",
                "IPv6Address": f"{one.address6}/{one.prefix_length6}" if one.address6 else "",
            }
            for record, one in self._networks.attached(shown["Id"]) if one.request is not None
        }
        _fit_version(shown, request)
        return reply(shown)

    async def _find(self, reference: str, scope: str = "", *, verbose: bool = False) -> dict[str, Any]:
        """A whole id or name wins, wherever it is; then a prefix. Raises NotFound."""
        local = self._local(reference) if scope in ("", "local") else None
        if local is not None and reference in (local.id, local.name):
            return network_json(local)
        if self._hooks.networks is not None and scope in ("", "swarm", "global"):
            found = await self._hooks.networks.inspect(reference, verbose=verbose)
            if found is not None:
                return found
        if local is None:
            raise NotFound(f"network {reference} not found")
        return network_json(local)

    def _local(self, reference: str) -> LocalNetwork | None:
        try:
            return self._networks.network(reference)
        except NotFound:
            return None

    def _is_used(self, network_id: str) -> bool:
        return bool(self._networks.attached(network_id))

    # --- changing ---

    async def create(self, request: web.Request) -> web.Response:
        wanted = await body(request, NetworkWire)
        if wanted.is_swarm:
            return reply(await self._create_in_swarm(wanted.name, msgspec.json.decode(await request.read())), 201)
        spec = local_spec(wanted)
        if spec.name and self._hooks.networks is not None:
            others = await self._hooks.networks.list()
            if any(each["Name"] == spec.name for each in others):
                raise Conflict(f"network with name {spec.name} already exists")
        network = await self._networks.create_network(spec)
        self._publish("create", network)
        return reply({"Id": network.id, "Warning": ""}, 201)

    async def _create_in_swarm(self, name: str, raw: dict[str, Any]) -> dict[str, Any]:
        if self._hooks.networks is None:
            raise NotManager(NOT_A_MANAGER)
        if any(network.name == name for network in self._networks.networks()):
            raise Conflict(f"network with name {name} already exists")
        return await self._hooks.networks.create(raw)

    async def remove(self, request: web.Request) -> web.Response:
        shown = await self._find(request.match_info["id"])
        if shown["Scope"] == "local":
            self._publish("destroy", await self._networks.remove_network(shown["Id"]))
        elif self._hooks.networks is not None:
            await self._hooks.networks.remove(shown["Id"])
        return empty()

    async def prune(self, request: web.Request) -> web.Response:
        wanted = filters(request, PRUNE_FILTERS)
        until = min((moment_ns(value, "until") for value in wanted.get("until", ())), default=None)
        deleted = []
        for network in self._networks.unused():
            unwanted = any(labels_match([label], network.labels) for label in wanted.get("label!", ()))
            too_young = until is not None and stamp_ns(network.created) > until
            if unwanted or too_young or not labels_match(wanted.get("label", ()), network.labels):
                continue
            try:
                self._publish("destroy", await self._networks.remove_network(network.id))
            except ShoalError:
                continue  # a container has just joined it
            deleted.append(network.name)
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return reply({"NetworksDeleted": deleted})

    # --- containers on them ---

    async def connect(self, request: web.Request) -> web.Response:
        wanted = await body(request, ConnectWire)
        shown = await self._find(request.match_info["id"])
        container = self._engine.get(_reference(wanted.container))
        await self._engine.connect(container.id, endpoint(shown["Name"], wanted.endpoint_config))
        return empty(200)

    async def disconnect(self, request: web.Request) -> web.Response:
        wanted = await body(request, DisconnectWire)
        shown = await self._find(request.match_info["id"])
        container = self._engine.get(_reference(wanted.container))
        await self._engine.disconnect(container.id, shown["Name"])
        return empty(200)

    # --- events ---

    @property
    def _events(self) -> Events:
        return self._engine.events

    def _publish(self, action: str, network: LocalNetwork) -> None:
        self._events.publish("network", action, network.id, {"name": network.name, "type": network.driver})


def _reference(container: str) -> str:
    if not container:
        raise InvalidArgument("Container: no container was given")
    return container


def _fit_version(shown: dict[str, Any], request: web.Request) -> None:
    if version_of(request) < (1, 47):
        shown.pop("EnableIPv4", None)


