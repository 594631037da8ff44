"""POST /build as the classic builder answers it, and POST /build/prune."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument, NotImplementedHere, ShoalError
from shoal.api.query import is_on
from shoal.daemon.http import buildkit
from shoal.daemon.http.containers.limits import limits, ulimit
from shoal.daemon.http.containers.wire import LimitsWire, UlimitWire
from shoal.daemon.http.inflow import Inflow
from shoal.daemon.http.times import moment_ns, rfc3339
from shoal.daemon.http.wire import decode, filters, flag, number, reply, truth
from shoal.engine.build import context as contexts
from shoal.engine.build import output
from shoal.engine.build.builder import Builder, Fill
from shoal.engine.build.garbage import Policy, Record
from shoal.engine.build.output import Message
from shoal.engine.build.request import Request
from shoal.engine.images.distribution.keyring import parse_keyring

SECRETS_HEADER = "X-Shoal-Build-Secrets"
"""{"id": "base64"}, as base64 of JSON: the secrets of RUN --mount=type=secret."""

PRUNE_NAMES = frozenset({"id", "parent", "type", "description"})
PRUNE_STATES = frozenset({"inuse", "shared", "private"})
PRUNE_FILTERS = frozenset({"until", "unused-for", *PRUNE_NAMES, *PRUNE_STATES})
T = TypeVar("T")


class BuildRoutes:
    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/build", self.build)
        app.router.add_post("/build/prune", self.prune)

    async def build(self, request: web.Request) -> web.StreamResponse:
        wanted = build_request(request.query, request.headers)
        answer = _Answer(request, quiet=flag(request, "q"))
        sent = sent_with(request) if request.body_exists and not wanted.remote else None
        try:
            image_id = await self._builder.build(wanted, sent, answer.send)
        except ShoalError as error:
            if not answer.begun:
                raise
            await answer.fail(error)
        else:
            await answer.end(image_id)
        return answer.response

    async def prune(self, request: web.Request) -> web.Response:
        gone, freed = await self._builder.cache.prune(prune_policy(request))
        return reply({"CachesDeleted": gone, "SpaceReclaimed": freed})


def sent_with(request: web.Request) -> Fill:
    """The context that is a request's body: unpacked while it comes."""
    async def fill(root: Path) -> contexts.Context:
        return await Inflow(request.content).into(lambda archive: contexts.open_archive(archive, root))

    return fill


def cache_json(record: Record) -> dict[str, Any]:
    """A line of `docker system df --verbose`."""
    return {"ID": record.id, "Type": record.kind, "Description": record.description, "InUse": record.in_use,
            "Shared": record.shared, "Size": record.bytes, "UsageCount": record.uses,
            "Parents": [record.parent] if record.parent else None,
            "CreatedAt": rfc3339(int(record.created * 1e9)), "LastUsedAt": rfc3339(int(record.last_used * 1e9))}


class _Answer:
    """The messages, as they come. Its head goes out with the first: until then an error has a status of its own."""

    def __init__(self, request: web.Request, *, quiet: bool) -> None:
        self._request = request
        self._quiet = quiet
        self._kept: list[Message] = []  # of a quiet one: told only where it fails
        self._kept_bytes = 0
        self.response = web.StreamResponse(headers={"Content-Type": "application/json"})

    MAX_KEPT_BYTES = 1 << 20

    @property
    def begun(self) -> bool:
        return self.response.prepared or bool(self._kept)

    async def send(self, message: Message) -> None:
        if not self._quiet:
            await self._write(message)
            return
        if self._kept_bytes < self.MAX_KEPT_BYTES:
            self._kept.append(message)
            self._kept_bytes += len(str(message))

    async def fail(self, error: ShoalError) -> None:
        for message in (*self._kept, output.failure(error)):
            await self._write(message)

    async def end(self, image_id: str) -> None:
        if self._quiet:
            await self._write(output.stream(f"{image_id}\n"))

    async def _write(self, message: Message) -> None:
        if not self.response.prepared:
            await self.response.prepare(self._request)
        await self.response.write(msgspec.json.encode(message) + b"\r\n")


def prune_policy(request: web.Request) -> Policy:
    """Raises InvalidArgument."""
    wanted = filters(request, PRUNE_FILTERS)
    for name, values in wanted.items():
        if len(values) > 1:
            raise InvalidArgument(f"filter {name} expects only one value, got {len(values)}")
    one = {name: values[0] if values else "" for name, values in wanted.items()}
    if "until" in one and "unused-for" in one:
        raise InvalidArgument('conflicting filters: "until" and "unused-for" mean the same')
    since = one.pop("until", "") or one.pop("unused-for", "")
    sizes = {name: _size(request, name) for name in ("reserved-space", "keep-storage", "max-used-space",
                                                     "min-free-space")}
    return Policy(
        everything=flag(request, "all"), not_since=moment_ns(since, "until") / 1e9 if since else None,
        matching={name: text for name, text in one.items() if name in PRUNE_NAMES},
        only={name: truth(text or "true", name) for name, text in one.items() if name in PRUNE_STATES},
        reserved_bytes=sizes["reserved-space"] or sizes["keep-storage"], most_bytes=sizes["max-used-space"],
        least_free_bytes=sizes["min-free-space"])


def _size(request: web.Request, name: str) -> int:
    value = number(request, name, 0) or 0
    if value < 0:
        raise InvalidArgument(f"invalid value for {name}: {value} bytes are less than none")
    return value


def build_request(query: Any, headers: Mapping[str, str]) -> Request:
    """Pure. Raises InvalidArgument; NotImplementedHere for what is BuildKit's."""
    version = query.get("version", "")
    if version == "2" or query.get("session") or query.get("remote") == "client-session":
        raise NotImplementedHere(buildkit.WORDS)
    if version not in ("", "1"):
        raise InvalidArgument(f'invalid version "{version}"')
    if query.get("outputs"):
        raise NotImplementedHere(f"outputs: {buildkit.WORDS}")
    if query.getall("securityopt", []):
        raise InvalidArgument("security options are not supported on linux")
    if query.get("isolation", "default").lower() not in ("", "default"):
        raise InvalidArgument(f'unsupported isolation: "{query["isolation"]}"')
    forced = _flag(query, "forcerm")
    return Request(
        tags=tuple(tag for tag in query.getall("t", []) if tag),
        dockerfile=query.get("dockerfile", "") or "Dockerfile", remote=query.get("remote", ""),
        target=query.get("target", ""), platform=query.get("platform", ""),
        args=_json(query, "buildargs", dict[str, str | None], {}), labels=_json(query, "labels", dict[str, str], {}),
        cache_from=tuple(_json(query, "cachefrom", list[str], [])), no_cache=_flag(query, "nocache"),
        pull=_flag(query, "pull"), remove=forced or not query.get("rm") or _flag(query, "rm"), force_remove=forced,
        squash=_flag(query, "squash"),
        limits=limits(LimitsWire(
            memory=_number(query, "memory"), memory_swap=_number(query, "memswap"),
            cpu_shares=_number(query, "cpushares"), cpu_period=_number(query, "cpuperiod"),
            cpu_quota=_number(query, "cpuquota"), cpuset_cpus=query.get("cpusetcpus", ""),
            cpuset_mems=query.get("cpusetmems", ""))),
        ulimits=tuple(ulimit(wire) for wire in _ulimits(query)), shm_size_bytes=_number(query, "shmsize"),
        network_mode=query.get("networkmode", ""), extra_hosts=_extra_hosts(query),
        cgroup_parent=query.get("cgroupparent", ""), secrets=_secrets(headers),
        keyring=parse_keyring(headers.get("X-Registry-Config", "")))


def _flag(query: Any, name: str) -> bool:
    return is_on(query.get(name, ""))


def _number(query: Any, name: str) -> int:
    """As Docker reads it: what is no number is 0, but shmsize, which is refused."""
    text = query.get(name, "")
    try:
        value = int(text or 0)
    except ValueError:
        value = 1 << 63
        if name != "shmsize":
            return 0
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidArgument(f"invalid value for {name}: {text[:40]!r}")
    return value


def _json(query: Any, name: str, kind: type[T], default: T) -> T:
    text = query.get(name, "")
    if not text or text == "null":
        return default
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"error reading {name}: {error}") from error


def _ulimits(query: Any) -> tuple[UlimitWire, ...]:
    text = query.get("ulimits", "")
    return decode(text.encode(), tuple[UlimitWire, ...]) if text and text != "null" else ()


def _extra_hosts(query: Any) -> tuple[str, ...]:
    """Each by itself as the docker command sends them; docker-py sends one JSON list."""
    found: list[str] = []
    for text in query.getall("extrahosts", []):
        found += _json({"extrahosts": text}, "extrahosts", list[str], []) if text.startswith("[") else [text]
    return tuple(found)


def _secrets(headers: Mapping[str, str]) -> dict[str, bytes]:
    text = headers.get(SECRETS_HEADER, "")
    if not text:
        return {}
    try:
        return msgspec.json.decode(base64.b64decode(text, validate=True), type=dict[str, bytes])
    except (binascii.Error, msgspec.MsgspecError) as error:
        raise InvalidArgument(f"invalid header {SECRETS_HEADER}: {error}") from error

