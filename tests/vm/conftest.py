"""The three machines, once for each way to start shoald; and at the end, how long each step took."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.hosts import ByHand, BySystemd, Hosts, Steps, build_wheel, install
from tests.vm.image import Image, image
from tests.vm.machines import Machines, slowness

STEPS = Steps()


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """What the machines write; also what runs that were killed have left is removed."""
    for path in Path(tempfile.gettempdir()).glob("shoal-vm-*-*"):
        owner = path.name.split("-")[2]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"shoal-vm-{os.getpid()}-") as made:
        yield Path(made)


@pytest.fixture(scope="session")
def base() -> Image:
    with STEPS.step("setup", "build the image, if it is not in the cache"):
        return image()


@pytest.fixture(scope="session")
def installed(base: Image, folder: Path) -> Path:
    """A disk with Shoal on it."""
    with STEPS.step("setup", "build the wheel"):
        wheel = build_wheel(folder)
    with STEPS.step("setup", "boot a machine and install the wheel"):
        return install(base, folder / "install", wheel)


@pytest.fixture(scope="module", params=[ByHand, BySystemd], ids=["bare", "systemd"])
def hosts(request: pytest.FixtureRequest, base: Image, installed: Path, folder: Path) -> Iterator[Hosts]:
    """Three machines that have booted; shoald is not running yet."""
    way = request.param()
    (folder / way.init).mkdir()
    with Machines(base, folder / way.init, 3, installed) as machines:
        with STEPS.step(way.init, "boot three machines"):
            machines.boot(way.init)
        factor = slowness(machines.all)
        print(f"[{way.init}] the machines are {factor:.1f} times slower than this host", flush=True)
        hosts = Hosts(machines, way, STEPS, factor)
        hosts.set_up()
        yield hosts


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Beside a failure: what daemons and kernels said."""
    outcome = yield
    report: Any = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's result
    hosts = getattr(item, "funcargs", {}).get("hosts")
    if report.failed and hosts is not None:
        report.sections += list(hosts.report())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("how long each step took")
    for part, what, seconds in STEPS.rows:
        terminalreporter.write_line(f"{part:8} {seconds:7.1f} s  {what}")
    terminalreporter.write_line(f"{'all':8} {sum(row[2] for row in STEPS.rows):7.1f} s  of steps")
