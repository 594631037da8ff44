"""Cgroups of both versions as files: which is found, what is written, what a sample reads."""

import os
import stat
from pathlib import Path

import pytest

from shoal.api.errors import ShoalError
from shoal.engine.containers import usage
from shoal.engine.containers.nouns import BlockUse, DeviceLimit, Limits
from shoal.engine.containers.oci.cgroups import Cgroups
from shoal.engine.containers.oci.resources import oci_resources, v2_weight

HYBRID = ("memory", "cpu", "cpuacct", "cpuset", "pids", "freezer", "blkio")
GROUP = "/shoal/c"


def _line(kind: str, mount: Path, options: str) -> str:
    return f"30 23 0:26 / {mount} rw,relatime - {kind} {kind} rw,{options}\n"


@pytest.fixture
def v1(tmp_path: Path) -> Cgroups:
    """Hybrid: v1 has the controllers, and an empty v2 stands beside it."""
    text = "".join(_line("cgroup", tmp_path / name, name) for name in HYBRID)
    for name in (*HYBRID, "unified"):
        (tmp_path / (name + GROUP)).mkdir(parents=True)
    return Cgroups(text + _line("cgroup2", tmp_path / "unified", "nsdelegate"))


@pytest.fixture
def v2(tmp_path: Path) -> Cgroups:
    (tmp_path / GROUP[1:]).mkdir(parents=True)
    return Cgroups(_line("cgroup2", tmp_path, "nsdelegate"))


def test_versions(v1: Cgroups, v2: Cgroups, tmp_path: Path) -> None:
    assert (v1.version, v2.version) == (1, 2)
    assert v1.folder(GROUP, "memory") == tmp_path / "memory/shoal/c"
    assert v2.folder(GROUP, "memory") == tmp_path / "shoal/c"


LIMITS = Limits(memory_bytes=100, memory_reservation_bytes=50, nano_cpus=500_000_000, cpu_shares=1024, pids=9,
                cpuset_cpus="0-1")


def test_limits_v1(v1: Cgroups) -> None:
    v1.update(GROUP, LIMITS)
    files = {"memory/memory.limit_in_bytes": "100", "memory/memory.soft_limit_in_bytes": "50",
             "cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000", "cpu/cpu.shares": "1024",
             "pids/pids.max": "9", "cpuset/cpuset.cpus": "0-1"}
    for name, value in files.items():
        controller, _, file = name.partition("/")
        assert (v1.folder(GROUP, controller) / file).read_text() == value


@pytest.mark.parametrize("name", ["blkio.weight", "blkio.bfq.weight"])
def test_a_weight_of_block_devices_goes_to_the_file_that_is_there(v1: Cgroups, name: str) -> None:
    file = v1.folder(GROUP, "blkio") / name
    file.touch()
    v1.update(GROUP, Limits(blkio_weight=300))
    assert file.read_text() == "300"


@pytest.mark.root
def test_weights_of_devices_are_set_again_after_the_weight_of_all(v1: Cgroups, v2: Cgroups, tmp_path: Path) -> None:
    """Which takes them away: in v2's file they come last."""
    os.mknod(tmp_path / "disk", 0o600 | stat.S_IFBLK, os.makedev(8, 16))
    devices = (DeviceLimit(path=str(tmp_path / "disk"), value=200),)
    (v2.folder(GROUP, "") / "io.bfq.weight").touch()
    for cgroups, name in ((v1, "blkio.bfq.weight_device"), (v2, "io.bfq.weight")):
        cgroups.update(GROUP, Limits(blkio_weight=300, blkio_weight_devices=devices))
        assert (cgroups.folder(GROUP, "blkio") / name).read_text() == "8:16 200"


def test_limits_v2(v2: Cgroups) -> None:
    v2.update(GROUP, LIMITS)
    files = {"memory.max": "100", "memory.swap.max": "100", "memory.low": "50", "cpu.max": "50000 100000",
             "cpu.weight": "39", "pids.max": "9", "cpuset.cpus": "0-1"}
    assert {path.name: path.read_text() for path in v2.folder(GROUP, "").iterdir()} == files


@pytest.mark.parametrize(("limits", "name", "value"), [
    (Limits(pids=-1), "pids.max", "max"),
    (Limits(memory_bytes=5, memory_swap_bytes=-1), "memory.swap.max", "max"),
    (Limits(cpu_quota_us=-1), "cpu.max", "max 100000"),
    (Limits(cpu_period_us=5000, cpu_quota_us=2000), "cpu.max", "2000 5000"),
])
def test_no_limit_v2(v2: Cgroups, limits: Limits, name: str, value: str) -> None:
    v2.update(GROUP, limits)
    assert (v2.folder(GROUP, "") / name).read_text() == value


def test_swap_grows_first_and_shrinks_last(v1: Cgroups) -> None:
    swap = v1.folder(GROUP, "memory") / "memory.memsw.limit_in_bytes"
    (v1.folder("", "memory") / swap.name).touch()
    swap.write_text("500")
    assert next(name for _, name, _ in v1._v1_memory(GROUP, Limits(memory_bytes=400))) == swap.name
    assert [name for _, name, _ in v1._v1_memory(GROUP, Limits(memory_bytes=100))][1] == swap.name


def test_freeze(v1: Cgroups, v2: Cgroups) -> None:
    (v2.folder(GROUP, "") / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    v1.freeze(GROUP, True)
    v2.freeze(GROUP, True)
    assert (v1.folder(GROUP, "freezer") / "freezer.state").read_text() == "FROZEN"
    assert (v2.folder(GROUP, "") / "cgroup.freeze").read_text() == "1"
    with pytest.raises(ShoalError, match="cannot freeze cgroup /none"):
        v1.freeze("/none", True)


def test_groups_below_are_removed_too(v2: Cgroups) -> None:
    (v2.folder(GROUP, "") / "inner/most").mkdir(parents=True)
    v2.remove(GROUP)
    assert not v2.folder(GROUP, "").exists()
    v2.remove(GROUP)  # no error


def test_processes_and_kills(v2: Cgroups) -> None:
    folder = v2.folder(GROUP, "")
    (folder / "inner").mkdir()
    (folder / "cgroup.procs").write_text("7\n8\n")
    (folder / "inner/cgroup.procs").write_text("9\n")
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    assert v2.pids(GROUP) == [7, 8, 9]
    assert v2.oom_kills(GROUP) == 1
    assert v2.oom_kills("/none") == 0


def test_sample_v2(v2: Cgroups) -> None:
    folder = v2.folder(GROUP, "")
    for name, text in {"cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\n", "memory.max": "max\n",
                       "memory.current": "4096\n", "memory.stat": "anon 1\nfile 2\n", "pids.current": "3\n",
                       "pids.max": "max\n", "io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n"}.items():
        (folder / name).write_text(text)
    seen = usage.sample(v2, GROUP, pid=0)
    assert (seen.cpu_total_ns, seen.cpu_user_ns, seen.throttled_periods) == (5000, 3000, 1)
    assert (seen.memory_bytes, seen.memory_stats, seen.pids, seen.pids_limit) == (4096, {"anon": 1, "file": 2}, 3, 0)
    assert seen.memory_limit_bytes > 1 << 20  # the host's
    assert seen.block == (BlockUse(major=8, minor=0, operation="read", value=10),
                          BlockUse(major=8, minor=0, operation="write", value=20))


def test_sample_v1(v1: Cgroups) -> None:
    for controller, name, text in (
        ("cpuacct", "cpuacct.usage", "7\n"), ("cpuacct", "cpuacct.stat", "user 2\nsystem 1\n"),
        ("cpuacct", "cpuacct.usage_percpu", "3 4\n"), ("memory", "memory.limit_in_bytes", "8192\n"),
        ("memory", "memory.usage_in_bytes", "10\n"), ("memory", "memory.max_usage_in_bytes", "11\n"),
        ("blkio", "blkio.throttle.io_service_bytes_recursive", "8:0 Read 5\n8:0 Discard 0\nTotal 5\n"),
    ):
        (v1.folder(GROUP, controller) / name).write_text(text)
    seen = usage.sample(v1, GROUP, pid=0)
    assert (seen.cpu_total_ns, seen.cpu_user_ns, seen.cpu_per_cpu_ns) == (7, 20_000_000, (3, 4))
    assert (seen.memory_bytes, seen.memory_max_bytes, seen.memory_limit_bytes) == (10, 11, 8192)
    assert seen.block == (BlockUse(major=8, minor=0, operation="read", value=5),)


# --- cgroup v2 in particular ---

MEMORY_EVENTS = "low 0\nhigh 0\nmax 41\noom 3\noom_kill 2\noom_group_kill 0\n"
CPU_STAT = ("usage_usec 1823427\nuser_usec 1201145\nsystem_usec 622281\ncore_sched.force_idle_usec 0\n"
            "nr_periods 211\nnr_throttled 17\nthrottled_usec 903455\nnr_bursts 0\nburst_usec 0\n")
IO_STAT = "254:0 rbytes=1859584 wbytes=4096 rios=71 wios=1 dbytes=0 dios=0\n7:0 \n"


def test_files_as_a_kernel_has_them(v2: Cgroups) -> None:
    folder = v2.folder(GROUP, "")
    for name, text in {
        "memory.events": MEMORY_EVENTS, "cpu.stat": CPU_STAT, "io.stat": IO_STAT, "memory.max": "33554432\n",
        "memory.current": "31457280\n", "pids.current": "4\n", "pids.max": "64\n",
    }.items():
        (folder / name).write_text(text)
    seen = usage.sample(v2, GROUP, pid=0)
    assert (seen.cpu_total_ns, seen.cpu_system_ns) == (1_823_427_000, 622_281_000)
    assert (seen.periods, seen.throttled_periods, seen.throttled_ns) == (211, 17, 903_455_000)
    assert (seen.memory_bytes, seen.memory_limit_bytes, seen.memory_failures) == (31_457_280, 33_554_432, 41)
    assert (seen.pids, seen.pids_limit) == (4, 64)
    assert [(one.major, one.operation, one.value) for one in seen.block] == [
        (254, "read", 1859584), (254, "write", 4096)]
    assert v2.oom_kills(GROUP) == 2


@pytest.mark.parametrize(("limits", "files"), [
    pytest.param(Limits(memory_bytes=100), {"memory.max": "100", "memory.swap.max": "100"}, id="as much again"),
    pytest.param(Limits(memory_bytes=100, memory_swap_bytes=100), {"memory.max": "100", "memory.swap.max": "0"},
                 id="no swap"),
    pytest.param(Limits(memory_bytes=100, memory_swap_bytes=150), {"memory.max": "100", "memory.swap.max": "50"},
                 id="the difference"),
    pytest.param(Limits(memory_swap_bytes=-1), {"memory.swap.max": "max"}, id="swap without bound"),
    pytest.param(Limits(blkio_weight=500), {"io.weight": "4950"}, id="weight"),
])
def test_what_v2_means(v2: Cgroups, limits: Limits, files: dict[str, str]) -> None:
    v2.update(GROUP, limits)
    assert {path.name: path.read_text() for path in v2.folder(GROUP, "").iterdir()} == files


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262_144, 10_000), (1, 1), (999_999, 10_000)])
def test_weight(shares: int, weight: int) -> None:
    assert v2_weight(shares) == weight


def test_a_kernel_that_does_not_count_swap(v2: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "shoal/memory.max").write_text("max\n")
    assert not v2.counts_swap
    v2.update(GROUP, Limits(memory_bytes=100))
    assert [path.name for path in v2.folder(GROUP, "").iterdir()] == ["memory.max"]
    (tmp_path / "shoal/memory.swap.max").write_text("max\n")
    assert v2.counts_swap


def test_v2_knows_no_swappiness_and_always_kills() -> None:
    limits = Limits(memory_bytes=100, memory_swappiness=10, oom_kill_disable=True)
    first, second = (oci_resources(limits, counts_swap=True, cgroup_version=version)["memory"] for version in (1, 2))
    assert first == {"limit": 100, "swap": 200, "swappiness": 10, "disableOOMKiller": True}
    assert second == {"limit": 100, "swap": 200}


def test_what_does_not_stand_still_is_thawed(v2: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.engine.containers.oci.cgroups.FREEZE_TIMEOUT_S", 0.02)
    folder = v2.folder(GROUP, "")
    (folder / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(ShoalError, match="did not stand still"):
        v2.freeze(GROUP, True)
    assert (folder / "cgroup.freeze").read_text() == "0"
    v2.freeze(GROUP, False)  # is not waited for


def test_processes_leave_the_root_of_a_container(v2: Cgroups, tmp_path: Path) -> None:
    for name, text in {"cgroup.type": "domain\n", "cgroup.controllers": "cpuset cpu memory pids\n",
                       "cgroup.subtree_control": "pids\n", "cgroup.procs": "7\n"}.items():
        (tmp_path / name).write_text(text)
    v2.make_room()
    assert (tmp_path / "init/cgroup.procs").read_text() == "7"
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +cpuset +memory"


@pytest.mark.parametrize("there", [
    pytest.param({"cgroup.controllers": "memory\n", "cgroup.subtree_control": "\n"}, id="the real root"),
    pytest.param({"cgroup.type": "domain\n", "cgroup.controllers": "memory\n", "cgroup.subtree_control": "memory\n"},
                 id="handed on already"),
])
def test_nothing_is_moved(v2: Cgroups, tmp_path: Path, there: dict[str, str]) -> None:
    for name, text in there.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "cgroup.procs").write_text("7\n")
    v2.make_room()
    assert not (tmp_path / "init").exists()


def test_a_root_that_cannot_be_written_is_named(v2: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "cgroup.type").write_text("domain\n")  # and no other file
    with pytest.raises(ShoalError, match="cannot hand cgroup controllers on below"):
        v2.make_room()
