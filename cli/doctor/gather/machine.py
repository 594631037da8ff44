"""This process, the clock, the disk, and the daemon that may be running."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.cli.client import Client
from shoal.cli.doctor import probes
from shoal.cli.doctor.facts import Daemon, Disk, Process
from shoal.cli.doctor.gather.reading import text

DAEMON_TIMEOUT_S = 3
_STA_UNSYNC = 0x40
_CAPABILITIES = {  # number → name, of those that checks ask for
    0: "CAP_CHOWN", 1: "CAP_DAC_OVERRIDE", 5: "CAP_KILL", 6: "CAP_SETGID", 7: "CAP_SETUID", 12: "CAP_NET_ADMIN",
    13: "CAP_NET_RAW", 18: "CAP_SYS_CHROOT", 19: "CAP_SYS_PTRACE", 21: "CAP_SYS_ADMIN", 24: "CAP_SYS_RESOURCE",
    27: "CAP_MKNOD", 29: "CAP_AUDIT_WRITE", 31: "CAP_SETFCAP",
}


def process(root: bool) -> Process:
    try:
        shoal = version("shoal")
    except PackageNotFoundError:
        shoal = ""
    bits = re.search(r"^CapEff:\s*([0-9a-f]+)$", text(Path("/proc/self/status")), re.MULTILINE)
    held = int(bits[1], 16) if bits else 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return Process(
        root=root, capabilities=frozenset(name for number, name in _CAPABILITIES.items() if held >> number & 1),
        open_files=hard if hard != resource.RLIM_INFINITY else 1 << 30, python=sys.version_info[:3], shoal=shoal)


class _Timex(ctypes.Structure):
    """The beginning of struct timex; the kernel fills in the rest. Source: linux/timex.h."""

    _fields_ = (("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
                ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
                ("rest", ctypes.c_char * 256))


def clock_synchronised() -> bool | None:
    """Whether something keeps this host's clock right; None where the kernel does not say."""
    timex = _Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
        return None
    return not timex.status & _STA_UNSYNC


def daemon(client: Client) -> Daemon:
    """Asked with a deadline of its own: a daemon that hangs is a finding."""
    address = client.host
    path = Path(address.removeprefix("unix://"))
    if not address.startswith("unix://") or not path.exists():
        return Daemon(address=address)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DAEMON_TIMEOUT_S)
    try:
        told = client.call("GET", "/info")
    except (ShoalError, OSError):
        return Daemon(address=address, socket=True)
    finally:
        socket.setdefaulttimeout(before)
    return Daemon(address, socket=True, answer=str(told.get("ServerVersion", "")),
                  cgroup_driver=str(told.get("CgroupDriver", "")))


def disk(data_root: Path, root: bool) -> Disk:
    place = data_root
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        space = os.statvfs(place)
    except OSError:
        return Disk(path=str(data_root), writable=False)
    writable = os.access(place, os.W_OK) or not root
    return Disk(
        path=str(data_root), filesystem=_filesystem(place), size_bytes=space.f_blocks * space.f_frsize,
        free_bytes=space.f_bavail * space.f_frsize, inodes=space.f_files, free_inodes=space.f_favail,
        writable=writable, overlay=probes.overlay(place) if root and writable else None)


def _filesystem(place: Path) -> str:
    """The type of what is mounted last at the nearest mount point."""
    resolved, best, kind = place.resolve(), "", ""
    for line in text(Path("/proc/self/mounts")).splitlines():
        _, mount, found, *_ = line.split()
        mount = mount.replace("\\040", " ")
        if len(mount) >= len(best) and resolved.is_relative_to(mount):
            best, kind = mount, found
    return kind
