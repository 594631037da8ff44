"""What a create asks for, put together with what its image says, and checked. Pure.

Source of the rules and messages: moby, daemon/commit.go (merge), daemon/container.go,
daemon/daemon_unix.go (verifyPlatformContainerResources).
"""

from __future__ import annotations

import posixpath
import re
import signal as signals

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.containers import health, restart
from shoal.engine.containers.logs import drivers
from shoal.engine.containers.nouns import ContainerConfig, HostConfig, Limits, RestartPolicy
from shoal.engine.containers.oci import capabilities, spec
from shoal.engine.images.config import ImageConfig

MIN_MEMORY_BYTES = 6 << 20
_CPUSET = re.compile(r"^\d+(-\d+)?(,\d+(-\d+)?)*$")
_SIGNAL_MAX = 64


def merge(asked: ContainerConfig, image: ImageConfig) -> ContainerConfig:
    """The settings of the container. Raises InvalidArgument where nothing is left to run."""
    entrypoint, command = asked.entrypoint, asked.command
    if not entrypoint:
        command = command or image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == ("",):
        entrypoint = ()
    if not entrypoint and not command:
        raise InvalidArgument("no command specified")
    return msgspec.structs.replace(
        asked,
        entrypoint=entrypoint or None,
        command=command,
        env=_merge_env(image.env, asked.env),
        working_dir=_clean_dir(asked.working_dir or image.working_dir),
        user=asked.user or image.user,
        labels={**image.labels, **asked.labels},
        stop_signal=asked.stop_signal or image.stop_signal,
        health_check=health.merge(asked.health_check, image.healthcheck),
        exposed_ports=tuple(dict.fromkeys([*asked.exposed_ports, *image.exposed_ports])),
        volumes=tuple(dict.fromkeys([*asked.volumes, *image.volumes])),
    )


def _merge_env(image: tuple[str, ...], asked: tuple[str, ...]) -> tuple[str, ...]:
    """What was asked for, then what only the image has."""
    names = {entry.partition("=")[0] for entry in asked}
    return (*asked, *(entry for entry in image if entry.partition("=")[0] not in names))


def _clean_dir(path: str) -> str:
    if path and not path.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{path}' is invalid, it needs to be an absolute path")
    return posixpath.normpath(path).replace("//", "/") if path else ""


def parse_signal(text: str) -> int:
    """Its number. Raises InvalidArgument."""
    name = text.upper().removeprefix("SIG")
    if text.isdecimal():
        number = int(text)
    elif name.startswith(("RTMIN", "RTMAX")):
        base = signals.SIGRTMIN if name.startswith("RTMIN") else signals.SIGRTMAX
        offset = name[5:] or "0"
        number = base + int(offset) if re.match(r"^[+-]?\d+$", offset) else 0
    else:
        number = getattr(signals, "SIG" + name, 0) if name.isalnum() else 0
    if not 0 < number <= _SIGNAL_MAX:
        raise InvalidArgument(f"invalid signal: {text}")
    return number


def check(config: ContainerConfig, host: HostConfig, *, cpus: int, real_time: bool = True) -> list[str]:
    """Warnings. `real_time`: whether this host's cgroups share real-time out. Raises InvalidArgument."""
    if (host.limits.cpu_rt_period_us or host.limits.cpu_rt_runtime_us) and not real_time:
        raise InvalidArgument("Your kernel does not support CPU real-time scheduler")
    if host.limits.cpu_rt_period_us and host.limits.cpu_rt_runtime_us > host.limits.cpu_rt_period_us:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if len(config.hostname) > 63:
        raise InvalidArgument(f"invalid hostname format: {config.hostname}")
    for entry in config.env:
        if not entry or entry.startswith("=") or "\0" in entry:
            raise InvalidArgument(f"invalid environment variable: {entry}")
    restart.check(host.restart, auto_remove=host.auto_remove)
    capabilities.normalize(host.cap_add, "CapAdd")
    capabilities.normalize(host.cap_drop, "CapDrop")
    for entry in host.extra_hosts:
        if ":" not in entry and "=" not in entry:
            raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if host.network_mode == "host" and any(key.startswith("net.") for key in host.sysctls):
        raise InvalidArgument("sysctl net.* is not allowed with the host's network")
    if host.shm_size_bytes < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    drivers.check(host.log)
    spec.security(host.security_opt)
    for rule in host.device_cgroup_rules:
        spec.device_rule(rule)
    return check_limits(host.limits, cpus=cpus)


def check_limits(limits: Limits, *, cpus: int, update: bool = False) -> list[str]:
    """Warnings. `cpus`: how many this host has. Raises InvalidArgument."""
    for what, value in (("memory limit", limits.memory_bytes), ("memory reservation", limits.memory_reservation_bytes)):
        if value and value < MIN_MEMORY_BYTES:
            raise InvalidArgument(f"Minimum {what} allowed is 6MB")
    if limits.memory_bytes and 0 < limits.memory_swap_bytes < limits.memory_bytes:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not limits.memory_bytes and limits.memory_swap_bytes > 0 and not update:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if limits.memory_bytes and limits.memory_bytes < limits.memory_reservation_bytes:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if limits.memory_swappiness is not None and not -1 <= limits.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-100")
    _check_cpu(limits, cpus)
    if limits.oom_kill_disable and not limits.memory_bytes:
        return ["OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
                "running out of resources."]
    return []


def _check_cpu(limits: Limits, cpus: int) -> None:
    if limits.nano_cpus and limits.cpu_period_us:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if limits.nano_cpus and limits.cpu_quota_us > 0:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if limits.nano_cpus and not 0 < limits.nano_cpus <= cpus * 1_000_000_000:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if limits.cpu_period_us and not 1000 <= limits.cpu_period_us <= 1_000_000:
        raise InvalidArgument(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < limits.cpu_quota_us < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for what, value in (("cpuset cpus", limits.cpuset_cpus), ("cpuset mems", limits.cpuset_mems)):
        if value and not _CPUSET.match(value):
            raise InvalidArgument(f"Invalid value {value} for {what}: failed to parse: {value}")
    if limits.cpuset_cpus and max(int(number) for number in re.findall(r"\d+", limits.cpuset_cpus)) >= cpus:
        raise InvalidArgument(
            f"Requested CPUs are not available - requested {limits.cpuset_cpus}, available: 0-{cpus - 1}")
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")


def updated(host: HostConfig, limits: Limits, policy: RestartPolicy | None) -> HostConfig:
    """`host` with what an update sets. Raises InvalidArgument."""
    given = {field: value for field in Limits.__struct_fields__
             if (value := getattr(limits, field)) != getattr(Limits(), field)}
    if policy is not None and policy.name:
        restart.check(policy, auto_remove=host.auto_remove)
        host = msgspec.structs.replace(host, restart=policy)
    return msgspec.structs.replace(host, limits=msgspec.structs.replace(host.limits, **given))
