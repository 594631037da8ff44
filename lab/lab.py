"""A lab as a whole: up, down, and what can happen to its hosts.

Whatever `up` makes lies under the plan's folders, namespaces, cgroups, or is
marked; so `down` cleans up after any crash, from nothing but the lab's name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from shoal.api.errors import Conflict, NotFound, ShoalError
from shoal.lab import processes
from shoal.lab.host import (
    answers,
    daemons,
    in_hub,
    ip,
    make_hub,
    power_on,
    start_daemon,
    wait_for_daemon,
)
from shoal.lab.image import archive
from shoal.lab.plan import HostPlan, LabPlan, plan
from shoal.lab.processes import LabError
from shoal.lab.swarm import call, form
from shoal.lab.swarm import load as load_image

RUN = Path("/run/shoal/lab")
DATA = Path("/var/lib/shoal/lab")
MNT_DETACH = 2

Progress = Callable[[str], None]


def up(name: str, managers: int, workers: int, *, progress: Progress = lambda _: None) -> LabPlan:
    """Start the hosts, form the swarm, give every host the image `busybox`. After an error nothing is left.

    Raises ShoalError.
    """
    if os.geteuid() != 0:
        raise LabError("a lab needs root: it makes namespaces, links and mounts")
    lab = plan(name, managers, workers, run=RUN, data=DATA)
    run = Path(lab.run)
    try:
        run.mkdir(parents=True)
    except FileExistsError:
        raise Conflict(f"lab {name} exists; take it down first: shoal lab down --name {name}") from None
    try:
        Path(lab.data).mkdir(parents=True, exist_ok=True)
        (run / "lab.json").write_bytes(msgspec.json.encode(lab))
        make_hub(lab)
        with ThreadPoolExecutor(len(lab.hosts)) as pool:
            list(pool.map(lambda host: start(lab, host), lab.hosts))
            progress(f"{len(lab.hosts)} hosts are up")
            busybox, _ = archive()
            loading = pool.map(lambda host: load_image(lab, host, busybox), lab.hosts)
            form(lab, progress)
            list(loading)
    except BaseException:
        down(name)
        raise
    return lab


def load(name: str) -> LabPlan:
    """The lab of this name. Raises NotFound."""
    try:
        return msgspec.json.decode((RUN / name / "lab.json").read_bytes(), type=LabPlan)
    except FileNotFoundError:
        raise NotFound(f"no lab {name} is up; start one: shoal lab up --name {name}") from None


def names() -> list[str]:
    """The labs that are up."""
    return sorted(entry.name for entry in RUN.iterdir()) if RUN.is_dir() else []


def down(name: str) -> None:
    """End every process of the lab and remove all that it made. No error where there is nothing."""
    remove(RUN / name, DATA / name, f"/shoal-lab/{name}")


def remove(run: Path, data: Path, cgroup: str) -> None:
    """End what is marked with `run`, and remove what is under the two folders and the cgroup."""
    mark = f"{run}/"
    processes.kill(filter(processes.is_init, processes.marked(mark)))  # and with it all of its pid namespace
    processes.kill(processes.marked(mark))
    for mount in _mounts_below(run, data):
        _unmount(mount)
    for folder in _cgroups(cgroup):
        folder.rmdir()
    for folder in (run, data):
        shutil.rmtree(folder, ignore_errors=True)
        for parent in (folder.parent, folder.parent.parent):
            with contextlib.suppress(OSError):
                parent.rmdir()  # only where it is empty


def start(lab: LabPlan, host: HostPlan) -> None:
    """Power the host on if it is off, start its daemon if that is down, wait until it answers."""
    init_pid = processes.init_of(lab.mark(host))
    if init_pid is None:
        init_pid = power_on(lab, host)
    if not answers(lab.socket(host)):
        start_daemon(lab, host, init_pid)
        wait_for_daemon(lab, host)


def cut(lab: LabPlan, host: HostPlan) -> None:
    """Take the host's link down."""
    ip([f"link set {host.port} down"], inside=in_hub(lab))


def heal(lab: LabPlan, host: HostPlan) -> None:
    """Bring the host's link up again."""
    ip([f"link set {host.port} up"], inside=in_hub(lab))


def kill(lab: LabPlan, host: HostPlan) -> None:
    """SIGKILL to shoald and its manager. Containers live on."""
    processes.kill(daemons(lab, host))


def crash(lab: LabPlan, host: HostPlan) -> None:
    """Power off: the link first, so that no peer sees a connection close; then every process at once."""
    init_pid = processes.init_of(lab.mark(host))
    if init_pid is None:
        raise Conflict(f"host {host.name} is off")
    ip([f"link del {host.port}"], inside=in_hub(lab))
    processes.kill([init_pid])
    processes.kill(processes.marked(lab.mark(host)))
    for folder in _cgroups(f"{lab.cgroup}/{host.name}"):
        folder.rmdir()


def enter(lab: LabPlan, host: HostPlan, command: Sequence[str]) -> int:
    """Run a command in the host's namespaces, with DOCKER_HOST set to its daemon. Returns its exit code."""
    init_pid = processes.init_of(lab.mark(host))
    if init_pid is None:
        raise Conflict(f"host {host.name} is off; start it: shoal lab start {host.name} --name {lab.name}")
    environment = {**os.environ, "DOCKER_HOST": f"unix://{lab.socket(host)}"}
    return subprocess.run([*processes.entering(init_pid), *command], env=environment, check=False).returncode


def status(lab: LabPlan) -> list[dict[str, Any]]:
    """One entry for each host: name, address, whether it is on, linked and answering, and its part in the swarm."""
    return [_host_status(lab, host) for host in lab.hosts]


def _host_status(lab: LabPlan, host: HostPlan) -> dict[str, Any]:
    on = processes.init_of(lab.mark(host)) is not None
    entry: dict[str, Any] = {
        "name": host.name,
        "address": host.address,
        "on": on,
        "linked": on and _linked(lab, host),
        "daemon": on and answers(lab.socket(host)),
        "swarm": "",
        "role": "",
        "leader": False,
        "socket": str(lab.socket(host)),
    }
    if entry["daemon"]:
        with contextlib.suppress(ShoalError, OSError):
            swarm = call(lab.socket(host), "GET", "/info").get("Swarm") or {}
            entry["swarm"] = swarm.get("LocalNodeState", "")
            entry["role"] = "manager" if swarm.get("ControlAvailable") else "worker"
            entry["leader"] = entry["role"] == "manager" and _leads(lab, host, swarm.get("NodeID", ""))
    return entry


def _linked(lab: LabPlan, host: HostPlan) -> bool:
    done = subprocess.run(
        [*in_hub(lab), "ip", "-oneline", "link", "show", host.port, "up"], capture_output=True, text=True, check=False
    )
    return bool(done.stdout.strip())


def _leads(lab: LabPlan, host: HostPlan, node_id: str) -> bool:
    node = call(lab.socket(host), "GET", f"/nodes/{node_id}")
    return bool((node.get("ManagerStatus") or {}).get("Leader"))


# --- taking down ---


def _mounts_below(*folders: Path) -> list[Path]:
    """Mount points under the folders, innermost first."""
    prefixes = tuple(f"{folder}/" for folder in folders)
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [Path(point) for point in reversed(points) if point.startswith(prefixes)]


def _unmount(point: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(point), MNT_DETACH):
        raise LabError(f"cannot unmount {point}: {os.strerror(ctypes.get_errno())}")


def _cgroups(path: str) -> Iterator[Path]:
    """The cgroup `path` and those below it, in every hierarchy, innermost first."""
    root = Path("/sys/fs/cgroup")
    for hierarchy in (root, *(entry for entry in root.iterdir() if entry.is_dir() and not entry.is_symlink())):
        top = hierarchy / path.lstrip("/")
        if top.is_dir():
            for folder, _, _ in os.walk(top, topdown=False):
                yield Path(folder)
            with contextlib.suppress(OSError):
                top.parent.rmdir()  # /shoal-lab itself, once the last lab is gone
