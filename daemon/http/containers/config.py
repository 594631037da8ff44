"""What runs: from the body of a create to a `ContainerConfig`, checked. Pure."""

from __future__ import annotations

import re
import signal

from shoal.api.errors import InvalidArgument
from shoal.api.specs import HealthCheck
from shoal.daemon.http.containers.networking import checked_mac, checked_port
from shoal.daemon.http.containers.wire import CreateWire, HealthWire, Words
from shoal.engine.containers.nouns import ContainerConfig

MIN_HEALTH_NS = 1_000_000
MAX_HOSTNAME = 64
"""The kernel's limit."""

_HOSTNAME = re.compile(r"[a-zA-Z0-9_.-]*", re.ASCII)
_REAL_TIME_SIGNAL = re.compile(r"(SIG)?RTM(IN(\+\d{1,2})?|AX(-\d{1,2})?)", re.ASCII)


def container_config(wire: CreateWire) -> ContainerConfig:
    """Raises InvalidArgument naming the field."""
    if not wire.image:
        raise InvalidArgument("Image: no image was given")
    if wire.working_dir and not wire.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{wire.working_dir}' is invalid, it needs to be an absolute path")
    if len(wire.hostname.encode()) > MAX_HOSTNAME or not _HOSTNAME.fullmatch(wire.hostname):
        raise InvalidArgument(f"invalid hostname: {wire.hostname!r}")
    if wire.stop_signal:
        check_signal(wire.stop_signal)
    return ContainerConfig(
        image=wire.image,
        entrypoint=_entrypoint(wire.entrypoint),
        command=words(wire.cmd) or None if wire.cmd is not None else None,
        env=checked_env(wire.env),
        working_dir=wire.working_dir,
        user=wire.user,
        hostname=wire.hostname,
        domainname=wire.domainname,
        labels=wire.labels,
        tty=wire.tty,
        open_stdin=wire.open_stdin,
        stdin_once=wire.stdin_once,
        attach_stdin=wire.attach_stdin,
        attach_stdout=wire.attach_stdout,
        attach_stderr=wire.attach_stderr,
        stop_signal=wire.stop_signal,
        stop_timeout_s=wire.stop_timeout,
        health_check=health_check(wire.healthcheck),
        exposed_ports=tuple("{}/{}".format(*checked_port(port)) for port in wire.exposed_ports),
        volumes=tuple(_volume(path) for path in wire.volumes),
        network_disabled=wire.network_disabled,
        mac_address=checked_mac(wire.mac_address),
    )


def words(value: Words) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def checked_env(env: tuple[str, ...]) -> tuple[str, ...]:
    for entry in env:
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {entry}")
    return env


def check_signal(text: str) -> None:
    """A name, with or without SIG, or a number."""
    name = text.upper()
    if name.isascii() and name.isdigit():
        if len(name) <= 2 and 1 <= int(name) <= signal.SIGRTMAX:
            return
    elif _REAL_TIME_SIGNAL.fullmatch(name) or hasattr(signal.Signals, name if name.startswith("SIG") else f"SIG{name}"):
        return
    raise InvalidArgument(f"invalid signal: {text}")


def health_check(wire: HealthWire | None) -> HealthCheck | None:
    if wire is None or wire == HealthWire():
        return None
    for shown, value in (("Interval", wire.interval), ("Timeout", wire.timeout),
                         ("StartPeriod", wire.start_period), ("StartInterval", wire.start_interval)):
        if value and value < MIN_HEALTH_NS:
            raise InvalidArgument(f"{shown} in Healthcheck cannot be less than 1ms")
    if wire.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    if wire.test and wire.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidArgument(f"Unknown healthcheck type '{wire.test[0]}' (expected 'CMD')")
    if wire.test and wire.test[0] != "NONE" and len(wire.test) < 2:
        raise InvalidArgument(f"Test in Healthcheck has no command after {wire.test[0]}")
    return HealthCheck(test=wire.test, interval_ns=wire.interval, timeout_ns=wire.timeout, retries=wire.retries,
                       start_period_ns=wire.start_period, start_interval_ns=wire.start_interval)


def _entrypoint(value: Words | None) -> tuple[str, ...] | None:
    """[""] says: none, also none of the image's. [] says nothing."""
    if value is None or value == ():
        return None
    return () if words(value) == ("",) else words(value)


def _volume(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid volume specification: '{path}': mount path must be absolute")
    return path
