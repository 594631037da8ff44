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


WEIGHTS = {"blkio_weight", "blkio_weight_devices"}
THROTTLES = {"blkio_read_bps", "blkio_write_bps", "blkio_read_iops", "blkio_write_iops"}
V1_THROTTLES = [f"blkio.throttle.{what}_device" for what in ("read_bps", "write_bps", "read_iops", "write_iops")]


@pytest.mark.parametrize(("version", "files", "lacking"), [
    pytest.param(1, ["blkio.weight"], THROTTLES, id="no throttling"),
    pytest.param(1, V1_THROTTLES, WEIGHTS, id="no scheduler with weights"),
    pytest.param(1, [*V1_THROTTLES, "blkio.bfq.io_serviced"], set(), id="BFQ's weights"),
    pytest.param(2, [], WEIGHTS | THROTTLES, id="v2 without its io controller"),
    pytest.param(2, ["cgroup.controllers"], set(), id="v2 where no group shows what there is"),
    pytest.param(2, ["cgroup.controllers", "group/io.max"], WEIGHTS, id="v2 without weights"),
    pytest.param(2, ["cgroup.controllers", "group/io.max", "group/io.weight"], {"blkio_weight_devices"},
                 id="v2 with the weights of io.cost"),
    pytest.param(2, ["cgroup.controllers", "group/io.max", "group/io.weight", "group/io.bfq.weight"], set(),
                 id="v2 with BFQ's weights"),
])
def test_what_the_kernel_lacks_is_discarded_with_a_warning(
    tmp_path: Path, version: int, files: list[str], lacking: set[str]
) -> None:
    (tmp_path / "other").mkdir()  # a group that was given no controllers
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("cpuset cpu io memory pids\n")
    supported = blockio.supported(tmp_path, version)
    limits, warnings = blockio.kept(ALL, supported)
    assert {field for field in blockio.KINDS if not getattr(limits, field)} == lacking
    assert [warning.partition(" or the cgroup")[0] for warning in warnings] == [
        f"Your kernel does not support {kind.what}" for field, kind in blockio.KINDS.items() if field in lacking]
    assert len(blockio.lacking(supported, version)) == len(lacking if version == 2 else lacking - WEIGHTS)


def test_the_words_are_docker_s() -> None:
    assert blockio.kept(ALL, set()) == (Limits(), [
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. "
        "Block I/O BPS read limit discarded.",
        "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. "
        "Block I/O BPS write limit discarded.",
        "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. "
        "Block I/O IOPS read limit discarded.",
        "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. "
        "Block I/O IOPS write limit discarded."])
    assert blockio.lacking(set(), 2) == [
        "No io.weight support", "No io.weight (per device) support", "No io.max (rbps) support",
        "No io.max (wbps) support", "No io.max (riops) support", "No io.max (wiops) support"]
    assert blockio.lacking(set(), 1) == [
        "No blkio throttle.read_bps_device support", "No blkio throttle.write_bps_device support",
        "No blkio throttle.read_iops_device support", "No blkio throttle.write_iops_device support"]


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
