"""What a container uses, as `docker stats` reads it. Pure."""

from __future__ import annotations

from typing import Any

from shoal.daemon.http.times import rfc3339
from shoal.engine.containers.nouns import Container, Usage


def stats_json(container: Container, now: Usage, before: Usage) -> dict[str, Any]:
    """`before`: the sample before this one; all zero where there is none."""
    shown: dict[str, Any] = {
        "name": f"/{container.name}",
        "id": container.id,
        "read": rfc3339(now.read_ns),
        "preread": rfc3339(before.read_ns),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(now),
        "pids_stats": {"current": now.pids, "limit": now.pids_limit} if now.pids else {},
        "blkio_stats": _block(now),
    }
    if now.networks:
        shown["networks"] = now.networks
    return shown


def _cpu(usage: Usage) -> dict[str, Any]:
    used: dict[str, Any] = {
        "total_usage": usage.cpu_total_ns,
        "usage_in_kernelmode": usage.cpu_system_ns,
        "usage_in_usermode": usage.cpu_user_ns,
    }
    if usage.cpu_per_cpu_ns:
        used["percpu_usage"] = list(usage.cpu_per_cpu_ns)
    shown: dict[str, Any] = {
        "cpu_usage": used,
        "throttling_data": {"periods": usage.periods, "throttled_periods": usage.throttled_periods,
                            "throttled_time": usage.throttled_ns},
    }
    if usage.host_cpu_ns:
        shown |= {"system_cpu_usage": usage.host_cpu_ns, "online_cpus": usage.online_cpus}
    return shown


def _memory(usage: Usage) -> dict[str, Any]:
    if not usage.memory_bytes:
        return {}
    shown: dict[str, Any] = {"usage": usage.memory_bytes, "limit": usage.memory_limit_bytes,
                             "stats": usage.memory_stats}
    if usage.cgroup_version == 1:
        shown |= {"max_usage": usage.memory_max_bytes, "failcnt": usage.memory_failures}
    return shown


def _block(usage: Usage) -> dict[str, Any]:
    recursive = [{"major": each.major, "minor": each.minor, "op": each.operation, "value": each.value}
                 for each in usage.block]
    nothing: dict[str, list[Any]] = {key: [] for key in (
        "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive", "io_wait_time_recursive",
        "io_merged_recursive", "io_time_recursive", "sectors_recursive")}
    return {"io_service_bytes_recursive": recursive, **nothing}
