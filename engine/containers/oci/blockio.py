"""Limits on block devices: as `Limits` has them, and the names that Docker, the OCI and the kernel give them.

Source of the warnings: moby, daemon/daemon_unix.go (verifyPlatformContainerResources).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.nouns import DeviceLimit, Limits


class Kind(NamedTuple):
    """`oci`: its list in the specification, whose entries hold the value as `key`. `v1_files`: one of them tells of it.

    `what` is it that a kernel does not support, and `discarded` how that is said.
    """

    oci: str
    key: str
    v1_files: tuple[str, ...]
    what: str
    discarded: str


_WEIGHT_FILES = ("blkio.weight", "blkio.bfq.io_serviced")  # the root has no weight of BFQ's
KINDS: Mapping[str, Kind] = {
    "blkio_weight_devices": Kind("weightDevice", "weight", _WEIGHT_FILES, "Block I/O weight_device", "Weight-device"),
    "blkio_read_bps": Kind("throttleReadBpsDevice", "rate", ("blkio.throttle.read_bps_device",),
                           "BPS Block I/O read limit", "Block I/O BPS read limit"),
    "blkio_write_bps": Kind("throttleWriteBpsDevice", "rate", ("blkio.throttle.write_bps_device",),
                            "BPS Block I/O write limit", "Block I/O BPS write limit"),
    "blkio_read_iops": Kind("throttleReadIOPSDevice", "rate", ("blkio.throttle.read_iops_device",),
                            "IOPS Block read limit", "Block I/O IOPS read limit"),
    "blkio_write_iops": Kind("throttleWriteIOPSDevice", "rate", ("blkio.throttle.write_iops_device",),
                             "IOPS Block write limit", "Block I/O IOPS write limit"),
}
"""By the field of `Limits`."""


def oci(limits: Limits, numbers: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The `blockIO` of the specification. `numbers`: major and minor of each device, by its path. Pure."""
    found: dict[str, Any] = {"weight": limits.blkio_weight} if limits.blkio_weight else {}
    for field, kind in KINDS.items():
        asked: tuple[DeviceLimit, ...] = getattr(limits, field)
        if asked:
            found[kind.oci] = [{"major": major, "minor": minor, kind.key: each.value}
                               for each in asked for major, minor in (numbers[each.path],)]
    return found


def kept(limits: Limits, supported: Set[str]) -> tuple[Limits, list[str]]:
    """Without those that the kernel does not support, and a warning for each that is discarded. Pure."""
    missing = {field: kind for field, kind in KINDS.items() if field not in supported and getattr(limits, field)}
    warnings = [f"Your kernel does not support {kind.what} or the cgroup is not mounted. {kind.discarded} discarded."
                for kind in missing.values()]
    nothing: dict[str, Any] = dict.fromkeys(missing, ())
    return msgspec.structs.replace(limits, **nothing), warnings


def supported(folder: Path, version: int) -> Set[str]:
    """The fields whose limits the kernel has. `folder`: the root of cgroup v1's blkio, or of v2."""
    if version == 1:
        return {field for field, kind in KINDS.items() if any((folder / name).exists() for name in kind.v1_files)}
    try:
        return KINDS.keys() if "io" in (folder / "cgroup.controllers").read_text().split() else set()
    except OSError:
        return set()


def device_numbers(limits: Limits) -> dict[str, tuple[int, int]]:
    """Major and minor of each device that a limit names. Raises InvalidArgument where it is none."""
    return {each.path: _numbers(each.path) for field in KINDS for each in getattr(limits, field)}


def _numbers(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 (any string may come)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"stat {path}: {getattr(error, 'strerror', error)}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidArgument(f"{path} is no block device, so its I/O cannot be limited")
    return os.major(found.st_rdev), os.minor(found.st_rdev)
