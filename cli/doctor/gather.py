"""Looks at the host: from files of /proc and /sys, and a few programs. Blocking; changes nothing.

Nothing here judges. What cannot be read is left empty in the facts.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shoal.api.errors import ShoalError
from shoal.cli.client import Client
from shoal.cli.doctor import firewall, probes
from shoal.cli.doctor.checks.kernel import FEATURES
from shoal.cli.doctor.checks.network import PORTS
from shoal.cli.doctor.facts import (
    AVAILABLE,
    BUILT_IN,
    LOADED,
    CgroupHost,
    Chain,
    Daemon,
    Disk,
    Facts,
    Kernel,
    Link,
    Port,
    Process,
    Program,
    Trial,
)

PROGRAM_TIMEOUT_S = 5
DAEMON_TIMEOUT_S = 3
VERSIONED = ("conmon", "catatonit", "runc", "crun")
PROGRAMS = (*VERSIONED, "nsenter", "ip")
SYSCTLS = (
    "net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.bridge.bridge-nf-call-iptables",
    "fs.inotify.max_user_instances", "fs.inotify.max_user_watches",
)
SECCOMP_PROFILE = Path("/usr/share/containers/seccomp.json")
_OWN_LINKS = ("lo", "shoal", "br-", "docker", "veth", "wg", "virbr", "cni", "flannel", "vxlan")
_STA_UNSYNC = 0x40
_LISTEN = "0A"
_CAPABILITIES = {  # number → name, of those that checks ask for
    0: "CAP_CHOWN", 1: "CAP_DAC_OVERRIDE", 5: "CAP_KILL", 6: "CAP_SETGID", 7: "CAP_SETUID", 12: "CAP_NET_ADMIN",
    13: "CAP_NET_RAW", 18: "CAP_SYS_CHROOT", 19: "CAP_SYS_PTRACE", 21: "CAP_SYS_ADMIN", 24: "CAP_SYS_RESOURCE",
    27: "CAP_MKNOD", 29: "CAP_AUDIT_WRITE", 31: "CAP_SETFCAP",
}


def gather(data_root: Path, client: Client) -> Facts:
    """Everything that can be known by this user."""
    root = os.geteuid() == 0
    programs = {name: _program(name) for name in PROGRAMS}
    found, legacy = _firewall(), _text(Path("/proc/net/ip_tables_names")).split()
    return Facts(
        kernel=_kernel(probes.network() if root else {}), cgroups=_cgroups(), programs=programs,
        runtimes=_runtimes(programs) if root else (), libnftables=_loads("libnftables.so.1"),
        seccomp_profile=SECCOMP_PROFILE.exists(), process=_process(root), ports=tuple(_ports()),
        clock_synchronised=_synchronised(), links=tuple(_links()), chains=found, legacy_iptables=tuple(legacy),
        sysctls={name: text for name in SYSCTLS if (text := _sysctl(name))}, disk=_disk(data_root, root),
        daemon=_daemon(client))


def machine() -> dict[str, Any]:
    """Which host this is, for a report that is sent to somebody."""
    return {"hostname": platform.node(), "kernel": platform.release(), "architecture": platform.machine()}


# --- the kernel ---


def _kernel(tried: Mapping[str, str]) -> Kernel:
    release = os.uname().release
    folder = Path("/lib/modules", release)
    config = _text(Path(f"/boot/config-{release}")) or _unpacked(Path("/proc/config.gz"))
    listed, built_in = _text(folder / "modules.dep"), _text(folder / "modules.builtin")
    modules = {}
    for name in {name for feature in FEATURES for name in feature.modules}:
        if Path("/sys/module", name).exists():
            modules[name] = LOADED
        elif f"/{name}.ko" in built_in:
            modules[name] = BUILT_IN
        elif f"/{name}.ko" in listed:
            modules[name] = AVAILABLE
    return Kernel(
        release=release, tried=tried, modules=modules, modules_known=bool(listed),
        config=dict(re.findall(r"^(CONFIG_\w+)=([ym])$", config, re.MULTILINE)),
        filesystems=frozenset(_text(Path("/proc/filesystems")).replace("nodev", "").split()),
        namespaces=frozenset(os.listdir("/proc/self/ns")),  # noqa: PTH208 (names are all that is wanted)
        seccomp_actions=frozenset(_text(Path("/proc/sys/kernel/seccomp/actions_avail")).split()))


def _cgroups() -> CgroupHost:
    top = Path("/sys/fs/cgroup")
    kinds = {}
    writable = True
    for line in _text(Path("/proc/self/mounts")).splitlines():
        kind, options = line.split()[2:4]
        if kind in ("cgroup", "cgroup2"):
            kinds[kind] = True
            writable = writable and "ro" not in options.split(",")
    if "cgroup" in kinds and "cgroup2" in kinds:
        mode = "hybrid"
    else:
        mode = "v1" if "cgroup" in kinds else "v2" if kinds else ""
    init = _text(Path("/proc/1/comm")).strip()
    return CgroupHost(
        mode=mode, controllers=_controllers(mode, top), writable=writable, counts_swap=_counts_swap(mode, top),
        real_root=not (top / "cgroup.type").exists(), init=init,
        systemd=init == "systemd" and Path("/run/systemd/system").is_dir(),
        dbus=Path("/run/dbus/system_bus_socket").exists())


def _controllers(mode: str, top: Path) -> frozenset[str]:
    if mode == "v2":
        return frozenset(_text(top / "cgroup.controllers").split())
    lines = [line.split(":") for line in _text(Path("/proc/self/cgroup")).splitlines()]
    return frozenset(name for line in lines for name in line[1].split(",") if name)


def _counts_swap(mode: str, top: Path) -> bool:
    if mode != "v2":
        return (top / "memory/memory.memsw.limit_in_bytes").exists()
    counting = list(top.glob("*/memory.max"))
    return not counting or counting[0].with_name("memory.swap.max").exists()


# --- programs and this process ---


def _program(name: str) -> Program:
    path = shutil.which(name)
    if path is None:
        return Program()
    if name not in VERSIONED:
        return Program(path)
    version = re.search(r"\d+(?:\.\d+)+", _output([path, "--version"]))
    return Program(path, version[0] if version else "")


def _runtimes(programs: Mapping[str, Program]) -> tuple[Trial, ...]:
    from shoal.daemon.trials import try_runtimes

    return tuple(Trial(name, programs[name].version, driver, refusal)
                 for name, _, driver, refusal in try_runtimes())


def _process(root: bool) -> Process:
    from importlib.metadata import PackageNotFoundError, version

    try:
        shoal = version("shoal")
    except PackageNotFoundError:
        shoal = ""
    bits = re.search(r"^CapEff:\s*([0-9a-f]+)$", _text(Path("/proc/self/status")), re.MULTILINE)
    held = int(bits[1], 16) if bits else 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return Process(
        root=root, capabilities=frozenset(name for number, name in _CAPABILITIES.items() if held >> number & 1),
        open_files=hard if hard != resource.RLIM_INFINITY else 1 << 30, python=sys.version_info[:3], shoal=shoal)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _daemon(client: Client) -> Daemon:
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


# --- the network ---


def _is_shoal(command: str) -> bool:
    """Whether a command line is that of a daemon or manager of ours, wherever its files lie."""
    words = command.split()[:4]
    return any(Path(word).name == "shoald" for word in words) or bool({"shoal.daemon", "shoal.manager"} & set(words))


def _ports() -> Iterable[Port]:
    holders: dict[str, str] | None = None
    for number, protocol in PORTS:
        for inode in _sockets(number, protocol):
            holders = _holders() if holders is None else holders
            holder = holders.get(inode, "")
            yield Port(number, protocol, holder, ours=_is_shoal(holder))
            break


def _sockets(number: int, protocol: str) -> Iterable[str]:
    """The inodes of the sockets that have this port, listening where it is TCP."""
    for version in ("", "6"):
        for line in _text(Path(f"/proc/net/{protocol}{version}")).splitlines()[1:]:
            words = line.split()
            if int(words[1].rpartition(":")[2], 16) == number and (protocol == "udp" or words[3] == _LISTEN):
                yield words[9]


def _holders() -> dict[str, str]:
    """Inode of a socket → the command line that has it open."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            names = [(folder / "fd" / name).readlink().name for name in os.listdir(folder / "fd")]  # noqa: PTH208
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        for name in names:
            if name.startswith("socket:["):
                found[name[8:-1]] = b" ".join(words[:4]).decode(errors="replace").strip() + f" ({folder.name})"
    return found


def _links() -> Iterable[Link]:
    """Those that may lead to other hosts: up, and not made by a container engine."""
    for folder in sorted(Path("/sys/class/net").iterdir()):
        if folder.name.startswith(_OWN_LINKS) or (folder / "master").exists():
            continue  # what stands in a bridge or a bond is not what hosts reach each other over
        if _text(folder / "operstate").strip() not in ("up", "unknown"):
            continue
        if (mtu := _text(folder / "mtu").strip()).isdecimal():
            yield Link(folder.name, int(mtu))


def _firewall() -> tuple[Chain, ...] | None:
    if shutil.which("nft") is None or os.geteuid() != 0:
        return None
    try:
        return firewall.chains(json.loads(_output(["nft", "--json", "list", "ruleset"])))
    except json.JSONDecodeError:
        return None


class _Timex(ctypes.Structure):
    """The beginning of struct timex; the kernel fills in the rest. Source: linux/timex.h."""

    _fields_ = (("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
                ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
                ("rest", ctypes.c_char * 256))


def _synchronised() -> bool | None:
    """Whether something keeps this host's clock right; None where the kernel does not say."""
    timex = _Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
        return None
    return not timex.status & _STA_UNSYNC


# --- the disk ---


def _disk(data_root: Path, root: bool) -> Disk:
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
    for line in _text(Path("/proc/self/mounts")).splitlines():
        _, mount, found, *_ = line.split()
        mount = mount.replace("\\040", " ")
        if len(mount) >= len(best) and resolved.is_relative_to(mount):
            best, kind = mount, found
    return kind


# --- reading ---


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _unpacked(path: Path) -> str:
    try:
        return gzip.decompress(path.read_bytes()).decode(errors="replace")
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    return _text(Path("/proc/sys", name.replace(".", "/"))).strip()


def _output(command: list[str]) -> str:
    """What a program says on its standard output; "" where it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True, errors="replace", timeout=PROGRAM_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
