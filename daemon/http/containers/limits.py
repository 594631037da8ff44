"""What a container may use, from the body to nouns. The engine checks what the numbers mean. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from shoal.api.errors import InvalidArgument
from shoal.daemon.http.containers.wire import (
    HostWire,
    LimitsWire,
    RestartWire,
    ThrottleDeviceWire,
    UlimitWire,
    WeightDeviceWire,
)
from shoal.engine.containers.nouns import DeviceLimit, Limits, RestartPolicy, Ulimit

ULIMITS = frozenset({"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
                     "rtprio", "rttime", "sigpending", "stack"})
MAX_PIDS = 1 << 22
"""The kernel's own limit."""

MIN_WEIGHT, MAX_WEIGHT = 10, 1000
MAX_RATE = (1 << 63) - 1


def limits(wire: LimitsWire) -> Limits:
    """Raises InvalidArgument for what no limit can be."""
    if wire.memory_swap < -1:
        raise InvalidArgument("MemorySwap cannot be less than -1 (unlimited)")
    if wire.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({wire.cpu_shares}): value must be a positive integer")
    if wire.pids_limit is not None and wire.pids_limit > MAX_PIDS:
        raise InvalidArgument(f"PidsLimit {wire.pids_limit} is more than the kernel has: {MAX_PIDS}")
    return Limits(
        memory_bytes=wire.memory,
        memory_swap_bytes=wire.memory_swap,
        memory_reservation_bytes=wire.memory_reservation,
        memory_swappiness=None if wire.memory_swappiness == -1 else wire.memory_swappiness,
        oom_kill_disable=bool(wire.oom_kill_disable),
        nano_cpus=wire.nano_cpus,
        cpu_shares=wire.cpu_shares,
        cpu_quota_us=wire.cpu_quota,
        cpu_period_us=wire.cpu_period,
        cpuset_cpus=wire.cpuset_cpus,
        cpuset_mems=wire.cpuset_mems,
        pids=max(0, wire.pids_limit or 0),
        blkio_weight=wire.blkio_weight,
    )


def host_limits(wire: HostWire) -> Limits:
    """The same of a container that is made, with what no update changes. Raises InvalidArgument."""
    return replace(
        limits(wire),
        cpu_rt_period_us=wire.cpu_realtime_period,
        cpu_rt_runtime_us=wire.cpu_realtime_runtime,
        blkio_weight_devices=tuple(_weight(each) for each in wire.blkio_weight_device),
        blkio_read_bps=_throttles("BlkioDeviceReadBps", wire.blkio_device_read_bps),
        blkio_write_bps=_throttles("BlkioDeviceWriteBps", wire.blkio_device_write_bps),
        blkio_read_iops=_throttles("BlkioDeviceReadIOps", wire.blkio_device_read_iops),
        blkio_write_iops=_throttles("BlkioDeviceWriteIOps", wire.blkio_device_write_iops),
    )


def _weight(wire: WeightDeviceWire) -> DeviceLimit:
    if not wire.path or not MIN_WEIGHT <= wire.weight <= MAX_WEIGHT:
        raise InvalidArgument(f"BlkioWeightDevice: {wire.path!r} needs a path and a weight from {MIN_WEIGHT} to "
                              f"{MAX_WEIGHT}")
    return DeviceLimit(path=wire.path, value=wire.weight)


def _throttles(field: str, wires: Iterable[ThrottleDeviceWire]) -> tuple[DeviceLimit, ...]:
    for each in wires:
        if not each.path or not 0 <= each.rate <= MAX_RATE:
            raise InvalidArgument(f"{field}: {each.path!r} needs a path and a rate that is not negative")
    return tuple(DeviceLimit(path=each.path, value=each.rate) for each in wires)


def restart_policy(wire: RestartWire) -> RestartPolicy:
    return RestartPolicy(name=wire.name or "no", max_retries=wire.maximum_retry_count)


def ulimit(wire: UlimitWire) -> Ulimit:
    if wire.name not in ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {wire.name}")
    if wire.soft > wire.hard and wire.hard != -1:
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: {wire.soft} > {wire.hard}")
    return Ulimit(name=wire.name, soft=wire.soft, hard=wire.hard)
