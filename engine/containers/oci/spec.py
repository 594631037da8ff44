"""The OCI runtime specification of a container. Pure: everything that had to be looked up comes in `Launch`.

Source: OCI runtime-spec, config.md; defaults as moby's (daemon/pkg/oci/defaults.go, daemon/oci_linux.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.nouns import Container, ContainerConfig, HostConfig
from shoal.engine.containers.oci.resources import oci_resources
from shoal.engine.containers.oci.users import User

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM_BYTES = 64 << 20
INIT_IN_CONTAINER = "/sbin/docker-init"
SHM = "/dev/shm"  # noqa: S108 (the mount in the container)

MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_DENY_DEVICES = {"allow": False, "access": "rwm"}
_ALLOW_DEVICES = {"allow": True, "access": "rwm"}


class Security(msgspec.Struct, frozen=True):
    """What --security-opt says. `seccomp`: None is the default profile, b"" none, else a profile."""

    no_new_privileges: bool = False
    seccomp: bytes | None = None
    unmasked: bool = False
    apparmor: str = ""  # a profile that the host has loaded; "unconfined"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A container about to start, with what was found out for it."""

    container: Container
    root: str
    cgroup: str  # as linux.cgroupsPath names it
    hostname: str
    netns: str = ""  # "": the host's
    user: User = User()
    capabilities: tuple[str, ...] = ()
    seccomp: msgspec.Raw | None = None
    no_new_privileges: bool = False
    apparmor: str = ""
    unmasked: bool = False
    mounts: Sequence[Mapping[str, Any]] = ()  # of the user, outer before inner
    link_env: Sequence[str] = ()  # of links to other containers
    files: Mapping[str, str] = {}  # target → the file on the host that is bound there
    joined: Mapping[str, str] = {}  # namespace ("ipc", "pid") → path of another container's
    shm_source: str = ""  # a folder that is bound to /dev/shm; "": a tmpfs of its own
    devices: Sequence[Mapping[str, Any]] = ()  # OCI devices, with "access"
    rlimits: Sequence[Mapping[str, Any]] = ()
    oom_score_adj: int | None = None
    init_path: str = ""
    cgroup_version: int = 1
    counts_swap: bool = False
    block_devices: Mapping[str, tuple[int, int]] = {}  # path → major, minor, of those whose I/O is limited
    annotations: Mapping[str, str] = {}  # for the runtime, beside the user's


def security(options: Iterable[str]) -> Security:
    """Raises InvalidArgument for an option that is not known."""
    no_new_privileges, seccomp, unmasked, apparmor = False, None, False, ""
    for option in options:
        key, _, value = option.replace(":", "=", 1).partition("=") if "=" not in option else option.partition("=")
        if key == "no-new-privileges":
            no_new_privileges = value in ("", "true")
        elif key == "seccomp":
            seccomp = b"" if value == "unconfined" else None if value in ("", "builtin") else value.encode()
        elif key == "systempaths" and value == "unconfined":
            unmasked = True
        elif key == "apparmor":
            apparmor = value
        elif key != "label":
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return Security(no_new_privileges, seccomp, unmasked, apparmor)


def environment(config: ContainerConfig, hostname: str, link_env: Sequence[str] = ()) -> list[str]:
    """PATH, HOSTNAME and TERM as Docker sets them, those of links, then what is configured, which wins."""
    entries = (entry.partition("=") for entry in (*link_env, *config.env))
    given = {name: value for name, separator, value in entries if separator}
    values = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if config.tty:
        values["TERM"] = "xterm"
    return [f"{name}={value}" for name, value in {**values, **given}.items()]


def build(launch: Launch) -> dict[str, Any]:
    """The specification; JSON once encoded."""
    container = launch.container
    host = container.host
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": _process(launch),
        "root": {"path": launch.root, "readonly": host.read_only},
        "mounts": [*_system_mounts(launch), *launch.mounts],
        "linux": _linux(launch),
    }
    if host.uts_mode != "host":
        spec["hostname"] = launch.hostname
    if host.annotations or launch.annotations:
        spec["annotations"] = {**host.annotations, **launch.annotations}
    return spec


def process(
    *, argv: Sequence[str], env: Sequence[str], cwd: str, user: User, tty: bool, capabilities: Sequence[str],
    no_new_privileges: bool, apparmor: str = "", console_size: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """The process part, of a container or of an exec."""
    held = list(capabilities)
    ids: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    if user.groups:
        ids["additionalGids"] = list(user.groups)
    made: dict[str, Any] = {
        "terminal": tty,
        "user": ids,
        "args": list(argv),
        "env": list(env),
        "cwd": cwd,
        "noNewPrivileges": no_new_privileges,
        # as execve leaves them: a user other than root has none in effect
        "capabilities": {"bounding": held, **({} if user.uid else {"effective": held, "permitted": held})},
    }
    if apparmor:
        made["apparmorProfile"] = apparmor
    if tty and all(console_size):
        made["consoleSize"] = {"height": console_size[0], "width": console_size[1]}
    return made


def _process(launch: Launch) -> dict[str, Any]:
    config, host = launch.container.config, launch.container.host
    argv = launch.container.argv
    if launch.init_path:
        argv = (INIT_IN_CONTAINER, "--", *argv)
    made = process(
        argv=argv, env=environment(config, launch.hostname, launch.link_env), cwd=config.working_dir or "/",
        user=launch.user, tty=config.tty, capabilities=launch.capabilities, no_new_privileges=launch.no_new_privileges,
        apparmor=launch.apparmor, console_size=host.console_size)
    if launch.rlimits:
        made["rlimits"] = list(launch.rlimits)
    if launch.oom_score_adj is not None:
        made["oomScoreAdj"] = launch.oom_score_adj
    return made


def _system_mounts(launch: Launch) -> list[dict[str, Any]]:
    """/proc, /dev, /sys and what lies in them, unless the user mounts something there."""
    host = launch.container.host
    mode = "rw" if host.privileged else "ro"
    made = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620",
               "gid=5"),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", mode),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", mode, "nosuid", "noexec", "nodev"),
        *_ipc_mounts(launch, host),
        *(_mount(target, "bind", source, "rbind", "rprivate") for target, source in launch.files.items()),
    ]
    if launch.init_path:
        made.append(_mount(INIT_IN_CONTAINER, "bind", launch.init_path, "bind", "ro"))
    taken = {mount["destination"] for mount in launch.mounts}
    return [mount for mount in made if mount["destination"] not in taken]


def _ipc_mounts(launch: Launch, host: HostConfig) -> list[dict[str, Any]]:
    mqueue = _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev")
    if host.ipc_mode == "host":
        return [_mount(SHM, "bind", SHM, "rbind", "rprivate"),
                _mount("/dev/mqueue", "bind", "/dev/mqueue", "rbind", "rprivate")]
    if host.ipc_mode == "none":
        return [mqueue]
    if launch.shm_source:
        return [mqueue, _mount(SHM, "bind", launch.shm_source, "rbind", "rprivate")]
    size = host.shm_size_bytes or DEFAULT_SHM_BYTES
    return [mqueue, _mount(SHM, "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={size}")]


def _mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _linux(launch: Launch) -> dict[str, Any]:
    host = launch.container.host
    resources = oci_resources(host.limits, counts_swap=launch.counts_swap, cgroup_version=launch.cgroup_version,
                              block_devices=launch.block_devices)
    resources["devices"] = _device_rules(launch, host)
    made: dict[str, Any] = {
        "cgroupsPath": launch.cgroup,
        "namespaces": _namespaces(launch, host),
        "resources": resources,
    }
    if not host.privileged:
        hidden = not launch.unmasked
        masked = host.masked_paths if host.masked_paths is not None else MASKED_PATHS if hidden else ()
        readonly = host.readonly_paths if host.readonly_paths is not None else READONLY_PATHS if hidden else ()
        made["maskedPaths"], made["readonlyPaths"] = list(masked), list(readonly)
    if launch.devices:
        made["devices"] = [{key: value for key, value in device.items() if key != "access"}
                           for device in launch.devices]
    sysctls = {key: value for key, value in host.sysctls.items() if not key.startswith("net.")}
    if launch.container.config.domainname and host.uts_mode != "host":
        sysctls["kernel.domainname"] = launch.container.config.domainname
    if sysctls:
        made["sysctl"] = sysctls
    if launch.seccomp is not None:
        made["seccomp"] = launch.seccomp
    propagation = _root_propagation(launch.mounts)
    if propagation:
        made["rootfsPropagation"] = propagation
    return made


def _namespaces(launch: Launch, host: HostConfig) -> list[dict[str, str]]:
    """Those that it has for itself or shares with another container; the host's are left out."""
    made = [{"type": "mount"}]
    if launch.netns:
        made.append({"type": "network", "path": launch.netns})
    if host.uts_mode != "host":
        made.append({"type": "uts"})
    for kind, mode in (("pid", host.pid_mode), ("ipc", host.ipc_mode)):
        if kind in launch.joined:
            made.append({"type": kind, "path": launch.joined[kind]})
        elif mode != "host":
            made.append({"type": kind})
    if (host.cgroupns_mode or ("private" if launch.cgroup_version == 2 else "host")) == "private":
        made.append({"type": "cgroup"})
    return made


def _device_rules(launch: Launch, host: HostConfig) -> list[dict[str, Any]]:
    if host.privileged:
        return [_ALLOW_DEVICES]
    rules: list[dict[str, Any]] = [_DENY_DEVICES]
    rules += [{"allow": True, "type": device["type"], "major": device["major"], "minor": device["minor"],
               "access": device["access"]} for device in launch.devices]
    return rules + [device_rule(rule) for rule in host.device_cgroup_rules]


def device_rule(text: str) -> dict[str, Any]:
    """A rule "c 1:3 rwm", "*" standing for any number. Raises InvalidArgument."""
    parts = text.split()
    numbers = parts[1].split(":") if len(parts) == 3 else []
    if len(numbers) != 2 or parts[0] not in ("a", "b", "c") or not set(parts[2]) <= set("rwm") or not all(
        number == "*" or number.isdecimal() for number in numbers
    ):
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    rule: dict[str, Any] = {"allow": True, "type": parts[0], "access": parts[2]}
    for key, number in zip(("major", "minor"), numbers, strict=True):
        if number != "*":
            rule[key] = int(number)
    return rule


def _root_propagation(mounts: Iterable[Mapping[str, Any]]) -> str:
    options = {option for mount in mounts for option in mount["options"]}
    if options & {"shared", "rshared"}:
        return "shared"
    return "rslave" if options & {"slave", "rslave"} else ""
