"""Dockerfile instructions applied to an image's configuration (`docker import -c`). Pure.

Source: Docker's reference of the Dockerfile; the instructions that `import` and `commit` allow.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.specs import HealthCheck
from shoal.engine.images.config import ImageConfig

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)")
_UNITS_NS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9}
_PORT = re.compile(r"^\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?\Z")


def apply_changes(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """`config` with each instruction applied in order. Raises InvalidArgument naming the first bad one."""
    for change in changes:
        keyword, _, rest = change.strip().partition(" ")
        handler = _HANDLERS.get(keyword.upper())
        if handler is None:
            raise InvalidArgument(f"{keyword.upper() or change!r} is not a valid change command")
        if not rest.strip():
            raise InvalidArgument(f"{keyword.upper()} requires at least one argument")
        config = handler(config, rest.strip())
    return config


def _cmd(config: ImageConfig, rest: str) -> ImageConfig:
    return msgspec.structs.replace(config, cmd=_command(rest))


def _entrypoint(config: ImageConfig, rest: str) -> ImageConfig:
    return msgspec.structs.replace(config, entrypoint=_command(rest))


def _env(config: ImageConfig, rest: str) -> ImageConfig:
    env = dict(entry.partition("=")[::2] for entry in config.env)
    env.update(_pairs("ENV", rest))
    return msgspec.structs.replace(config, env=tuple(f"{name}={value}" for name, value in env.items()))


def _label(config: ImageConfig, rest: str) -> ImageConfig:
    return msgspec.structs.replace(config, labels={**config.labels, **_pairs("LABEL", rest)})


def _expose(config: ImageConfig, rest: str) -> ImageConfig:
    ports = []
    for port in rest.split():
        if not _PORT.match(port):
            raise InvalidArgument(f"invalid containerPort: {port}")
        ports.append(port if "/" in port else f"{port}/tcp")
    return msgspec.structs.replace(config, exposed_ports=tuple(dict.fromkeys((*config.exposed_ports, *ports))))


def _volume(config: ImageConfig, rest: str) -> ImageConfig:
    paths = _json_words(rest) or rest.split()
    return msgspec.structs.replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *paths))))


def _user(config: ImageConfig, rest: str) -> ImageConfig:
    return msgspec.structs.replace(config, user=rest)


def _workdir(config: ImageConfig, rest: str) -> ImageConfig:
    below = rest if rest.startswith("/") else f"{config.working_dir.rstrip('/')}/{rest}"
    return msgspec.structs.replace(config, working_dir=below)


def _stop_signal(config: ImageConfig, rest: str) -> ImageConfig:
    return msgspec.structs.replace(config, stop_signal=rest)


def _on_build(config: ImageConfig, rest: str) -> ImageConfig:
    return msgspec.structs.replace(config, on_build=(*config.on_build, rest))


def _health(config: ImageConfig, rest: str) -> ImageConfig:
    options: dict[str, int] = {}
    while rest.startswith("--"):
        option, _, rest = rest.partition(" ")
        name, _, value = option[2:].partition("=")
        field = _HEALTH_OPTIONS.get(name)
        if field is None:
            raise InvalidArgument(f"unknown flag: {name}")
        options[field] = int(value) if field == "retries" and value.isdigit() else duration_ns(value)
        rest = rest.strip()
    keyword, _, command = rest.partition(" ")
    if keyword.upper() == "NONE":
        return msgspec.structs.replace(config, healthcheck=HealthCheck(test=("NONE",)))
    if keyword.upper() != "CMD" or not command.strip():
        raise InvalidArgument("HEALTHCHECK requires NONE or CMD with a command")
    words = _json_words(command)
    test = ("CMD", *words) if words is not None else ("CMD-SHELL", command.strip())
    return msgspec.structs.replace(config, healthcheck=HealthCheck(test=test, **options))


def duration_ns(text: str) -> int:
    """Nanoseconds of a duration such as "1m30s". Raises InvalidArgument."""
    if not text or _DURATION.sub("", text):
        raise InvalidArgument(f"invalid duration {text!r}")
    return int(sum(float(number) * _UNITS_NS[unit] for number, unit in _DURATION.findall(text)))


_HEALTH_OPTIONS = {
    "interval": "interval_ns",
    "timeout": "timeout_ns",
    "start-period": "start_period_ns",
    "start-interval": "start_interval_ns",
    "retries": "retries",
}

_HANDLERS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health,
    "LABEL": _label,
    "ONBUILD": _on_build,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _command(rest: str) -> tuple[str, ...]:
    """The exec form (a JSON array) as it is, the shell form through a shell."""
    words = _json_words(rest)
    return words if words is not None else ("/bin/sh", "-c", rest)


def _json_words(text: str) -> tuple[str, ...] | None:
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return tuple(words)
    return None


def _pairs(keyword: str, rest: str) -> dict[str, str]:
    """`a=b c="d e"`, or the old form `a b` that takes all of the line for its value."""
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise InvalidArgument(f"{keyword}: {error}") from error
    if "=" not in words[0]:
        name, _, value = rest.partition(" ")
        if not value:
            raise InvalidArgument(f"{keyword} must have two arguments")
        return {name: value.strip()}
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidArgument(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        pairs[name] = value
    return pairs
