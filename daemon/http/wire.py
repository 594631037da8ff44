"""What clients send, read as Docker reads it: bodies, and queries. And the form of answers.

A wire type is an `api.wire.Wire` that names its fields as the API does; a handler
turns it into nouns once.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument
from shoal.api.query import Filters, is_on, labels_match, parse_filters
from shoal.api.wire import Wire, decode

__all__ = ["MAX_BODY_BYTES", "Wire", "body", "decode", "empty", "filters", "flag", "labels_match", "number", "reply",
           "truth"]

MAX_BODY_BYTES = 16 << 20

T = TypeVar("T")


async def body(request: web.Request, kind: type[T], *, required: bool = True, unknown: list[str] | None = None) -> T:
    """The request's JSON body as `kind`; `unknown` as in `api.wire.convert`.

    Raises InvalidArgument where it is no JSON, not of that type, of another content type, or
    missing although `required`.
    """
    raw = await request.read()
    if not raw.strip():
        if required:
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        raw = b"{}"
    elif request.headers.get("Content-Type") and request.content_type != "application/json":
        raise InvalidArgument(
            f"unsupported Content-Type header ({request.content_type}): must be 'application/json'"
        )
    return decode(raw, kind, unknown)


# --- queries ---


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A boolean of the query."""
    value = request.query.get(name)
    return default if value is None else is_on(value)


def number(request: web.Request, name: str, default: int | None = None) -> int | None:
    """An integer of the query. Raises InvalidArgument."""
    value = request.query.get(name, "")
    if not value:
        return default
    try:
        found = int(value) if len(value) <= 20 and value.isascii() else 1 << 64
    except ValueError as error:
        raise InvalidArgument(f"invalid value for {name}: {value!r} is not a number") from error
    if not -(1 << 63) <= found < 1 << 63:
        raise InvalidArgument(f"invalid value for {name}: {value!r} is out of range")
    return found


def filters(request: web.Request, allowed: frozenset[str] | None = None) -> Filters:
    """The `filters` of the query; see `api.query.parse_filters`."""
    return parse_filters(request.query.get("filters", ""), allowed)


def truth(value: str, name: str) -> bool:
    """A boolean among the filters. Raises InvalidArgument."""
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise InvalidArgument(f"invalid filter '{name}=[{value}]'")


def reply(value: Any, status: int = 200) -> web.Response:
    """`value` as a JSON answer."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def empty(status: int = 204) -> web.Response:
    return web.Response(status=status)
