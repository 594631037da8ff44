"""Who makes a container's cgroup: the runtime itself (cgroupfs), or systemd at the runtime's request. Pure.

docs/adr/0009-cgroup-drivers.md says which is used when. A `group` is a path below
the cgroup mounts; a `parent` is where it lies: a path for cgroupfs, a slice for systemd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.nouns import Limits
from shoal.engine.containers.oci.resources import (
    PERIOD_US,
    cpu_quota,
    swap_beside_memory,
    systemd_io_weight,
    v2_weight,
)

AUTO = "auto"
STOP_TIMEOUT_S = 10
_UNLIMITED = (1 << 64) - 1
_SCOPE = ".scope"
_SLICE = ".slice"


class CgroupFS(msgspec.Struct, frozen=True):
    """The runtime makes the folder /<parent>/<id> in each hierarchy."""

    name: ClassVar[str] = "cgroupfs"
    parent: str = "/shoal"

    def check(self, parent: str) -> None:
        """Raises InvalidArgument where nothing can lie below `parent`; "" is always right."""
        if ".." in parent.split("/"):
            raise InvalidArgument(f"invalid cgroup parent {parent!r}: '..' has no place in it")

    def group(self, container_id: str, parent: str = "") -> str:
        return f"/{(parent or self.parent).strip('/')}/{container_id}"

    def oci_path(self, container_id: str, parent: str = "") -> str:
        """`linux.cgroupsPath` of the OCI specification."""
        return self.group(container_id, parent)

    def annotations(self, limits: Limits, stop_timeout_s: int | None = None, *, bfq: bool = False) -> Mapping[str, str]:
        """What the specification's annotations have to say of it. `bfq`: BFQ's weight of block devices counts."""
        return {}


class Systemd(msgspec.Struct, frozen=True):
    """systemd makes a transient scope, shoal-<id>.scope in a slice, which it leaves to the runtime (Delegate=yes)."""

    name: ClassVar[str] = "systemd"
    parent: str = "system.slice"

    def check(self, parent: str) -> None:
        """Raises InvalidArgument for what is no slice; "" is always right."""
        if parent:
            slice_path(parent)

    def group(self, container_id: str, parent: str = "") -> str:
        return f"{slice_path(parent or self.parent)}/shoal-{container_id}{_SCOPE}"

    def oci_path(self, container_id: str, parent: str = "") -> str:
        return f"{parent or self.parent}:shoal:{container_id}"

    def annotations(self, limits: Limits, stop_timeout_s: int | None = None, *, bfq: bool = False) -> Mapping[str, str]:
        """What the runtimes do not tell systemd, which would set its own values in their place.

        No subgroup (crun would make one) puts both runtimes' containers at the same path. With its default
        dependencies a scope is stopped when the host goes down; without, systemd would find the containers'
        processes at the very end and wait 90 s for them. As CRI-O has it, but without an order (After=): the
        containers that shoald starts while systemd still waits for it would wait for it too.
        """
        patience_s = STOP_TIMEOUT_S if stop_timeout_s is None or stop_timeout_s < 0 else stop_timeout_s
        told = {
            "run.oci.systemd.subgroup": "",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.DefaultDependencies": "true",
            "org.systemd.property.TimeoutStopUSec": f"uint64 {patience_s * 1_000_000}",
            "org.systemd.property.TasksMax": f"uint64 {limits.pids if limits.pids > 0 else _UNLIMITED}",
        }
        told |= {f"org.systemd.property.{name}": f"uint64 {value}" for name, value in _numbers(limits, bfq).items()}
        return told


def _numbers(limits: Limits, bfq: bool) -> dict[str, int]:
    """The limits as systemd's numeric properties. crun 1.8 tells systemd none of them, and a reload would lift them."""
    found = {}
    if limits.memory_bytes:
        swap = swap_beside_memory(limits)
        found["MemoryMax"] = limits.memory_bytes
        found["MemorySwapMax"] = swap if swap >= 0 else _UNLIMITED
    if limits.memory_reservation_bytes:
        found["MemoryLow"] = limits.memory_reservation_bytes
    if limits.cpu_shares:
        found["CPUWeight"] = v2_weight(limits.cpu_shares)
    quota, period = cpu_quota(limits)
    if quota > 0:
        found["CPUQuotaPeriodUSec"] = period or PERIOD_US
        found["CPUQuotaPerSecUSec"] = _percent(quota, period) * 10_000
    if limits.blkio_weight:
        found["IOWeight"] = systemd_io_weight(limits.blkio_weight, bfq=bfq)
    return found


def _percent(quota_us: int, period_us: int) -> int:
    """Of one CPU, rounded up."""
    return -(-quota_us * 100 // (period_us or PERIOD_US))


Driver = CgroupFS | Systemd


def candidates(wanted: str, parent: str, *, version: int, systemd: bool) -> Sequence[Driver]:
    """The drivers to try, the best first.

    `wanted`: auto, systemd or cgroupfs. `parent`: what is configured, or "".
    `version` of cgroups; `systemd`: whether it is this host's PID 1.
    Raises InvalidArgument where what is configured cannot be.
    """
    if wanted == Systemd.name:
        if version != 2 or not systemd:
            lack = "cgroup v2" if version != 2 else "systemd as PID 1"
            raise InvalidArgument(f"the cgroup driver systemd needs {lack}: configure cgroupfs, or auto")
        found: list[Driver] = [Systemd(parent or Systemd().parent)]
    elif wanted == CgroupFS.name:
        found = [CgroupFS(parent or CgroupFS().parent)]
    elif wanted != AUTO:
        raise InvalidArgument(f"unknown cgroup driver {wanted!r}: use auto, systemd or cgroupfs")
    elif version != 2 or not systemd or (parent and not parent.endswith(_SLICE)):
        found = [CgroupFS(parent or CgroupFS().parent)]
    else:
        found = [Systemd(parent or Systemd().parent)]
        if not parent:
            found.append(CgroupFS())
    for driver in found:
        driver.check(driver.parent)
    return found


def slice_path(name: str) -> str:
    """Where systemd puts a slice: a-b.slice lies in a.slice. Raises InvalidArgument. Source: systemd.slice(5)."""
    words = name.removesuffix(_SLICE).split("-")
    if not name.endswith(_SLICE) or "/" in name or not all(words):
        raise InvalidArgument('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"')
    return "".join(f"/{'-'.join(words[:count])}{_SLICE}" for count in range(1, len(words) + 1))


def unit_of(group: str) -> str:
    """The scope that a group is; "" where systemd has no part in it."""
    last = group.rpartition("/")[2]
    return last if last.endswith(_SCOPE) else ""


def unit_properties(limits: Limits, *, bfq: bool = False) -> list[str]:
    """The limits as `systemctl set-property` takes them; what is not set is left out.

    A quota is rounded up to whole percents, as systemd keeps it; the kernel's file gets the exact value.
    """
    found = {}
    if limits.memory_bytes:
        found["MemoryMax"] = str(limits.memory_bytes)
        swap = swap_beside_memory(limits)
        found["MemorySwapMax"] = str(swap) if swap >= 0 else "infinity"
    if limits.memory_reservation_bytes:
        found["MemoryLow"] = str(limits.memory_reservation_bytes)
    if limits.cpu_shares:
        found["CPUWeight"] = str(v2_weight(limits.cpu_shares))
    quota, period = cpu_quota(limits)
    if period:
        found["CPUQuotaPeriodSec"] = f"{period}us"
    if quota:
        found["CPUQuota"] = f"{_percent(quota, period)}%" if quota > 0 else ""
    if limits.cpuset_cpus:
        found["AllowedCPUs"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        found["AllowedMemoryNodes"] = limits.cpuset_mems
    if limits.pids:
        found["TasksMax"] = str(limits.pids) if limits.pids > 0 else "infinity"
    if limits.blkio_weight:
        found["IOWeight"] = str(systemd_io_weight(limits.blkio_weight, bfq=bfq))
    return [f"{key}={value}" for key, value in found.items()]
