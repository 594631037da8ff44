"""What a container may use, from the body to nouns. The engine checks what the numbers mean. Pure."""

from __future__ import annotations

from shoal.api.errors import InvalidArgument
from shoal.daemon.http.containers.wire import LimitsWire, RestartWire, UlimitWire
from shoal.engine.containers.nouns import Limits, RestartPolicy, Ulimit

ULIMITS = frozenset({"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
                     "rtprio", "rttime", "sigpending", "stack"})
MAX_PIDS = 1 << 22
"""The kernel's own limit."""


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


def restart_policy(wire: RestartWire) -> RestartPolicy:
    return RestartPolicy(name=wire.name or "no", max_retries=wire.maximum_retry_count)


def ulimit(wire: UlimitWire) -> Ulimit:
    if wire.name not in ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {wire.name}")
    if wire.soft > wire.hard and wire.hard != -1:
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: {wire.soft} > {wire.hard}")
    return Ulimit(name=wire.name, soft=wire.soft, hard=wire.hard)
