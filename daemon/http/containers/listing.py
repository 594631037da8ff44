"""`docker ps`: which containers are listed, and how. Pure: time, images and networks are given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import msgspec

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.api.sandbox import Sandbox
from shoal.daemon.http.containers.inspect import NetworkOf, mount_json, networks_json
from shoal.daemon.http.times import SECOND_NS
from shoal.daemon.http.wire import labels_match, truth
from shoal.engine.containers.nouns import Container, State, Status

FILTERS = frozenset({"ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network",
                     "publish", "since", "status", "volume"})
HEALTH = ("starting", "healthy", "unhealthy", "none")
TASK_LABEL = "com.docker.swarm.task.id"
MAX_PATTERN = 256

_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.ASCII)


class Lookups(msgspec.Struct, frozen=True, kw_only=True):
    """What the list needs to know of others."""

    container: Callable[[str], Container]  # raises NotFound
    sandbox: Callable[[str], Sandbox | None]
    network_of: NetworkOf
    image_id: Callable[[str], str]  # of a reference; "" where there is none such
    idle: dict[str, dict[str, Any]] | None = None  # by network mode, of containers that are down: what they all show

    def kept(self) -> Lookups:
        """For one list: many containers are of one image, and on one network."""
        return msgspec.structs.replace(
            self, network_of=cache(self.network_of), image_id=cache(self.image_id), idle={})


# --- which ---


def select(
    containers: Iterable[Container], filters: dict[str, list[str]], lookups: Lookups, *, everything: bool, limit: int
) -> list[Container]:
    """Those to list, of `containers` (the newest first). Raises InvalidArgument, and NotFound of before and since."""
    _check(filters)
    matches = [_MAKERS[key](values, lookups) for key, values in filters.items() if values]
    everything = everything or limit > 0 or bool({"status", "exited", "before", "since"} & filters.keys())
    found = [each for each in containers
             if (everything or each.state.running) and all(match(each) for match in matches)]
    return found[:limit] if limit > 0 else found


Match = Callable[[Container], bool]


def _check(filters: dict[str, list[str]]) -> None:
    for key, allowed in (("status", [each.value for each in Status]), ("health", HEALTH)):
        for value in filters.get(key, ()):
            if value not in allowed:
                raise InvalidArgument(f"invalid filter '{key}={value}'")
    for value in filters.get("exited", ()):
        if not re.fullmatch(r"-?[0-9]{1,9}", value):
            raise InvalidArgument(f"invalid filter 'exited={value}'")


def _by_text(values: Sequence[str], text_of: Callable[[Container], tuple[str, ...]]) -> Match:
    """As Docker matches ids and names: a regular expression, or simply a part."""
    patterns = []
    for value in values:
        try:
            patterns.append(re.compile(value[:MAX_PATTERN]))
        except re.error:
            patterns.append(re.compile(re.escape(value)))
    return lambda container: any(pattern.search(text) for text in text_of(container) for pattern in patterns)


def _ancestor(values: Sequence[str], lookups: Lookups) -> Match:
    ids = {found for value in values if (found := lookups.image_id(value))}
    return lambda container: container.image_id in ids


def _before(values: Sequence[str], lookups: Lookups) -> Match:
    limit = min(lookups.container(value).created_ns for value in values)
    return lambda container: container.created_ns < limit


def _since(values: Sequence[str], lookups: Lookups) -> Match:
    limit = max(lookups.container(value).created_ns for value in values)
    return lambda container: container.created_ns > limit


def _exited(values: Sequence[str], lookups: Lookups) -> Match:
    codes = {int(value) for value in values}
    return lambda container: (not container.state.running and bool(container.state.started_ns)
                              and container.state.exit_code in codes)


def _network(values: Sequence[str], lookups: Lookups) -> Match:
    wanted = set(values)

    def match(container: Container) -> bool:
        networks = networks_json(container, lookups.sandbox(container.id), lookups.network_of)
        return any(name in wanted or shown["NetworkID"] in wanted for name, shown in networks.items())

    return match


def _volume(values: Sequence[str], lookups: Lookups) -> Match:
    wanted = set(values)
    return lambda container: any(wanted & {each.name, each.source, each.target} for each in container.mounts)


def _ports(values: Sequence[str], ports_of: Callable[[Container], Iterable[tuple[int, str]]]) -> Match:
    ranges = [_port_range(value) for value in values]
    return lambda container: any(
        low <= number <= high and protocol == kind
        for number, kind in ports_of(container) for low, high, protocol in ranges)


def _port_range(value: str) -> tuple[int, int, str]:
    found = _PORTS.fullmatch(value)
    if found is None:
        raise InvalidArgument(f"invalid filter 'publish' or 'expose': {value!r} is no port, and no range of ports")
    return int(found[1]), int(found[2] or found[1]), found[3] or "tcp"


def _exposed(container: Container) -> list[tuple[int, str]]:
    parts = (port.partition("/") for port in container.config.exposed_ports)
    return [(int(number), protocol or "tcp") for number, _, protocol in parts]


def _published(lookups: Lookups) -> Callable[[Container], list[tuple[int, str]]]:
    def ports(container: Container) -> list[tuple[int, str]]:
        sandbox = lookups.sandbox(container.id)
        return [(port.host_port, port.protocol) for port in (sandbox.ports if sandbox else ())]

    return ports


def _health(values: Sequence[str], lookups: Lookups) -> Match:
    wanted = set(values)
    return lambda container: (container.state.health.status if container.state.health else "none") in wanted


def _is_task(values: Sequence[str], lookups: Lookups) -> Match:
    wanted = {truth(value, "is-task") for value in values}
    return lambda container: (TASK_LABEL in container.config.labels) in wanted


_MAKERS: dict[str, Callable[[Sequence[str], Lookups], Match]] = {
    "id": lambda values, _: _by_text(values, lambda container: (container.id,)),
    "name": lambda values, _: _by_text(values, lambda container: (container.name, f"/{container.name}")),
    "label": lambda values, _: lambda container: labels_match(values, container.config.labels),
    "status": lambda values, _: lambda container: container.state.status.value in values,
    "ancestor": _ancestor, "before": _before, "since": _since, "exited": _exited, "network": _network,
    "volume": _volume, "health": _health, "is-task": _is_task,
    "expose": lambda values, _: _ports(values, _exposed),
    "publish": lambda values, lookups: _ports(values, _published(lookups)),
}


# --- how ---


def links_to(containers: Iterable[Container]) -> dict[str, list[str]]:
    """By container: what others that link to it call it, "/other/alias"."""
    found: dict[str, list[str]] = {}
    for container in containers:
        for child_id, _, alias in (link.partition(":") for link in container.host.links):
            found.setdefault(child_id, []).append(f"/{container.name}/{alias}")
    return found


def summary(container: Container, lookups: Lookups, now_ns: int, aliases: Iterable[str] = ()) -> dict[str, Any]:
    sandbox = lookups.sandbox(container.id)
    return {
        "Id": container.id,
        "Names": [f"/{container.name}", *aliases],
        "Image": image_name(container, lookups.image_id),
        "ImageID": container.image_id,
        "Command": command(container.argv),
        "Created": container.created_ns // SECOND_NS,
        "Ports": _port_list(container, sandbox),
        "Labels": container.config.labels,
        "State": container.state.status.value,
        "Status": status(container.state, now_ns),
        "HostConfig": {"NetworkMode": "bridge" if container.host.network_mode == "default"
                       else container.host.network_mode},
        "NetworkSettings": {"Networks": _networks(container, sandbox, lookups)},
        "Mounts": [mount_json(each) for each in container.mounts],
    }


def _networks(container: Container, sandbox: Sandbox | None, lookups: Lookups) -> dict[str, Any]:
    if sandbox is not None or container.host.endpoints or lookups.idle is None:
        return networks_json(container, sandbox, lookups.network_of)
    mode = container.host.network_mode
    if mode not in lookups.idle:
        lookups.idle[mode] = networks_json(container, None, lookups.network_of)
    return lookups.idle[mode]


def image_name(container: Container, image_id: Callable[[str], str]) -> str:
    """As it was asked for; the id where that name now means another image, or none."""
    try:
        same = image_id(container.config.image) == container.image_id
    except ShoalError:
        same = False
    return container.config.image if same else container.image_id


def command(argv: Sequence[str]) -> str:
    return " ".join([*argv[:1], *(f"'{word}'" if " " in word else word for word in argv[1:])])


def status(state: State, now_ns: int) -> str:
    """In the words of `docker ps`."""
    if state.status in (Status.PAUSED, Status.RUNNING):
        up = f"Up {duration(now_ns - state.started_ns)}"
        if state.status is Status.PAUSED:
            return f"{up} (Paused)"
        if state.health is None:
            return up
        return f"{up} ({'health: starting' if state.health.status == 'starting' else state.health.status})"
    if state.status is Status.REMOVING:
        return "Removal In Progress"
    if state.status is Status.DEAD:
        return "Dead"
    if not state.started_ns and state.status is not Status.RESTARTING:
        return "Created"
    ended = f"({state.exit_code}) {duration(now_ns - state.finished_ns)} ago"
    if state.status is Status.RESTARTING:
        return f"Restarting {ended}"
    return f"Exited {ended}" if state.finished_ns else ""


def duration(nanoseconds: int) -> str:
    """Roughly how long, in words. Source: docker/go-units, HumanDuration."""
    seconds = max(0, nanoseconds) // SECOND_NS
    minutes, hours = seconds // 60, (seconds + 1800) // 3600
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    return f"{days // 30} months" if days < 730 else f"{seconds // 3600 // 24 // 365} years"


def _port_list(container: Container, sandbox: Sandbox | None) -> list[dict[str, Any]]:
    if sandbox is None:
        return []
    shown: list[dict[str, Any]] = [
        {"IP": port.host_ip or "0.0.0.0", "PrivatePort": port.container_port,  # noqa: S104 - shown, not bound
         "PublicPort": port.host_port, "Type": port.protocol} for port in sandbox.ports]
    open_to_all = {(port.container_port, port.protocol) for port in sandbox.ports}
    return shown + [{"PrivatePort": number, "Type": protocol} for number, protocol in _exposed(container)
                    if (number, protocol) not in open_to_all]
