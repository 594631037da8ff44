"""What runs: from the body of a create to a `ContainerConfig`. The engine checks what it means. Pure."""

from __future__ import annotations

import re

from shoal.api.errors import InvalidArgument
from shoal.api.specs import HealthCheck
from shoal.daemon.http.containers.networking import checked_mac, checked_port
from shoal.daemon.http.containers.wire import CreateWire, HealthWire, Words
from shoal.engine.containers.nouns import ContainerConfig

MIN_HEALTH_NS = 1_000_000
_HOSTNAME = re.compile(r"[a-zA-Z0-9_.-]*", re.ASCII)


def container_config(wire: CreateWire) -> ContainerConfig:
    """Raises InvalidArgument naming the field."""
    if not wire.image:
        raise InvalidArgument("Image: no image was given")
    if not _HOSTNAME.fullmatch(wire.hostname):
        raise InvalidArgument(f"invalid hostname: {wire.hostname!r}")
    return ContainerConfig(
        image=wire.image,
        entrypoint=_entrypoint(wire.entrypoint),
        command=words(wire.cmd) or None if wire.cmd is not None else None,
        env=wire.env,
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
