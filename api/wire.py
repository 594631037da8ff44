"""JSON that clients of the Docker API send, made ready for strict decoding. Pure.

Docker reads keys without regard to case and takes `null` as absent. `fold` does
both, guided by the struct that the value is meant for, and tells what it did not
know, so that a caller may refuse rather than lose it. No route, no default and no
API version lives here: both halves of the API bring their own structs.
"""

from __future__ import annotations

import functools
import re
import types
import typing
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from shoal.api.errors import InvalidArgument

MAX_DEPTH = 64
"""Deeper values are refused."""

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # an escape that is not itself escaped

T = TypeVar("T")


class Wire(msgspec.Struct, kw_only=True, frozen=True, rename="pascal"):
    """Base of bodies; a field is named as the API names it unless it renames itself."""


def decode(raw: bytes, kind: type[T], unknown: list[str] | None = None) -> T:
    """`raw` JSON as `kind`; `unknown` as in `convert`. Raises InvalidArgument."""
    if _NUL.search(raw):
        raise InvalidArgument("invalid JSON: a NUL character can be in no name, path or argument")
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error
    return convert(value, kind, unknown)


def convert(value: Any, kind: type[T], unknown: list[str] | None = None) -> T:
    """A decoded JSON value as `kind`. Raises InvalidArgument naming the field.

    Paths of keys that `kind` does not have, and whose value would mean something, are
    added to `unknown` (see `means_something`).
    """
    try:
        return msgspec.convert(fold(value, kind, unknown), kind)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error


def means_something(value: Any) -> bool:
    """False for null, "", 0, false, and for lists and objects of nothing else."""
    if isinstance(value, dict):
        return any(means_something(item) for item in value.values())
    if isinstance(value, list):
        return any(means_something(item) for item in value)
    return bool(value)


def fold(value: Any, kind: Any, unknown: list[str] | None = None, path: str = "", depth: int = 0) -> Any:
    """`value` with the keys of structs spelt as their fields are, and nulls left out."""
    if depth > MAX_DEPTH:
        raise InvalidArgument("invalid JSON: nested too deeply")
    kind = _without_none(kind)
    if isinstance(value, dict):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return _fold_struct(value, kind, unknown, path, depth)
        if get_origin(kind) is dict:
            inner = get_args(kind)[1]
            return {
                key: fold(item, inner, unknown, f"{path}.{key}", depth + 1)
                for key, item in value.items()
                if item is not None or inner is Any
            }
    elif isinstance(value, list) and get_origin(kind) in (list, tuple):
        inner = get_args(kind)[0]
        return [fold(item, inner, unknown, f"{path}[{at}]", depth + 1) for at, item in enumerate(value)]
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise InvalidArgument(f"invalid JSON: {path} is a number out of range")
    return value


def _fold_struct(
    value: dict[str, Any], kind: type[msgspec.Struct], unknown: list[str] | None, path: str, depth: int
) -> dict[str, Any]:
    fields, folded = _fields(kind), {}
    for key, item in value.items():
        field, where = fields.get(key.lower()), f"{path}.{key}" if path else key
        if field is None:
            if unknown is not None and means_something(item):
                unknown.append(where)
        elif item is not None:
            folded[field[0]] = fold(item, field[1], unknown, where, depth + 1)
    return folded


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
