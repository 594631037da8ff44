"""From limits to what the kernel's files and the OCI specification want. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from shoal.engine.containers.nouns import Limits
from shoal.engine.containers.oci import blockio

PERIOD_US = 100_000


def cpu_quota(limits: Limits) -> tuple[int, int]:
    """Quota and period in microseconds; 0 means not set."""
    if limits.nano_cpus:
        return limits.nano_cpus * PERIOD_US // 1_000_000_000, PERIOD_US
    return limits.cpu_quota_us, limits.cpu_period_us


def swap_limit(limits: Limits) -> int:
    """Memory and swap together: twice the memory where it is not said, -1 for no limit, 0 where there is no limit."""
    if limits.memory_swap_bytes:
        return limits.memory_swap_bytes
    return limits.memory_bytes * 2


def swap_beside_memory(limits: Limits) -> int:
    """Swap alone, as cgroup v2 counts it, of limits that limit the memory; -1 for no limit."""
    swap = swap_limit(limits)
    return swap if swap == -1 else swap - limits.memory_bytes


def v2_weight(shares: int) -> int:
    """cpu.weight of cpu.shares. Source: runc, libcontainer/cgroups/utils.go."""
    return 1 + (max(2, min(shares, 262_144)) - 2) * 9999 // 262_142


def v2_io_weight(weight: int) -> int:
    """io.weight of blkio.weight. Source: runc, libcontainer/cgroups/utils.go."""
    return 1 + (weight - 10) * 9999 // 990


def systemd_io_weight(weight: int, *, bfq: bool) -> int:
    """IOWeight= of blkio.weight: what systemd writes for it is then what runtimes write.

    `bfq`: BFQ's is the weight that counts. Source of its conversion: systemd, src/core/cgroup.c (BFQ_WEIGHT).
    """
    if not bfq:
        return v2_io_weight(weight)
    return weight if weight <= 100 else 100 + (weight - 100) * 11


def oci_resources(
    limits: Limits, *, counts_swap: bool, cgroup_version: int = 1,
    block_devices: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The `linux.resources` of the specification, devices apart. `block_devices`: the numbers of those with limits.

    cgroup v2 knows neither swappiness nor a disabled OOM killer: crun refuses them there, so they are left out.
    """
    memory: dict[str, Any] = {}
    if limits.memory_bytes:
        memory["limit"] = limits.memory_bytes
        if counts_swap:
            memory["swap"] = swap_limit(limits)
    if limits.memory_reservation_bytes:
        memory["reservation"] = limits.memory_reservation_bytes
    first = cgroup_version == 1
    if first and limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
        memory["swappiness"] = limits.memory_swappiness
    if first and limits.oom_kill_disable:
        memory["disableOOMKiller"] = True
    cpu: dict[str, Any] = {}
    if limits.cpu_shares:
        cpu["shares"] = limits.cpu_shares
    quota, period = cpu_quota(limits)
    if quota:
        cpu["quota"] = quota
    if period:
        cpu["period"] = period
    if limits.cpu_rt_period_us:
        cpu["realtimePeriod"] = limits.cpu_rt_period_us
    if limits.cpu_rt_runtime_us:
        cpu["realtimeRuntime"] = limits.cpu_rt_runtime_us
    if limits.cpuset_cpus:
        cpu["cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        cpu["mems"] = limits.cpuset_mems
    resources: dict[str, Any] = {}
    if memory:
        resources["memory"] = memory
    if cpu:
        resources["cpu"] = cpu
    if limits.pids:
        resources["pids"] = {"limit": limits.pids}
    if block := blockio.oci(limits, block_devices):
        resources["blockIO"] = block
    return resources
