"""Processes of a lab: found by their mark, ended by pid, entered by their namespaces.

A mark in the environment is inherited by everything that a host starts, so that
nothing is lost even where `up` was killed before it could write down a pid.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path

from shoal.api.errors import ShoalError

MARK = "SHOAL_LAB_HOST"


class LabError(ShoalError):
    """Something of the lab could not be made or reached."""


def environ(pid: int) -> list[bytes]:
    """The `name=value` items that a process was started with; [] where it is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def command_line(pid: int) -> list[str]:
    """The arguments of a process; [] where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def marked(mark: str) -> list[int]:
    """The pids that carry this mark, lowest first. A mark that ends in `/` means all that begin with it."""
    wanted = f"{MARK}={mark}".encode()
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    if mark.endswith("/"):
        return [pid for pid in pids if any(item.startswith(wanted) for item in environ(pid))]
    return [pid for pid in pids if wanted in environ(pid)]


def is_init(pid: int) -> bool:
    """Whether the process is number 1 of a pid namespace below ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return len(numbers) > 1 and numbers[-1] == "1"
    return False


def init_of(mark: str) -> int | None:
    """Process 1 of a host, if it is up."""
    return next((pid for pid in marked(mark) if is_init(pid)), None)


def kill(pids: Iterable[int], timeout_s: float = 10.0) -> None:
    """SIGKILL, and wait until they are gone. Raises LabError where one stays."""
    waiting: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            waiting[descriptor] = pid
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    try:
        left = dict(waiting)
        while left:
            ready, _, _ = select.select(list(left), [], [], timeout_s)
            if not ready:
                raise LabError(f"processes {sorted(left.values())} do not end")
            for descriptor in ready:
                del left[descriptor]
    finally:
        for descriptor in waiting:
            os.close(descriptor)


def entering(init_pid: int) -> list[str]:
    """The command that runs what follows it inside a host. (`ip netns exec` would hide /sys/fs/cgroup.)"""
    return ["nsenter", f"--target={init_pid}", "--net", "--mount", "--uts", "--pid", "--"]
