"""Limits on block devices: as `Limits` has them, and the names that Docker, the OCI and the kernel give them.

Source of the warnings: moby, daemon/daemon_unix.go (verifyPlatformContainerResources), daemon/info_unix.go.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.nouns import DeviceLimit, Limits


class Kind(NamedTuple):
    """`oci`: its name in the specification. A list has an entry for each device, which holds the value as `key`.

    `v1_files`, `v2_files`: one of them tells that a kernel has it. `what` is it that a kernel does not support,
    `discarded` how that is said, and `info` what `docker info` calls it (with cgroup v1, with v2; "": nothing).
    """

    oci: str
    key: str
    v1_files: tuple[str, ...]
    v2_files: tuple[str, ...]
    what: str
    discarded: str
    info: tuple[str, str]


_WEIGHT_FILES = ("blkio.weight", "blkio.bfq.io_serviced")  # the root has no weight of BFQ's


def _throttle(oci: str, verb: str, unit: str) -> Kind:
    v1, block = f"throttle.{verb}_{unit}_device", "Block I/O" if unit == "bps" else "Block"
    return Kind(oci, "rate", (f"blkio.{v1}",), ("io.max",), f"{unit.upper()} {block} {verb} limit",
                f"Block I/O {unit.upper()} {verb} limit", (f"blkio {v1}", f"io.max ({verb[0]}{unit})"))


KINDS: Mapping[str, Kind] = {
    "blkio_weight": Kind("weight", "", _WEIGHT_FILES, ("io.bfq.weight", "io.weight"), "Block I/O weight", "Weight",
                         ("", "io.weight")),
    "blkio_weight_devices": Kind("weightDevice", "weight", _WEIGHT_FILES, ("io.bfq.weight",),
                                 "Block I/O weight_device", "Weight-device", ("", "io.weight (per device)")),
    "blkio_read_bps": _throttle("throttleReadBpsDevice", "read", "bps"),
    "blkio_write_bps": _throttle("throttleWriteBpsDevice", "write", "bps"),
    "blkio_read_iops": _throttle("throttleReadIOPSDevice", "read", "iops"),
    "blkio_write_iops": _throttle("throttleWriteIOPSDevice", "write", "iops"),
}
"""By the field of `Limits`. Of cgroup v2's weights of single devices, runtimes know only BFQ's."""

_OF_DEVICES = {field: kind for field, kind in KINDS.items() if kind.key}


def oci(limits: Limits, numbers: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The `blockIO` of the specification. `numbers`: major and minor of each device, by its path. Pure."""
    found: dict[str, Any] = {"weight": limits.blkio_weight} if limits.blkio_weight else {}
    for field, kind in _OF_DEVICES.items():
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
    nothing = {field: getattr(Limits(), field) for field in missing}
    return msgspec.structs.replace(limits, **nothing), warnings


def lacking(supported: Set[str], version: int) -> list[str]:
    """What `docker info` says of those that the kernel does not support. Pure."""
    names = (kind.info[version - 1] for field, kind in KINDS.items() if field not in supported)
    return [f"No {name} support" for name in names if name]


def supported(folder: Path, version: int) -> Set[str]:
    """The fields whose limits the kernel has. `folder`: the root of cgroup v1's blkio, or of v2."""
    if version == 1:
        return {field for field, kind in KINDS.items() if any((folder / name).exists() for name in kind.v1_files)}
    try:
        if "io" not in (folder / "cgroup.controllers").read_text().split():
            return set()
        files = _v2_files(folder)
    except OSError:
        return set()
    return {field for field, kind in KINDS.items() if not files or files.intersection(kind.v2_files)}


def _v2_files(folder: Path) -> set[str]:
    """Those of the io controller in a group below, for the root has none of limits; nothing where no group has it."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False) and Path(entry, "io.max").exists():
            return {name for kind in KINDS.values() for name in kind.v2_files if Path(entry, name).exists()}
    return set()


def device_numbers(limits: Limits) -> dict[str, tuple[int, int]]:
    """Major and minor of each device that a limit names. Raises InvalidArgument where it is none."""
    return {each.path: _numbers(each.path) for field in _OF_DEVICES for each in getattr(limits, field)}


def device_weights(limits: Limits) -> Iterator[str]:
    """As the kernel's files take them. Raises InvalidArgument where something is no device."""
    for each in limits.blkio_weight_devices:
        major, minor = _numbers(each.path)
        yield f"{major}:{minor} {each.value}"


def _numbers(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 (any string may come)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"stat {path}: {getattr(error, 'strerror', error)}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidArgument(f"{path} is no block device, so its I/O cannot be limited")
    return os.major(found.st_rdev), os.minor(found.st_rdev)
