"""Who makes a container's cgroup, where, and what systemd is told of its limits."""

import threading
from pathlib import Path

import msgspec
import pytest

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.containers.nouns import Limits
from shoal.engine.containers.oci import runtime, systemd
from shoal.engine.containers.oci.cgroupdriver import (
    CgroupFS,
    Driver,
    Systemd,
    candidates,
    slice_path,
    unit_of,
    unit_properties,
)


@pytest.mark.parametrize(("wanted", "parent", "version", "init", "found"), [
    pytest.param("auto", "", 2, True, [Systemd(), CgroupFS()], id="systemd, else by hand"),
    pytest.param("auto", "", 1, True, [CgroupFS()], id="v1"),
    pytest.param("auto", "", 2, False, [CgroupFS()], id="another init"),
    pytest.param("auto", "/shoal-lab/x/m1", 2, True, [CgroupFS("/shoal-lab/x/m1")], id="a path is no slice"),
    pytest.param("auto", "shop.slice", 2, True, [Systemd("shop.slice")], id="a slice"),
    pytest.param("systemd", "", 2, True, [Systemd()], id="systemd asked for"),
    pytest.param("cgroupfs", "", 2, True, [CgroupFS()], id="cgroupfs asked for"),
    pytest.param("cgroupfs", "x.slice", 2, True, [CgroupFS("x.slice")], id="the name of a slice is a name"),
])
def test_candidates(wanted: str, parent: str, version: int, init: bool, found: list[Driver]) -> None:
    assert candidates(wanted, parent, version=version, systemd=init) == found


@pytest.mark.parametrize(("wanted", "parent", "version", "init", "message"), [
    ("systemd", "", 1, True, "needs cgroup v2"),
    ("systemd", "", 2, False, "needs systemd as PID 1"),
    ("systemd", "/shoal", 2, True, "valid slice"),
    ("auto", "a--b.slice", 2, True, "valid slice"),
    ("cgroupfs", "/a/../b", 1, False, "invalid cgroup parent"),
    ("openrc", "", 1, False, "unknown cgroup driver 'openrc'"),
])
def test_what_cannot_be(wanted: str, parent: str, version: int, init: bool, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        candidates(wanted, parent, version=version, systemd=init)


@pytest.mark.parametrize(("driver", "parent", "group", "oci_path"), [
    (CgroupFS(), "", "/shoal/c1", "/shoal/c1"),
    (CgroupFS("lab/m1/"), "", "/lab/m1/c1", "/lab/m1/c1"),
    (CgroupFS(), "/mine", "/mine/c1", "/mine/c1"),
    (Systemd(), "", "/system.slice/shoal-c1.scope", "system.slice:shoal:c1"),
    (Systemd(), "a-b.slice", "/a.slice/a-b.slice/shoal-c1.scope", "a-b.slice:shoal:c1"),
])
def test_places(driver: Driver, parent: str, group: str, oci_path: str) -> None:
    assert (driver.group("c1", parent), driver.oci_path("c1", parent)) == (group, oci_path)
    assert unit_of(group) == ("shoal-c1.scope" if isinstance(driver, Systemd) else "")


@pytest.mark.parametrize("name", ["", ".slice", "x", "-x.slice", "a/b.slice", "a--b.slice"])
def test_no_slice(name: str) -> None:
    with pytest.raises(InvalidArgument, match="valid slice"):
        slice_path(name)


@pytest.mark.parametrize(("limits", "told"), [
    (Limits(), []),
    (Limits(memory_bytes=100), ["MemoryMax=100", "MemorySwapMax=100"]),
    (Limits(memory_bytes=100, memory_swap_bytes=100), ["MemoryMax=100", "MemorySwapMax=0"]),
    (Limits(memory_bytes=100, memory_swap_bytes=-1), ["MemoryMax=100", "MemorySwapMax=infinity"]),
    (Limits(nano_cpus=500_000_000), ["CPUQuotaPeriodSec=100000us", "CPUQuota=50%"]),
    (Limits(cpu_quota_us=1234), ["CPUQuota=2%"]),  # 1.234 %: never less than was asked for
    (Limits(cpu_quota_us=-1), ["CPUQuota="]),
    (Limits(cpu_shares=1024, pids=-1), ["CPUWeight=39", "TasksMax=infinity"]),
    (Limits(cpuset_cpus="0-1", pids=5), ["AllowedCPUs=0-1", "TasksMax=5"]),
])
def test_properties(limits: Limits, told: list[str]) -> None:
    assert unit_properties(limits) == told


def test_annotations() -> None:
    """systemd's own default for tasks would stand where nothing is said of them."""
    told = Systemd().annotations(Limits(memory_bytes=100))
    assert told["org.systemd.property.TasksMax"] == f"uint64 {2**64 - 1}"
    assert told["org.systemd.property.MemorySwapMax"] == "uint64 100"
    assert told["run.oci.systemd.subgroup"] == ""
    assert Systemd().annotations(Limits(pids=7))["org.systemd.property.TasksMax"] == "uint64 7"
    assert CgroupFS().annotations(Limits(pids=7)) == {}


@pytest.mark.parametrize(("limits", "told"), [
    (Limits(memory_bytes=100, memory_reservation_bytes=50), {"MemoryMax": 100, "MemorySwapMax": 100, "MemoryLow": 50}),
    (Limits(memory_bytes=100, memory_swap_bytes=-1), {"MemoryMax": 100, "MemorySwapMax": 2**64 - 1}),
    (Limits(nano_cpus=500_000_000), {"CPUQuotaPeriodUSec": 100_000, "CPUQuotaPerSecUSec": 500_000}),
    (Limits(cpu_quota_us=1234), {"CPUQuotaPeriodUSec": 100_000, "CPUQuotaPerSecUSec": 20_000}),
    (Limits(cpu_quota_us=-1, cpu_shares=1024), {"CPUWeight": 39}),
    (Limits(blkio_weight=300), {"IOWeight": 2930}),
])
def test_a_reload_of_systemd_finds_every_limit(limits: Limits, told: dict[str, int]) -> None:
    """crun does not tell it of them."""
    before, now = Systemd().annotations(Limits()), Systemd().annotations(limits)
    changed = {key.removeprefix("org.systemd.property."): value for key, value in now.items() if key not in before}
    assert changed == {name: f"uint64 {value}" for name, value in told.items()}


@pytest.mark.parametrize("weight", [10, 99, 100, 101, 300, 1000])
def test_systemd_writes_the_weight_of_bfq_that_was_asked_for(weight: int) -> None:
    limits = Limits(blkio_weight=weight)
    told = int(Systemd().annotations(limits, bfq=True)["org.systemd.property.IOWeight"].removeprefix("uint64 "))
    assert unit_properties(limits, bfq=True) == [f"IOWeight={told}"]
    assert (told if told <= 100 else 100 + (told - 100) * 900 // 9900) == weight


@pytest.mark.parametrize(("stop_timeout_s", "patience_us"), [(None, 10_000_000), (3, 3_000_000), (-1, 10_000_000)])
def test_patience_when_the_host_goes_down(stop_timeout_s: int | None, patience_us: int) -> None:
    told = Systemd().annotations(Limits(), stop_timeout_s)
    assert told["org.systemd.property.TimeoutStopUSec"] == f"uint64 {patience_us}"


# --- which is found to work ---


@pytest.fixture
def only_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runc that notes how it is called, and fails where it is to call systemd."""
    runc = tmp_path / "runc"
    runc.write_text(f"#!/bin/sh\necho \"$*\" >> {tmp_path}/calls\n"
                    "case \"$*\" in *--systemd-cgroup*) echo no bus >&2; exit 1;; esac\n")
    runc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_the_next_driver_where_systemd_does_not_answer(only_without_systemd: Path) -> None:
    folder = only_without_systemd
    found, driver = runtime.find("runc", folder, [Systemd(), CgroupFS()])
    assert (found.driver, driver, found.flags) == ("cgroupfs", CgroupFS(), [f"--root={folder}/runtime"])
    assert "failed: runc with the cgroup driver systemd: no bus" in found.warning
    calls = (folder / "calls").read_text().splitlines()
    assert ["--systemd-cgroup" in call for call in calls] == [True, False]
    assert runtime.find("runc", folder, [Systemd(), CgroupFS()]) == (found, driver)  # known for this boot
    assert len((folder / "calls").read_text().splitlines()) == 2


def test_no_driver_but_systemd_is_tried_where_it_is_asked_for(only_without_systemd: Path) -> None:
    with pytest.raises(ShoalError, match="runc with the cgroup driver systemd: no bus"):
        runtime.find("runc", only_without_systemd, [Systemd()])


def test_a_fallback_is_said_at_each_start(only_without_systemd: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        caplog.clear()
        runtime.find("runc", only_without_systemd, [Systemd(), CgroupFS()])
        record, = caplog.records
        assert record.levelname == "WARNING"
        assert "no bus" in record.getMessage()


def test_a_runtime_that_hangs_is_named(only_without_systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (only_without_systemd / "runc").write_text("#!/bin/sh\nexec sleep 1000\n")
    monkeypatch.setattr(runtime, "TRIAL_TIMEOUT_S", 0.1)
    with pytest.raises(ShoalError, match="runc with the cgroup driver cgroupfs: it did not end within"):
        runtime.find("runc", only_without_systemd, [CgroupFS()])


def test_one_that_is_not_installed_is_no_failure(only_without_systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "CANDIDATES", ("nosuch", "runc"))
    found, _ = runtime.find("", only_without_systemd, [CgroupFS()])
    assert (found.name, found.warning) == ("runc", "")


def test_what_an_older_daemon_found_is_cgroupfs(tmp_path: Path) -> None:
    older = msgspec.json.decode(b'{"name": "runc", "path": "/usr/sbin/runc", "root": "/run/x"}', type=runtime.Runtime)
    assert older.driver == "cgroupfs"


# --- systemd itself ---


def test_an_ended_scope_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "shoal-c1.scope"
    file.touch()
    threading.Timer(0.05, file.unlink).start()
    systemd.let_go("shoal-c1.scope", transient=tmp_path)
    assert not file.exists()


def test_a_scope_that_stays_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\necho \"$*\" >> {calls}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(systemd, "FORGET_TIMEOUT_S", 0.02)
    (tmp_path / "shoal-c1.scope").touch()
    systemd.let_go("shoal-c1.scope", transient=tmp_path)
    systemd.set_properties("shoal-c1.scope", ["TasksMax=5"])
    systemd.set_properties("shoal-c1.scope", [])
    assert calls.read_text().splitlines() == [
        "--no-ask-password --quiet stop shoal-c1.scope",
        "--no-ask-password --quiet set-property --runtime shoal-c1.scope TasksMax=5"]


def test_what_systemd_refuses_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\necho Unit is gone >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ShoalError, match=r"set-property .* failed: Unit is gone"):
        systemd.set_properties("x.scope", ["TasksMax=5"])
