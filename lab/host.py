"""One host of a lab: its namespaces, its link, its daemon. Each step can be repeated."""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

from shoal.lab import processes
from shoal.lab.plan import HostPlan, LabPlan, host_commands, hub_commands, link_commands
from shoal.lab.processes import LabError

START_TIMEOUT_S = 30.0


def ip(commands: list[str], *, inside: list[str]) -> None:
    """Run `ip` commands in one go. Raises LabError with what `ip` said."""
    done = subprocess.run(
        [*inside, "ip", "-batch", "-"], input="\n".join(commands), text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise LabError(f"ip failed: {done.stderr.strip()}")


def in_hub(plan: LabPlan) -> list[str]:
    """The command that runs what follows it in the hub's namespace."""
    return ["nsenter", f"--net={plan.hub}", "--"]


def make_hub(plan: LabPlan) -> None:
    """Make the hub's network namespace, held by a mount alone: no process keeps it."""
    plan.hub.touch()
    subprocess.run(["unshare", f"--net={plan.hub}", "true"], check=True)
    ip(hub_commands(), inside=in_hub(plan))


def power_on(plan: LabPlan, host: HostPlan) -> int:
    """Start the host's namespaces with a process 1 in them, and join it to the hub. Returns that process's pid."""
    run, data = plan.run_root(host), plan.data_root(host)
    run.mkdir(parents=True, exist_ok=True)
    data.mkdir(parents=True, exist_ok=True)
    _write_etc(plan, host)
    etc = shlex.quote(str(data / "etc"))
    setup = (
        f"hostname {host.name} && mount --bind {etc}/resolv.conf /etc/resolv.conf && "
        f"mount --bind {etc}/hosts /etc/hosts && mount --bind {etc}/hostname /etc/hostname && "
        "exec catatonit -- sleep infinity"
    )
    with (run / "init.log").open("ab") as log:
        subprocess.Popen(
            ["unshare", "--mount", "--uts", "--pid", "--net", "--fork", "--kill-child", "--propagation=private",
             "--mount-proc", "sh", "-c", setup],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={**os.environ, processes.MARK: plan.mark(host)},
        )
    init_pid = _wait_for_init(plan, host)
    ip(link_commands(host, init_pid), inside=in_hub(plan))
    ip(host_commands(host), inside=processes.entering(init_pid))
    return init_pid


def _write_etc(plan: LabPlan, host: HostPlan) -> None:
    """A lab has no resolver above it: the hosts know each other by /etc/hosts."""
    etc = plan.data_root(host) / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "resolv.conf").write_text("# A lab has no resolver above it.\n")
    (etc / "hostname").write_text(host.name + "\n")
    known = "".join(f"{peer.address}\t{peer.name}\n" for peer in plan.hosts)
    (etc / "hosts").write_text("127.0.0.1\tlocalhost\n::1\tlocalhost\n" + known)


def _wait_for_init(plan: LabPlan, host: HostPlan) -> int:
    """Process 1 once it has set up the host, which it shows by having become catatonit."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        init_pid = processes.init_of(plan.mark(host))
        if init_pid is not None and processes.command_line(init_pid)[:1] == ["catatonit"]:
            return init_pid
        time.sleep(0.01)  # a process of another pid namespace has nothing that could be waited on
    said = (plan.run_root(host) / "init.log").read_text().strip()
    raise LabError(f"host {host.name} did not come up: {said or 'no message'}")


def start_daemon(plan: LabPlan, host: HostPlan, init_pid: int) -> None:
    """Start the host's shoald; it goes on when this command ends. See `wait_for_daemon`."""
    run, data = plan.run_root(host), plan.data_root(host)
    command = [
        sys.executable, "-m", "shoal.daemon",
        "--data-root", str(data / "shoal"),
        "--run-root", str(run),
        "--host", f"unix://{plan.socket(host)}",
        "--cgroup-parent", f"{plan.cgroup}/{host.name}",
    ]
    with (run / "shoald.log").open("ab") as log:
        subprocess.Popen(
            [*processes.entering(init_pid), *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            env={**os.environ, processes.MARK: plan.mark(host)},
        )


def daemons(plan: LabPlan, host: HostPlan) -> list[int]:
    """The pids of the host's shoald and manager, inside its namespaces."""
    pids = processes.marked(plan.mark(host))
    return [pid for pid in pids if {"shoal.daemon", "shoal.manager"} & set(processes.command_line(pid)[:4])]


def answers(path: Path) -> bool:
    """Whether a daemon answers a ping on this socket."""
    connection = http.client.HTTPConnection("localhost", timeout=2)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(2)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def wait_for_daemon(plan: LabPlan, host: HostPlan) -> None:
    """Until the daemon answers. Raises LabError with the end of its log."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if answers(plan.socket(host)):
            return
        time.sleep(0.02)
    tail = (plan.run_root(host) / "shoald.log").read_text(errors="replace").splitlines()[-5:]
    raise LabError(f"shoald on {host.name} does not answer; its log ends: " + " | ".join(tail))
