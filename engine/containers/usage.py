"""One sample of what a container uses, read from its cgroups and its network namespace. Blocking."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from shoal.engine.containers.nouns import BlockUse, Usage
from shoal.engine.containers.oci.cgroups import Cgroups, read_table

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_INTERFACE_FIELDS = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "", "", "", "",
                     "tx_bytes", "tx_packets", "tx_errors", "tx_dropped")


def sample(cgroups: Cgroups, group: str, pid: int) -> Usage:
    """What the group uses now; `pid` is its first process."""
    read = _v2 if cgroups.version == 2 else _v1
    busy, online = _host_cpu()
    return Usage(
        **read(cgroups, group), read_ns=time.time_ns(), cgroup_version=cgroups.version, host_cpu_ns=busy,
        online_cpus=online, pids=_number(cgroups.folder(group, "pids") / "pids.current"),
        pids_limit=_number(cgroups.folder(group, "pids") / "pids.max"), networks=_networks(pid))


def _v1(cgroups: Cgroups, group: str) -> dict[str, Any]:
    cpuacct, memory = cgroups.folder(group, "cpuacct"), cgroups.folder(group, "memory")
    spent, throttled = read_table(cpuacct / "cpuacct.stat"), read_table(cgroups.folder(group, "cpu") / "cpu.stat")
    return {
        "cpu_total_ns": _number(cpuacct / "cpuacct.usage"),
        "cpu_user_ns": spent.get("user", 0) * _TICK_NS,
        "cpu_system_ns": spent.get("system", 0) * _TICK_NS,
        "cpu_per_cpu_ns": tuple(int(word) for word in _text(cpuacct / "cpuacct.usage_percpu").split()),
        "periods": throttled.get("nr_periods", 0),
        "throttled_periods": throttled.get("nr_throttled", 0),
        "throttled_ns": throttled.get("throttled_time", 0),
        "memory_bytes": _number(memory / "memory.usage_in_bytes"),
        "memory_max_bytes": _number(memory / "memory.max_usage_in_bytes"),
        "memory_limit_bytes": _memory_limit(memory / "memory.limit_in_bytes"),
        "memory_failures": _number(memory / "memory.failcnt"),
        "memory_stats": read_table(memory / "memory.stat"),
        "block": _v1_block(cgroups.folder(group, "blkio") / "blkio.throttle.io_service_bytes_recursive"),
    }


def _v2(cgroups: Cgroups, group: str) -> dict[str, Any]:
    folder = cgroups.folder(group, "")
    cpu, events = read_table(folder / "cpu.stat"), read_table(folder / "memory.events")
    return {
        "cpu_total_ns": cpu.get("usage_usec", 0) * 1000,
        "cpu_user_ns": cpu.get("user_usec", 0) * 1000,
        "cpu_system_ns": cpu.get("system_usec", 0) * 1000,
        "periods": cpu.get("nr_periods", 0),
        "throttled_periods": cpu.get("nr_throttled", 0),
        "throttled_ns": cpu.get("throttled_usec", 0) * 1000,
        "memory_bytes": _number(folder / "memory.current"),
        "memory_limit_bytes": _memory_limit(folder / "memory.max"),
        "memory_failures": events.get("max", 0),
        "memory_stats": read_table(folder / "memory.stat"),
        "block": _v2_block(folder / "io.stat"),
    }


def _v1_block(file: Path) -> tuple[BlockUse, ...]:
    found = []
    for line in _text(file).splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[1] in ("Read", "Write"):
            found.append(_block(parts[0], parts[1].lower(), int(parts[2])))
    return tuple(found)


def _v2_block(file: Path) -> tuple[BlockUse, ...]:
    found = []
    for line in _text(file).splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        found += [_block(device, operation, int(values[key]))
                  for operation, key in (("read", "rbytes"), ("write", "wbytes")) if key in values]
    return tuple(found)


def _block(device: str, operation: str, value: int) -> BlockUse:
    major, _, minor = device.partition(":")
    return BlockUse(major=int(major), minor=int(minor), operation=operation, value=value)


def _memory_limit(file: Path) -> int:
    """The limit, or the host's memory where there is none."""
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_number(file) or host, host)


def _host_cpu() -> tuple[int, int]:
    """Nanoseconds of all CPUs together, and how many there are."""
    lines = _text(Path("/proc/stat")).splitlines()
    ticks = sum(int(word) for word in lines[0].split()[1:8]) if lines else 0
    return ticks * _TICK_NS, sum(1 for line in lines[1:] if line.startswith("cpu"))


def _networks(pid: int) -> dict[str, dict[str, int]]:
    found = {}
    for line in _text(Path(f"/proc/{pid}/net/dev")).splitlines()[2:]:
        name, _, counters = line.partition(":")
        if name.strip() != "lo":
            found[name.strip()] = {field: int(word) for field, word in
                                   zip(_INTERFACE_FIELDS, counters.split(), strict=False) if field}
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _number(file: Path) -> int:
    """0 for "max" and where there is no such file."""
    text = _text(file).strip()
    return int(text) if text.isdecimal() else 0
