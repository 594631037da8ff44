"""Limits on block devices: what is asked of the runtime, and what a kernel lacks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.nouns import DeviceLimit, Limits
from shoal.engine.containers.oci import blockio
from shoal.engine.containers.oci.resources import oci_resources

DISK = DeviceLimit(path="/dev/disk", value=1 << 20)
NUMBERS = {"/dev/disk": (8, 16)}
ALL = Limits(blkio_weight=500, blkio_weight_devices=(DeviceLimit(path="/dev/disk", value=100),),
             blkio_read_bps=(DISK,), blkio_write_bps=(DISK,), blkio_read_iops=(DISK,), blkio_write_iops=(DISK,))


def test_the_specification_names_devices_by_their_numbers() -> None:
    rate = [{"major": 8, "minor": 16, "rate": 1 << 20}]
    assert oci_resources(ALL, counts_swap=True, block_devices=NUMBERS)["blockIO"] == {
        "weight": 500, "weightDevice": [{"major": 8, "minor": 16, "weight": 100}],
        "throttleReadBpsDevice": rate, "throttleWriteBpsDevice": rate,
        "throttleReadIOPSDevice": rate, "throttleWriteIOPSDevice": rate}
    assert "blockIO" not in oci_resources(Limits(), counts_swap=True)


@pytest.mark.parametrize(("version", "files", "lacking"), [
    pytest.param(1, ["blkio.weight"], {"blkio_read_bps", "blkio_write_bps", "blkio_read_iops", "blkio_write_iops"},
                 id="no throttling"),
    pytest.param(1, [f"blkio.throttle.{what}_device" for what in ("read_bps", "write_bps", "read_iops", "write_iops")],
                 {"blkio_weight_devices"}, id="no scheduler with weights"),
    pytest.param(2, [], set(blockio.KINDS), id="v2 without its io controller"),
])
def test_what_the_kernel_lacks_is_discarded_with_a_warning(
    tmp_path: Path, version: int, files: list[str], lacking: set[str]
) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    for name in files:
        (tmp_path / name).touch()
    limits, warnings = blockio.kept(ALL, blockio.supported(tmp_path, version))
    assert {field for field in blockio.KINDS if not getattr(limits, field)} == lacking
    assert [warning.partition(" or the cgroup")[0] for warning in warnings] == [
        f"Your kernel does not support {kind.what}" for field, kind in blockio.KINDS.items() if field in lacking]


def test_nothing_is_discarded_where_the_kernel_has_it(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert blockio.kept(ALL, blockio.supported(tmp_path, 2)) == (ALL, [])


@pytest.mark.parametrize("path", ["/nosuch", "/dev/null", "a\0b"])
def test_what_is_no_block_device_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgument):
        blockio.device_numbers(Limits(blkio_read_bps=(DeviceLimit(path=path, value=1),)))


@pytest.mark.root
def test_the_numbers_of_a_device(tmp_path: Path) -> None:
    node = tmp_path / "disk"
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(8, 16))
    assert blockio.device_numbers(Limits(blkio_read_bps=(DeviceLimit(path=str(node), value=1),))) == {
        str(node): (8, 16)}
