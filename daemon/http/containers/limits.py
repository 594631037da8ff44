"""What a container may use, checked as Docker checks it. Pure but for the number of CPUs."""

from __future__ import annotations

import os
import re

from shoal.api.errors import InvalidArgument
from shoal.daemon.http.containers.wire import LimitsWire, RestartWire, UlimitWire
from shoal.engine.containers.nouns import Limits, RestartPolicy, Ulimit

MIN_MEMORY_BYTES = 6 << 20
RESTART_POLICIES = ("no", "always", "unless-stopped", "on-failure")
ULIMITS = frozenset({"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
                     "rtprio", "rttime", "sigpending", "stack"})
MAX_PIDS = 1 << 22

_CPU_LIST = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", re.ASCII)


def limits(wire: LimitsWire, *, update: bool = False) -> Limits:
    """Raises InvalidArgument naming what is wrong. `update`: what is left out stays as it is."""
    _check_memory(wire, update)
    _check_cpu(wire)
    if wire.blkio_weight and not 10 <= wire.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
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


def _check_memory(wire: LimitsWire, update: bool) -> None:
    if wire.memory < 0 or wire.memory_reservation < 0:
        raise InvalidArgument("a memory limit cannot be negative")
    for value in (wire.memory, wire.memory_reservation):
        if 0 < value < MIN_MEMORY_BYTES:
            raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if wire.memory_swap < -1:
        raise InvalidArgument("MemorySwap cannot be less than -1 (unlimited)")
    if wire.memory_swap > 0 and not wire.memory and not update:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < wire.memory_swap < wire.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if wire.memory and wire.memory < wire.memory_reservation:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if wire.memory_swappiness is not None and not -1 <= wire.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {wire.memory_swappiness}, valid memory swappiness range is 0-100")


def _check_cpu(wire: LimitsWire) -> None:
    if wire.nano_cpus and wire.cpu_period:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if wire.nano_cpus and wire.cpu_quota:
        raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    cpus = os.cpu_count() or 1
    if wire.nano_cpus < 0 or wire.nano_cpus > cpus * 10**9:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if wire.cpu_period and not 1000 <= wire.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period cannot be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if wire.cpu_quota > 0 and wire.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota cannot be less than 1ms (i.e. 1000)")
    if wire.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({wire.cpu_shares}): value must be a positive integer")
    for shown, value in (("cpus", wire.cpuset_cpus), ("mems", wire.cpuset_mems)):
        if value and not _CPU_LIST.fullmatch(value):
            raise InvalidArgument(f"Invalid value {value} for cpuset {shown}")


def restart_policy(wire: RestartWire) -> RestartPolicy:
    name, retries = wire.name or "no", wire.maximum_retry_count
    if name not in RESTART_POLICIES:
        raise InvalidArgument(f"invalid restart policy: unknown policy '{name}'; use one of '"
                              + "', '".join(RESTART_POLICIES) + "'")
    if retries < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if retries and name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    return RestartPolicy(name=name, max_retries=retries)


def ulimit(wire: UlimitWire) -> Ulimit:
    if wire.name not in ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {wire.name}")
    if wire.soft > wire.hard and wire.hard != -1:
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: {wire.soft} > {wire.hard}")
    return Ulimit(name=wire.name, soft=wire.soft, hard=wire.hard)
