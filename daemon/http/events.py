"""GET /events: what happens on this host and, on a manager, in its swarm, as it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from shoal.daemon.http.times import SECOND_NS, moment_ns
from shoal.daemon.http.wire import filters, labels_match
from shoal.engine.containers.events import Events
from shoal.engine.containers.nouns import Event

FILTERS = frozenset({"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope",
                     "secret", "service", "type", "volume"})


class EventRoutes:
    def __init__(self, events: Events) -> None:
        self._events = events

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/events", self.stream, allow_head=False)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        wanted = filters(request, FILTERS)
        now = time.time_ns()
        since = moment_ns(request.query.get("since", ""), "since", now)
        until = moment_ns(request.query.get("until", ""), "until", now)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        with self._events.subscribe() as subscription:
            past = self._events.past(since, until) if since or until else []
            await response.prepare(request)
            for event in past:
                await _send(response, event, wanted)
            try:
                async with asyncio.timeout((until - now) / SECOND_NS if until else None):
                    while True:
                        await _send(response, await subscription.next(), wanted)
            except TimeoutError:
                return response


async def _send(response: web.StreamResponse, event: Event, wanted: dict[str, list[str]]) -> None:
    if matches(event, wanted):
        await response.write(msgspec.json.encode(event_json(event)) + b"\n")


def event_json(event: Event) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if event.type in ("container", "image"):
        shown = {"status": event.action, "id": event.actor_id}
        if event.type == "container":
            shown["from"] = event.attributes.get("image", "")
    return {
        **shown,
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor_id, "Attributes": event.attributes},
        "scope": event.scope,
        "time": event.time_ns // SECOND_NS,
        "timeNano": event.time_ns,
    }


def matches(event: Event, wanted: dict[str, list[str]]) -> bool:
    return all(not values or _MATCHERS.get(key, _names(key))(event, values) for key, values in wanted.items())


def _action(event: Event, values: Sequence[str]) -> bool:
    """"exec_create" stands for "exec_create: sh" as well."""
    return any(value in (event.action, event.action.partition(":")[0]) for value in values)


def _image(event: Event, values: Sequence[str]) -> bool:
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    return any(value in (event.actor_id, name, name.rpartition(":")[0]) for value in values)


def _names(kind: str) -> Callable[[Event, Sequence[str]], bool]:
    """An object of this kind, by id, the beginning of it, or name."""

    def match(event: Event, values: Sequence[str]) -> bool:
        if event.type == kind:
            return any(event.attributes.get("name") == value or event.actor_id.startswith(value) for value in values)
        return any(value in (event.attributes.get(kind), event.attributes.get(f"{kind}Name")) for value in values)

    return match


_MATCHERS: dict[str, Callable[[Event, Sequence[str]], bool]] = {
    "type": lambda event, values: event.type in values,
    "scope": lambda event, values: event.scope in values,
    "label": lambda event, values: labels_match(values, event.attributes),
    "event": _action,
    "image": _image,
}
