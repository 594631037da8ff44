"""Three machines as hosts of Shoal: the package installed, shoald started by hand or by systemd, the swarm asked."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shoal.cli.client import Client, ClientError
from shoal.lab.image import archive
from tests.cluster import Cluster
from tests.vm.image import CHECKOUT, VENV, Image, run
from tests.vm.machines import Machine, Machines, each

RUNTIMES = {"vm1": "runc", "vm2": "crun", "vm3": "runc"}
LOG = "/var/log/shoald.log"
POLL_S = 0.5
"""Each question costs a slow machine a few hundredths of a second."""

ELECTION_S, HEARTBEAT_S = 0.6, 3.0
"""What Shoal has where nothing is set."""

Row = tuple[str, str, float]


class Steps:
    """How long each step took."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.begin = time.monotonic()

    @contextmanager
    def step(self, part: str, what: str) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            self.rows.append((part, what, time.monotonic() - begin))
            print(f"[{part}] {what}: {self.rows[-1][2]:.1f} s", flush=True)


# --- installing ---


def build_wheel(folder: Path) -> Path:
    """The wheel of what is in the checkout now; from a copy, for setuptools leaves its work behind."""
    tracked = run(["git", "-C", CHECKOUT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    copy = folder / "checkout"
    for name in filter(None, tracked.split("\0")):
        if not (CHECKOUT / name).exists() or name.startswith("tests/"):
            continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, copy / name, follow_symlinks=False)
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--wheel-dir", folder / "wheel", copy])
    wheel, = (folder / "wheel").glob("shoal-*.whl")
    return wheel


def install(image: Image, folder: Path, wheel: Path) -> Path:
    """A disk on which the wheel is installed, by a machine that has no network. Others may begin with it."""
    folder.mkdir()
    with Machines(image, folder, 1, image.disk) as machines:
        machine, = machines.all
        machines.boot("bare")
        machine.put(wheel, f"/root/{wheel.name}")
        machine.run(f"{VENV}/bin/pip install --quiet --no-index --no-cache-dir /root/{wheel.name} && "
                    f"ln -s {VENV}/bin/shoald {VENV}/bin/shoal /usr/local/bin/ && "
                    f"cp {VENV}/lib/python3.*/site-packages/shoal/daemon/shoald.service /etc/systemd/system/ && sync")
        machine.run("setsid busybox poweroff -f > /dev/null 2>&1 &")
        machine.wait_until_off(120)
    return machine.disk


# --- shoald ---


class ByHand:
    """On the bare init, as somebody starts it in a shell."""

    init = "bare"
    comes_back = False  # after a boot it has to be started again

    def set_up(self, machine: Machine, environment: str, options: str) -> None:
        machine.run(f"echo {shlex.quote(environment)} > /etc/default/shoald; "
                    f"echo {shlex.quote(options)} > /etc/shoald.options")

    def start(self, machine: Machine) -> None:
        machine.run("set -a; . /etc/default/shoald; "
                    f"setsid shoald $(cat /etc/shoald.options) >> {LOG} 2>&1 < /dev/null &")

    def restart(self, machine: Machine) -> None:
        machine.run("pid=$(cat /run/shoal/shoald.lock); kill $pid; while [ -d /proc/$pid ]; do sleep 0.2; done")
        self.start(machine)

    def log(self, machine: Machine, lines: int) -> str:
        return machine.run(f"tail -n {lines} {LOG}", check=False)

    def reboot(self, machine: Machine) -> None:
        """As when the power fails."""
        machine.power_off()


class BySystemd:
    """As a unit, with cgroups delegated to it."""

    init = "systemd"
    comes_back = True

    def set_up(self, machine: Machine, environment: str, options: str) -> None:
        text = f"{environment}\nSHOALD_OPTIONS={options}"
        machine.run(f"echo {shlex.quote(text)} > /etc/default/shoald; systemctl enable --quiet shoald")

    def start(self, machine: Machine) -> None:
        machine.run("systemctl start --no-block shoald")

    def restart(self, machine: Machine) -> None:
        machine.run("systemctl restart shoald")

    def log(self, machine: Machine, lines: int) -> str:
        return machine.run(f"journalctl --no-pager --output cat --unit shoald --lines {lines}", check=False)

    def reboot(self, machine: Machine) -> None:
        """As an administrator does it."""
        machine.run("systemctl reboot", check=False)
        machine.wait_until_off(600)


class Hosts(Cluster):
    """The machines as a swarm. Times that tests allow are for a fast host; they are scaled here."""

    def __init__(self, machines: Machines, way: ByHand | BySystemd, steps: Steps, factor: float) -> None:
        self.machines = machines
        self.way = way
        self.factor = factor
        self.names = [machine.name for machine in machines.all]
        self._steps = steps

    def step(self, what: str) -> Any:
        return self._steps.step(self.way.init, what)

    def machine(self, name: str) -> Machine:
        return self.machines.named(name)

    def client(self, host: str = "vm1") -> Client:
        return self.machine(host).client()

    def any_manager(self) -> Client:
        """A client of a manager that answers for the swarm."""
        for name in self.names:
            try:
                self.client(name).call("GET", "/nodes")
                return self.client(name)
            except (ClientError, OSError):
                continue
        raise ClientError("no manager answers")

    def eventually(self, look: Callable[[], Any], enough: Callable[[Any], bool] = bool, within_s: float = 10.0) -> Any:
        """What `look` gives once it is enough; within so many seconds of a fast host."""
        end = time.monotonic() + within_s * self.factor
        while True:
            try:
                found: Any = look()
                if enough(found):
                    return found
            except (ClientError, OSError) as error:
                found = error
            assert time.monotonic() < end, f"after {within_s * self.factor:.0f} s still: {found}"
            time.sleep(POLL_S)

    def runs(self, service: str, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.eventually(
            lambda: self.running(service), lambda tasks: len(tasks) == count, within_s=20)
        return found

    # --- the daemons ---

    def set_up(self) -> None:
        """Each with its runtime; elections wait as much longer as everything takes."""
        environment = f"SHOAL_ELECTION_TIMEOUT={self.election_s:.1f}"
        each(self.machines.all, lambda machine: self.way.set_up(
            machine, environment, f"--default-runtime {RUNTIMES[machine.name]}"))

    @property
    def election_s(self) -> float:
        """Less than all of the factor: what an election waits for is a stall, and these are not as much longer."""
        return min(ELECTION_S * self.factor / 3, 20.0)

    @property
    def heartbeat_ns(self) -> int:
        """A lease has to outlast a restart of shoald, which takes all of the factor longer."""
        return int(min(HEARTBEAT_S * self.factor, 90.0) * 1e9)

    def wait_for_daemon(self, name: str) -> dict[str, Any]:
        """Its answer to /info."""
        found: dict[str, Any] = self.eventually(lambda: self.client(name).call("GET", "/info"))
        return found

    def start(self, *names: str) -> None:
        """Start the daemons where they do not start themselves, until they answer."""
        chosen = [self.machine(name) for name in names or self.names]
        each(chosen, self.way.start)
        each(chosen, lambda machine: self.wait_for_daemon(machine.name))

    def boot(self, *names: str) -> None:
        """Power on again what is off, with its daemon."""
        chosen = [self.machine(name) for name in names or self.names]
        self.machines.boot(self.way.init, chosen)
        if not self.way.comes_back:
            each(chosen, self.way.start)
        each(chosen, lambda machine: self.wait_for_daemon(machine.name))

    def load_image(self) -> None:
        """The image `busybox` to every host."""
        content, _ = archive()
        file = self.machines.all[0].disk.parent / "busybox.tar"
        file.write_bytes(content)

        def load(machine: Machine) -> None:
            with file.open("rb") as opened:
                list(machine.client().upload("/images/load", {"quiet": True}, opened))

        each(self.machines.all, load)

    def all_ready(self, within_s: float = 20.0) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = self.eventually(
            self.nodes, lambda nodes: [state for _, state in nodes.values()] == ["ready"] * len(self.names), within_s)
        return found

    def report(self) -> Iterator[tuple[str, str]]:
        """What to read after a failure."""
        for machine in self.machines.all:
            try:
                yield f"shoald of {machine.name}", self.way.log(machine, 60)
                yield f"manager of {machine.name}", machine.run("tail -n 40 /run/shoal/manager.log", check=False)
            except (OSError, subprocess.SubprocessError) as error:
                yield machine.name, f"cannot be asked: {error}"
            yield f"console of {machine.name}", machine.console()
