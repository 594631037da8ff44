"""A service's container on the wire: `ContainerSpec`, both ways. Pure.

Fields that the specification knows and this swarm does not carry out yet are declared
as `Any`, and refused by name where they mean something: nothing is lost silently.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from shoal.api.errors import NotImplementedHere
from shoal.api.specs import SECOND_NS, ContainerSpec, HealthCheck, Mount
from shoal.api.wire import Wire, means_something
from shoal.manager.controlapi.errors import invalid

MAX_COMMAND_BYTES = 1 << 20
MIN_HEALTH_NS = SECOND_NS // 1000
MOUNT_TYPES = ("bind", "volume", "tmpfs")
DEFAULT_GRACE_NS = 10 * SECOND_NS

Strings = tuple[str, ...]


class BindOptionsWire(Wire, frozen=True, omit_defaults=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverWire(Wire, frozen=True, omit_defaults=True):
    name: str = ""
    options: dict[str, str] = field(default_factory=dict)


class VolumeOptionsWire(Wire, frozen=True, omit_defaults=True):
    no_copy: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    driver_config: DriverWire | None = None
    subpath: str = ""


class TmpfsOptionsWire(Wire, frozen=True, omit_defaults=True):
    size_bytes: int = 0
    mode: int = 0
    options: tuple[Strings, ...] = ()


class MountWire(Wire, frozen=True, omit_defaults=True):
    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptionsWire | None = None
    volume_options: VolumeOptionsWire | None = None
    tmpfs_options: TmpfsOptionsWire | None = None
    image_options: Any = None
    cluster_options: Any = None


class HealthWire(Wire, frozen=True, omit_defaults=True):
    test: Strings = ()
    interval: int = 0
    timeout: int = 0
    retries: int = 0
    start_period: int = 0
    start_interval: int = 0


class DNSWire(Wire, frozen=True, omit_defaults=True):
    nameservers: Strings = ()
    search: Strings = ()
    options: Strings = ()


class ContainerWire(Wire, frozen=True, omit_defaults=True):
    image: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    command: Strings = ()
    args: Strings = ()
    hostname: str = ""
    env: Strings = ()
    dir: str = ""
    user: str = ""
    groups: Strings = ()
    tty: bool = field(name="TTY", default=False)
    open_stdin: bool = False
    read_only: bool = False
    mounts: tuple[MountWire, ...] = ()
    stop_signal: str = ""
    stop_grace_period: int | None = None
    healthcheck: HealthWire | None = None
    hosts: Strings = ()
    dns_config: DNSWire | None = field(name="DNSConfig", default=None)
    init: bool | None = None
    sysctls: dict[str, str] = field(default_factory=dict)
    capability_add: Strings = ()
    capability_drop: Strings = ()
    isolation: str = ""
    # known, and not carried out yet
    privileges: Any = None
    secrets: Any = None
    configs: Any = None
    oom_score_adj: Any = None
    ulimits: Any = None


_MOUNT_OPTIONS = (
    ("bind", "BindOptions", BindOptionsWire, "bind_options"),
    ("volume", "VolumeOptions", VolumeOptionsWire, "volume_options"),
    ("tmpfs", "TmpfsOptions", TmpfsOptionsWire, "tmpfs_options"),
)


def refuse_unsupported(wire: Wire, names: dict[str, str], why: str = "this swarm does not carry that out yet") -> None:
    """Raises NotImplementedHere for the first of `names` (field → as the API calls it) that means something."""
    for name, shown in names.items():
        if means_something(getattr(wire, name)):
            raise NotImplementedHere(f"{shown} is not supported: {why}")


def container_spec(wire: ContainerWire, version: tuple[int, int]) -> ContainerSpec:
    """What a client sent, as it is stored. Raises InvalidArgument and NotImplementedHere."""
    refuse_unsupported(
        wire,
        {
            "privileges": "ContainerSpec.Privileges",
            "secrets": "ContainerSpec.Secrets",
            "configs": "ContainerSpec.Configs",
            "oom_score_adj": "ContainerSpec.OomScoreAdj",
            "ulimits": "ContainerSpec.Ulimits",
        },
    )
    if wire.isolation not in ("", "default"):
        raise invalid(f"invalid Isolation: {wire.isolation!r}: only 'default' exists on Linux")
    _check_container(wire)
    dns = wire.dns_config or DNSWire()
    grace = wire.stop_grace_period
    capabilities = version >= (1, 41)
    return ContainerSpec(
        image=wire.image,
        command=wire.command,
        args=wire.args,
        env=wire.env,
        dir=wire.dir,
        user=wire.user,
        hostname=wire.hostname,
        groups=wire.groups,
        labels=wire.labels,
        tty=wire.tty,
        open_stdin=wire.open_stdin,
        read_only=wire.read_only,
        mounts=tuple(_mount(mount) for mount in wire.mounts),
        hosts=wire.hosts,
        dns_nameservers=dns.nameservers,
        dns_search=dns.search,
        dns_options=dns.options,
        stop_signal=wire.stop_signal,
        stop_grace_period_ns=DEFAULT_GRACE_NS if grace is None else grace,
        health_check=_health(wire.healthcheck, version),
        init=wire.init,
        sysctls=wire.sysctls,
        capability_add=wire.capability_add if capabilities else (),
        capability_drop=wire.capability_drop if capabilities else (),
    )


def container_wire(spec: ContainerSpec, insert_defaults: bool) -> ContainerWire:
    """What is stored, as a client reads it."""
    health = spec.health_check
    dns = DNSWire(nameservers=spec.dns_nameservers, search=spec.dns_search, options=spec.dns_options)
    shows_grace = insert_defaults or spec.stop_grace_period_ns != DEFAULT_GRACE_NS
    return ContainerWire(
        image=spec.image,
        labels=spec.labels,
        command=spec.command,
        args=spec.args,
        hostname=spec.hostname,
        env=spec.env,
        dir=spec.dir,
        user=spec.user,
        groups=spec.groups,
        tty=spec.tty,
        open_stdin=spec.open_stdin,
        read_only=spec.read_only,
        mounts=tuple(_mount_wire(mount) for mount in spec.mounts),
        stop_signal=spec.stop_signal,
        stop_grace_period=spec.stop_grace_period_ns if shows_grace else None,
        healthcheck=None
        if health is None
        else HealthWire(
            test=health.test,
            interval=health.interval_ns,
            timeout=health.timeout_ns,
            retries=health.retries,
            start_period=health.start_period_ns,
            start_interval=health.start_interval_ns,
        ),
        hosts=spec.hosts,
        dns_config=dns,
        init=spec.init,
        sysctls=spec.sysctls,
        capability_add=spec.capability_add,
        capability_drop=spec.capability_drop,
        isolation="default",
    )


def _check_container(wire: ContainerWire) -> None:
    if not wire.image:
        raise invalid("ContainerSpec: image reference must be provided")
    if any(character.isspace() for character in wire.image) or wire.image != wire.image.strip("/:@"):
        raise invalid(f'ContainerSpec: "{wire.image}" is not a valid repository/tag')
    size = sum(len(word.encode()) for word in (*wire.command, *wire.args))
    if size > MAX_COMMAND_BYTES:
        raise invalid(f"ContainerSpec: command and arguments have {size} bytes, at most {MAX_COMMAND_BYTES} are taken")
    if wire.stop_grace_period is not None and wire.stop_grace_period < 0:
        raise invalid("ContainerSpec: stop-grace-period cannot be negative")
    if any("\0" in text for text in (*wire.command, *wire.args, *wire.env)):
        raise invalid("ContainerSpec: command, arguments and environment cannot contain a NUL character")
    if any(not entry or entry.startswith("=") for entry in wire.env):
        raise invalid("ContainerSpec: an entry of Env has no name")
    targets = [mount.target for mount in wire.mounts]
    for target in targets:
        if targets.count(target) > 1:
            raise invalid(f"ContainerSpec: duplicate mount point: {target}")


def _mount(wire: MountWire) -> Mount:
    refuse_unsupported(wire, {"image_options": "Mount.ImageOptions", "cluster_options": "Mount.ClusterOptions"})
    kind = wire.type or "volume"
    if kind in ("image", "cluster", "npipe"):
        raise NotImplementedHere(f"mounts of type {kind} are not supported: use one of {', '.join(MOUNT_TYPES)}")
    if kind not in MOUNT_TYPES:
        raise invalid(f"invalid MountType: {kind!r}")
    if not wire.target.startswith("/"):
        raise invalid(f"invalid mount target, must be an absolute path: {wire.target}")
    if kind == "bind" and not wire.source.startswith("/"):
        raise invalid(f"invalid bind mount source, must be an absolute path: {wire.source}")
    if kind == "tmpfs" and wire.source:
        raise invalid("invalid tmpfs source, source must be empty")
    if kind == "volume" and "/" in wire.source:
        raise invalid(f"invalid volume mount source, must not be an absolute path: {wire.source}")
    options: dict[str, Any] = {}
    for owner, shown, _, name in _MOUNT_OPTIONS:
        given = getattr(wire, name)
        if given is None:
            continue
        if owner != kind:
            raise invalid(f"{shown} cannot be used with a mount of type {kind}")
        options[shown] = msgspec.to_builtins(given)
    if wire.consistency not in ("", "default", "consistent", "cached", "delegated"):
        raise invalid(f"invalid mount consistency: {wire.consistency!r}")
    return Mount(type=kind, source=wire.source, target=wire.target, read_only=wire.read_only, options=options)


def _mount_wire(mount: Mount) -> MountWire:
    options: dict[str, Any] = {
        name: msgspec.convert(mount.options[shown], kind)
        for _, shown, kind, name in _MOUNT_OPTIONS
        if shown in mount.options
    }
    return MountWire(type=mount.type, source=mount.source, target=mount.target, read_only=mount.read_only, **options)


def _health(wire: HealthWire | None, version: tuple[int, int]) -> HealthCheck | None:
    if wire is None:
        return None
    for shown, value in (
        ("Interval", wire.interval),
        ("Timeout", wire.timeout),
        ("StartPeriod", wire.start_period),
        ("StartInterval", wire.start_interval),
    ):
        if value and value < MIN_HEALTH_NS:
            raise invalid(f"{shown} in Healthcheck cannot be less than 1ms")
    if wire.retries < 0:
        raise invalid("Retries in Healthcheck cannot be negative")
    if wire.test and wire.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise invalid(f"unknown type in Healthcheck.Test: {wire.test[0]!r}: use NONE, CMD or CMD-SHELL")
    return HealthCheck(
        test=wire.test,
        interval_ns=wire.interval,
        timeout_ns=wire.timeout,
        retries=wire.retries,
        start_period_ns=wire.start_period,
        start_interval_ns=wire.start_interval if version >= (1, 44) else 0,
    )
