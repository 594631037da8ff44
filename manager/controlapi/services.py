"""/services: create, list, inspect, update, rollback, remove. Logs are in `logs`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument, NotFound, NotImplementedHere
from shoal.api.objects import Endpoint, Network, Service, UpdateStatus
from shoal.api.query import Filters, labels_match
from shoal.api.specs import NODE_LOCAL, NetworkAttachmentSpec, PullOptions, ServiceSpec
from shoal.api.states import TaskState
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.errors import invalid, name_taken, out_of_sequence, precondition
from shoal.manager.controlapi.lookups import find_network, find_service
from shoal.manager.controlapi.names import fresh_name
from shoal.manager.controlapi.requests import body, filters, flag, object_version, prefix_match, reply, version_of
from shoal.manager.controlapi.wire_service import ServiceSpecWire, service_json, service_spec
from shoal.manager.controlapi.writes import applied_before, change, id_for, request_id_of
from shoal.manager.scheduler.constraints import is_label
from shoal.manager.store.changes import Create, Delete, Update
from shoal.manager.store.state import State

_FILTERS = frozenset({"id", "name", "label", "mode", "runtime"})
_MODES = ("replicated", "global", "replicated-job", "global-job")
MAX_REGISTRY_AUTH = 32 << 10


class ServiceRoutes:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/services", self.list),
            web.post("/services/create", self.create),
            web.get("/services/{id}", self.inspect),
            web.delete("/services/{id}", self.remove),
            web.post("/services/{id}/update", self.update),
        ]

    async def create(self, request: web.Request) -> web.Response:
        context, request_id = self._context, request_id_of(self._context, request)
        wire = await body(request, ServiceSpecWire)
        service_id = id_for(request_id)
        if not wire.name:
            view = context.store.view()
            wire = msgspec.structs.replace(wire, name=fresh_name(lambda name: view.named("service", name) is not None))
        spec = with_pull_options(service_spec(wire, version_of(request)), pull_options(request))

        def decide(view: State) -> Sequence[Create]:
            if view.named("service", spec.name) is not None:
                raise name_taken("service", spec.name)
            resolved = with_network_ids(spec, view)
            return [Create(record=Service(id=service_id, spec=resolved, endpoint=_endpoint(resolved)))]

        if not applied_before(context, request_id):
            await change(context, decide, request_id)
        return reply({"ID": service_id, "Warnings": warnings(spec)}, 201)

    async def list(self, request: web.Request) -> web.Response:
        wanted = filters(request, _FILTERS)
        for mode in wanted.get("mode", []):
            if mode not in _MODES:
                raise InvalidArgument(f"invalid filter 'mode={mode}'")
        with_status = flag(request, "status") and version_of(request) >= (1, 41)
        await self._context.store.read_barrier()
        view = self._context.store.view()
        found = sorted((each for each in view.services.values() if _matches(each, wanted)), key=lambda each: each.id)
        shown = []
        for each in found:
            shown.append(service_json(each, task_counts(view, each) if with_status else None))
            await asyncio.sleep(0)  # a long list keeps neither Raft nor sessions waiting
        return reply(shown)

    async def inspect(self, request: web.Request) -> web.Response:
        await self._context.store.read_barrier()
        service = find_service(self._context.store.view(), request.match_info["id"])
        return reply(service_json(service, insert_defaults=flag(request, "insertDefaults")))

    async def remove(self, request: web.Request) -> web.Response:
        context, request_id = self._context, request_id_of(self._context, request)

        def decide(view: State) -> Sequence[Delete]:
            return [Delete(table="service", id=find_service(view, request.match_info["id"]).id)]

        if not applied_before(context, request_id):
            await change(context, decide, request_id)
        return web.Response()

    async def update(self, request: web.Request) -> web.Response:
        context, request_id = self._context, request_id_of(self._context, request)
        version, rollback = object_version(request), request.query.get("rollback", "")
        if rollback not in ("", "previous"):
            raise invalid(f'unrecognized rollback option "{rollback}"')
        auth_from = request.query.get("registryAuthFrom", "")
        if auth_from not in ("", "spec", "previous-spec"):
            raise invalid(f'unsupported registryAuthFrom "{auth_from}"')
        given = pull_options(request)
        wire = await body(request, ServiceSpecWire)
        spec = None if rollback else service_spec(wire, version_of(request))

        def decide(view: State) -> Sequence[Update]:
            current = find_service(view, request.match_info["id"])
            if current.meta.version != version:
                raise out_of_sequence()
            if spec is None:
                return [Update(record=rolled_back(current, context.now()), wanted=True)]
            options = given or kept_pull_options(current, auth_from)
            return [Update(record=updated(current, with_pull_options(spec, options), view), wanted=True)]

        if not applied_before(context, request_id):
            await change(context, decide, request_id)
        return reply({"Warnings": warnings(spec) if spec is not None else []})


def warnings(spec: ServiceSpec) -> list[str]:
    """What of a service has no effect."""
    return [f"placement preference {each!r} has no effect: tasks are spread over node.labels.X or engine.labels.X"
            for each in spec.task.placement.preferences if not is_label(each)]


def pull_options(request: web.Request) -> PullOptions | None:
    """What the client gave of its account at the registry. Raises InvalidArgument where it is too long."""
    given = request.headers.get("X-Registry-Auth", "")
    if len(given) > MAX_REGISTRY_AUTH:
        raise invalid(f"X-Registry-Auth has {len(given)} characters, at most {MAX_REGISTRY_AUTH} are allowed")
    return PullOptions(registry_auth=given) if given else None


def kept_pull_options(current: Service, auth_from: str) -> PullOptions | None:
    """Those of an update that brings none: of the specification that it replaces, or of the one before that.

    Source: moby, daemon/cluster/services.go.
    """
    spec = current.previous_spec if auth_from == "previous-spec" else current.spec
    if spec is None:
        raise precondition(f"service {current.id} does not have a previous spec")
    return None if spec.task.container is None else spec.task.container.pull_options


def with_pull_options(spec: ServiceSpec, options: PullOptions | None) -> ServiceSpec:
    if spec.task.container is None:
        return spec
    container = msgspec.structs.replace(spec.task.container, pull_options=options)
    return msgspec.structs.replace(spec, task=msgspec.structs.replace(spec.task, container=container))


def updated(current: Service, spec: ServiceSpec, view: State) -> Service:
    """The service with a new specification. Raises what a client is told where that cannot be."""
    if spec.name != current.spec.name:
        raise NotImplementedHere("rpc error: code = Unimplemented desc = renaming services is not supported")
    if spec.mode.kind != current.spec.mode.kind:
        raise NotImplementedHere("rpc error: code = Unimplemented desc = service mode change is not allowed")
    resolved = with_network_ids(spec, view)
    return _replaced(current, resolved, None)


def rolled_back(current: Service, now: float) -> Service:
    """The service with its previous specification. Raises InvalidArgument where it has none."""
    if current.previous_spec is None:
        raise precondition(f"service {current.id} does not have a previous spec")
    status = UpdateStatus(state="rollback_started", message="manually requested rollback", started_at=now)
    return _replaced(current, current.previous_spec, status)


def _replaced(current: Service, spec: ServiceSpec, status: UpdateStatus | None) -> Service:
    changes_tasks = spec.task != current.spec.task or spec.endpoint != current.spec.endpoint
    return msgspec.structs.replace(
        current,
        spec=spec,
        previous_spec=current.spec,
        # Grows with every update: it names the task part's version, the exact index does not matter.
        spec_version=current.meta.revision if changes_tasks else current.spec_version,
        update_status=status,
    )


def with_network_ids(spec: ServiceSpec, view: State) -> ServiceSpec:
    """The specification with each network by its id. Raises NotFound, and InvalidArgument for two of the same.

    A network that every node has by itself stays named, and stands alone.
    """
    asked = spec.task.networks
    if not asked:
        return spec
    if local := [each.target for each in asked if each.target in NODE_LOCAL]:
        if len(asked) > 1:
            raise invalid(f"Networks: {local[0]} cannot be combined with other networks")
        return spec
    networks: list[NetworkAttachmentSpec] = []
    for attachment in asked:
        network = _swarm_network(attachment.target, view)
        if any(each.target == network.id for each in networks):
            raise invalid(f"Networks: {network.spec.name} is named twice")
        networks.append(msgspec.structs.replace(attachment, target=network.id))
    task = msgspec.structs.replace(spec.task, networks=tuple(networks))
    return msgspec.structs.replace(spec, task=task)


def task_counts(view: State, service: Service) -> dict[str, int]:
    """The `ServiceStatus` of the API."""
    running = wanted = completed = 0
    for task in view.service_tasks(service.id):
        running += task.status.state == TaskState.RUNNING and task.desired <= TaskState.RUNNING
        wanted += task.desired <= TaskState.RUNNING
        completed += task.status.state == TaskState.COMPLETE
    is_global = service.spec.mode.kind == "global"
    return {
        "RunningTasks": running,
        "DesiredTasks": wanted if is_global else service.spec.mode.replicas,
        "CompletedTasks": 0 if service.spec.mode.kind in ("replicated", "global") else completed,
    }


def _swarm_network(target: str, view: State) -> Network:
    try:
        network = find_network(view, target)
    except NotFound:
        if target == "none":
            raise invalid(
                f"network {target} cannot be used with services. Only networks scoped to the swarm can be used, "
                "such as those created with the overlay driver."
            ) from None
        raise
    if network.spec.ingress:
        raise invalid(f"Service cannot be explicitly attached to the ingress network {network.spec.name}")
    return network


def _endpoint(spec: ServiceSpec) -> Endpoint:
    return Endpoint(mode=spec.endpoint.mode)


def _matches(service: Service, wanted: Filters) -> bool:
    runtimes, modes = wanted.get("runtime"), wanted.get("mode")
    return (
        prefix_match(wanted.get("id", ()), service.id)
        and prefix_match(wanted.get("name", ()), service.spec.name)
        and labels_match(wanted.get("label", ()), service.spec.labels)
        and (not modes or service.spec.mode.kind in modes)
        and (not runtimes or "container" in runtimes)
    )


def counts_of(view: State) -> dict[str, Any]:
    """Nodes and managers, as /info counts them."""
    managers = sum(1 for node in view.nodes.values() if node.manager is not None)
    return {"Nodes": len(view.nodes), "Managers": managers}
