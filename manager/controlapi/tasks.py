"""/tasks: list and inspect. Logs are in `logs`."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument
from shoal.api.objects import Task
from shoal.api.query import Filters, labels_match
from shoal.api.states import TaskState
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.lookups import find_node, find_service, find_task
from shoal.manager.controlapi.requests import NODE_ID, filters, prefix_match, reply
from shoal.manager.controlapi.wire_task import TaskRenderer
from shoal.manager.orchestrator.tasks import is_outdated
from shoal.manager.store.state import State

_FILTERS = frozenset({"id", "name", "label", "node", "service", "desired-state", "runtime", "_up-to-date"})
STEP = 250
"""Tasks rendered in one turn of the event loop: some 3 ms."""


class TaskRoutes:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/tasks", self.list), web.get("/tasks/{id}", self.inspect)]

    async def list(self, request: web.Request) -> web.Response:
        wanted = filters(request, _FILTERS)
        await self._context.store.read_barrier()
        view = self._context.store.view()
        found = select(view, wanted, request.headers.get(NODE_ID, self._context.node_id))
        renderer, parts = TaskRenderer(view.networks), []
        for start in range(0, len(found), STEP):
            parts += [msgspec.json.encode(renderer.render(task)) for task in found[start : start + STEP]]
            await asyncio.sleep(0)  # a long list keeps neither Raft nor sessions waiting
        return web.Response(body=b"[" + b",".join(parts) + b"]\n", content_type="application/json")

    async def inspect(self, request: web.Request) -> web.Response:
        await self._context.store.read_barrier()
        view = self._context.store.view()
        return reply(TaskRenderer(view.networks).render(find_task(view, request.match_info["id"])))


def select(view: State, wanted: Filters, self_id: str) -> list[Task]:
    """The tasks that filters let through, by id.

    Raises NotFound for a node or service that is not there, InvalidArgument for an unknown state.
    """
    desired = [_state(word) for word in wanted.get("desired-state", ())]
    services = {find_service(view, each).id for each in wanted.get("service", ())}
    nodes = {find_node(view, each, self_id).id for each in wanted.get("node", ())}
    runtimes = wanted.get("runtime")
    up_to_date = "_up-to-date" in wanted
    candidates = [task for each in services for task in view.service_tasks(each)] if services else view.tasks.values()
    found = [
        task
        for task in candidates
        if (not desired or task.desired in desired)
        and (not nodes or task.node_id in nodes)
        and prefix_match(wanted.get("id", ()), task.id)
        and prefix_match(wanted.get("name", ()), task.name)
        and (not runtimes or ("container" if task.spec.container is not None else "attachment") in runtimes)
        and ("label" not in wanted or labels_match(wanted["label"], _labels(view, task)))
        and (not up_to_date or _is_up_to_date(view, task))
    ]
    return sorted(found, key=lambda task: task.id)


def _state(word: str) -> TaskState:
    state = TaskState.__members__.get(word.upper())
    if state is None:
        raise InvalidArgument(f"Invalid desired_state filter: '{word}'")
    return state


def _labels(view: State, task: Task) -> dict[str, str]:
    """A task has its service's labels; `docker stack ps` selects by them."""
    service = view.services.get(task.service_id)
    return service.spec.labels if service is not None else {}


def _is_up_to_date(view: State, task: Task) -> bool:
    """Whether an update leaves it as it is. The docker command waits until as many as are wanted are and run, also
    after a rollback, and where only the placement changed."""
    service = view.services.get(task.service_id)
    return service is not None and not is_outdated(task, service, view.nodes.get(task.node_id))
