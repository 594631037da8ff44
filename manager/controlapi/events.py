"""/internal/events: what changes in the swarm, for the events of this host's daemon. `shown_as` is pure.

Every manager tells its own daemon what it applies: nobody else is asked, and one
that follows tells as much as the leader does.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from aiohttp import web

from shoal.api.membership import SwarmEvent
from shoal.api.objects import Network, Node, Service, StoredObject
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.store.apply import Event

_encode = msgspec.json.Encoder().encode
_TYPES: dict[type[StoredObject], str] = {Node: "node", Service: "service", Network: "network"}


class EventRoutes:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/internal/events", self.stream)]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """From now on, until the reader goes. What a reader is too late for is left out."""
        response = web.StreamResponse()
        with self._context.store.watch() as watch:
            await response.prepare(request)
            while True:
                happened = [shown_as(event) for event in await watch.batch() if isinstance(event, Event)]
                lines = b"".join(_encode(event) + b"\n" for event in happened if event is not None)
                if lines:
                    await response.write(lines)


def shown_as(event: Event) -> SwarmEvent | None:
    """The change as Docker's clients know it; None for one that they are not shown.

    Tasks and the cluster have no events there; nor has what only the store counts.
    """
    record = event.new or event.old
    if not isinstance(record, Node | Service | Network) or _is_the_same(event.old, event.new):
        return None
    action = "create" if event.old is None else "remove" if event.new is None else "update"
    return SwarmEvent(type=_TYPES[type(record)], action=action, id=event.id,
                      attributes={"name": _name(record), **dict(_differences(event.old, event.new))})


def _is_the_same(old: StoredObject | None, new: StoredObject | None) -> bool:
    return old is not None and new is not None and msgspec.structs.replace(old, meta=new.meta) == new


def _name(record: Node | Service | Network) -> str:
    return record.spec.name or (record.description.hostname if isinstance(record, Node) else "")


def _differences(old: StoredObject | None, new: StoredObject | None) -> Iterator[tuple[str, str]]:
    """(key.old or key.new, value) of what an update changed."""
    for key, before, after in _compared(old, new):
        if before != after:
            if before:
                yield f"{key}.old", before
            yield f"{key}.new", after


def _compared(old: StoredObject | None, new: StoredObject | None) -> Iterator[tuple[str, str, str]]:
    if isinstance(old, Node) and isinstance(new, Node):
        yield "availability", old.spec.availability, new.spec.availability
        yield "role", old.role, new.role
        yield "state", old.status.state, new.status.state
    if isinstance(old, Service) and isinstance(new, Service):
        yield "image", _image(old), _image(new)
        if old.spec.mode.kind == new.spec.mode.kind == "replicated":
            yield "replicas", str(old.spec.mode.replicas), str(new.spec.mode.replicas)
        if new.update_status is not None:
            yield "updatestate", old.update_status.state if old.update_status else "", new.update_status.state


def _image(service: Service) -> str:
    container = service.spec.task.container
    return container.image if container is not None else ""
