"""What clients send, read as Docker reads it: bodies, and queries.

Keys of a body match without regard to case, `null` is absent, keys that are not
known are ignored, wrong types are refused. A wire type is a msgspec struct that
names its fields as the API does; a handler turns it into nouns once.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument

MAX_BODY_BYTES = 16 << 20
MAX_DEPTH = 64

T = TypeVar("T")


class Wire(msgspec.Struct, kw_only=True, rename="pascal"):
    """Base of bodies that clients send."""


async def body(request: web.Request, kind: type[T], *, required: bool = True) -> T:
    """The request's JSON body as `kind`.

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
    return decode(raw, kind)


def decode(raw: bytes, kind: type[T]) -> T:
    """`raw` JSON as `kind`. Raises InvalidArgument."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error
    return convert(value, kind)


def convert(value: Any, kind: type[T]) -> T:
    """A decoded JSON value as `kind`. Raises InvalidArgument naming the field."""
    try:
        return msgspec.convert(_fold(value, kind, 0), kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error


def _fold(value: Any, kind: Any, depth: int) -> Any:
    """`value` with the keys of structs spelt as their fields, and nulls left out."""
    if depth > MAX_DEPTH:
        raise InvalidArgument("invalid JSON: nested too deeply")
    kind = _without_none(kind)
    if isinstance(value, dict):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            fields = _fields(kind)
            folded = {}
            for key, item in value.items():
                field = fields.get(key.lower())
                if field is not None and item is not None:
                    folded[field[0]] = _fold(item, field[1], depth + 1)
            return folded
        if get_origin(kind) is dict:
            inner = get_args(kind)[1]
            return {key: _fold(item, inner, depth + 1) for key, item in value.items()}
    elif isinstance(value, list) and get_origin(kind) in (list, tuple):
        inner = get_args(kind)[0]
        return [_fold(item, inner, depth + 1) for item in value]
    return value


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [each for each in get_args(kind) if each is not type(None)]
        if len(kinds) == 1:
            return kinds[0]
        # Of several, the one that has keys: {"Cmd": "x"} and {"Cmd": ["x"]} need no folding.
        return next((each for each in kinds if get_origin(each) or hasattr(each, "__struct_fields__")), kind)
    return kind


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, tuple[str, Any]]:
    """Lower-case key → (the key as msgspec expects it, the field's type)."""
    hints = typing.get_type_hints(kind)
    return {
        field.encode_name.lower(): (field.encode_name, hints[field.name])
        for field in msgspec.structs.fields(kind)
    }


# --- queries ---


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A boolean of the query: anything but "", 0, no, false and none is true, as Docker reads it."""
    value = request.query.get(name)
    if value is None:
        return default
    return value.strip().lower() not in ("", "0", "no", "false", "none")


def number(request: web.Request, name: str, default: int | None = None) -> int | None:
    """An integer of the query. Raises InvalidArgument."""
    value = request.query.get(name, "")
    if not value:
        return default
    try:
        return int(value)
    except ValueError as error:
        raise InvalidArgument(f"invalid value for {name}: {value!r} is not a number") from error


def filters(request: web.Request, allowed: frozenset[str] | None = None) -> dict[str, list[str]]:
    """The `filters` of the query: {"label": ["a=b"]}, or the old form {"label": {"a=b": true}}.

    Raises InvalidArgument for what is neither, and for a key that is not `allowed`.
    """
    raw = request.query.get("filters", "")
    if not raw:
        return {}
    try:
        parsed = msgspec.json.decode(raw, type=dict[str, list[str] | dict[str, bool]])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"invalid filter: {error}") from error
    found: dict[str, list[str]] = {}
    for key, values in parsed.items():
        if allowed is not None and key not in allowed:
            raise InvalidArgument(f"invalid filter '{key}'")
        found[key] = [value for value, on in values.items() if on] if isinstance(values, dict) else values
    return found


def labels_match(wanted: list[str], labels: Mapping[str, str]) -> bool:
    """Whether `labels` has each of `wanted`, "key" or "key=value"."""
    for each in wanted:
        key, equals, value = each.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def reply(value: Any, status: int = 200) -> web.Response:
    """`value` as a JSON answer."""
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def empty(status: int = 204) -> web.Response:
    return web.Response(status=status)
