"""What a request carries: body, flags, numbers, filters, the client's API version. And the form of answers."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument
from shoal.api.query import Filters, is_on, parse_filters
from shoal.api.wire import decode

VERSION = "X-Shoal-Api-Version"
NODE_ID = "X-Shoal-Node-Id"
"""The node whose daemon was asked: what "self" means."""

NEWEST = (1, 50)
MAX_BODY_BYTES = 4 << 20
MAX_LINE_BYTES = 64 << 10
"""Of a head, and its request: as much as the daemon in front takes."""

T = TypeVar("T")


def version_of(request: web.Request) -> tuple[int, int]:
    """The API version that the client speaks. Raises InvalidArgument where the header makes no sense."""
    text = request.headers.get(VERSION, "")
    if not text:
        return NEWEST
    major, dot, minor = text.partition(".")
    if not dot or not (major + minor).isascii() or not (major.isdigit() and minor.isdigit()):
        raise InvalidArgument(f"invalid API version {text!r}")
    return int(major), int(minor)


async def body(request: web.Request, kind: type[T]) -> T:
    """The JSON body as `kind`. Raises InvalidArgument also for keys that would mean something and are not known."""
    raw = await request.read()
    if not raw.strip():
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    if request.headers.get("Content-Type") and request.content_type != "application/json":
        raise InvalidArgument(f"unsupported Content-Type header ({request.content_type}): must be 'application/json'")
    unknown: list[str] = []
    value = decode(raw, kind, unknown)
    if unknown:
        raise InvalidArgument(f"unknown field {unknown[0]}: it would be lost; take it out of the request")
    return value


def flag(request: web.Request, name: str) -> bool:
    """A boolean of the query."""
    return is_on(request.query.get(name, ""))


def object_version(request: web.Request) -> int:
    """The `version` of the query. Raises InvalidArgument where it is missing or no number."""
    text = request.query.get("version", "")
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise InvalidArgument(f"invalid version {text!r}: it has to be the object's Version.Index")
    return int(text)


def filters(request: web.Request, allowed: frozenset[str]) -> Filters:
    """The `filters` of the query; see `api.query.parse_filters`."""
    return parse_filters(request.query.get("filters", ""), allowed)


def prefix_match(wanted: Iterable[str], *texts: str) -> bool:
    """Whether one of `texts` begins with one of `wanted`; everything matches where nothing is wanted."""
    prefixes = tuple(wanted)
    return not prefixes or any(text.startswith(prefixes) for text in texts)


def reply(value: Any, status: int = 200) -> web.Response:
    """`value` as a JSON answer."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as the API writes times; 0 is the API's own zero."""
    if seconds <= 0:
        return "0001-01-01T00:00:00Z"
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06d}000Z"
