"""RUN --mount: what is asked for. Pure.

Source: Docker's reference of the Dockerfile (RUN --mount).
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.query import is_on

KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_BARE = ("readonly", "readwrite", "required")
_FILES = ("cache", "secret", "ssh")
_OF_KIND = {"size": ("tmpfs",), "sharing": ("cache",), "required": ("secret", "ssh"), "mode": _FILES, "uid": _FILES,
            "gid": _FILES, "env": ("secret",)}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    kind: str = "bind"
    source_of: str = ""  # a stage or an image; "": the build's context
    source: str = ""
    target: str = ""
    read_only: bool = True
    size_bytes: int = 0
    id: str = ""
    sharing: str = "shared"
    required: bool = False
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    env: str | None = None


def mount_sources(mounts: Iterable[str]) -> list[str]:
    """The stages or images that mounts name. Raises InvalidArgument."""
    found = []
    for text in mounts:
        for name, value in _fields(text):
            if name == "from":
                if "$" in value:
                    raise InvalidArgument("'from' doesn't support variable expansion, define alias stage instead")
                found.append(value)
    return found


def parse(text: str, working_dir: str, expand: Callable[[str], str]) -> Mount:
    """Raises InvalidArgument naming the field."""
    fields = {name: expand(value) for name, value in _fields(text)}
    kind = fields.pop("type", "bind").lower()
    if kind not in KINDS:
        raise InvalidArgument(f'unsupported mount type "{kind}"')
    for name in fields:
        if name in _OF_KIND and kind not in _OF_KIND[name]:
            raise InvalidArgument(f"unexpected key '{name}' for mount type '{kind}'")
    made: dict[str, Any] = {"kind": kind, "read_only": _read_only(kind, fields), "id": fields.pop("id", ""),
                            "source_of": fields.pop("from", ""), "source": fields.pop("source", ""),
                            "target": fields.pop("target", ""), "env": fields.pop("env", None)}
    for name, base in (("mode", 8), ("uid", 10), ("gid", 10)):
        if name in fields:
            made[name] = _number(name, fields.pop(name), base)
    if "size" in fields:
        made["size_bytes"] = _size(fields.pop("size"))
    if "required" in fields:
        made["required"] = is_on(fields.pop("required"))
    if "sharing" in fields:
        made["sharing"] = _sharing(fields.pop("sharing"))
    if fields:
        raise InvalidArgument(f"unexpected key '{next(iter(fields))}' in '{text}'")
    return _checked(Mount(**made), working_dir)


def _checked(mount: Mount, working_dir: str) -> Mount:
    if mount.kind == "ssh":
        raise InvalidArgument("RUN --mount=type=ssh is not supported: there is no agent to forward")
    target = mount.target
    if mount.kind == "secret":
        secret = mount.id or posixpath.basename(mount.source) or posixpath.basename(target)
        if not secret:
            raise InvalidArgument("invalid secret mount. one of source, target required")
        if not target and mount.env is None:
            target = f"/run/secrets/{secret}"
        mount = msgspec.structs.replace(mount, id=secret)
    elif not target:
        raise InvalidArgument(f"{mount.kind} mount requires a target")
    if target and posixpath.normpath(posixpath.join("/", working_dir, target)) == "/":
        raise InvalidArgument(f"invalid mount target \"{target}\"")
    return msgspec.structs.replace(
        mount, target=posixpath.normpath(posixpath.join("/", working_dir, target)) if target else "",
        id=mount.id or target)


def _fields(text: str) -> list[tuple[str, str]]:
    found = []
    for field in next(csv.reader([text]), []):
        name, equals, value = field.partition("=")
        name = _ALIASES.get(name.lower(), name.lower())
        if not equals:
            if name not in _BARE:
                raise InvalidArgument(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        found.append((name, value))
    return found


def _read_only(kind: str, fields: dict[str, str]) -> bool:
    asked, writable = fields.pop("readonly", None), fields.pop("readwrite", None)
    if asked is not None:
        return is_on(asked)
    return not is_on(writable) if writable is not None else kind not in ("cache", "tmpfs")


def _number(name: str, text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise InvalidArgument(f"invalid value {text} for {name}") from None


def _size(text: str) -> int:
    digits = text.lower().rstrip("bkmgti")
    unit = text.lower()[len(digits) :].replace("i", "").removesuffix("b")
    if not digits.isdecimal() or unit not in _UNITS:
        raise InvalidArgument(f"invalid value for size: {text}")
    return int(digits) * _UNITS[unit]


def _sharing(text: str) -> str:
    if text.lower() not in ("shared", "private", "locked"):
        raise InvalidArgument(f'unsupported sharing value "{text}"')
    return text.lower()
