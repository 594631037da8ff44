"""Looks at the host: from files of /proc and /sys, and a few programs. Blocking; changes nothing.

Nothing here judges. What cannot be read is left empty in the facts.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from shoal.cli.client import Client
from shoal.cli.doctor import probes
from shoal.cli.doctor.facts import Facts
from shoal.cli.doctor.gather.kernel import cgroups, kernel
from shoal.cli.doctor.gather.machine import clock_synchronised, daemon, disk, process
from shoal.cli.doctor.gather.network import chains, legacy_iptables, links, ports, vxlans
from shoal.cli.doctor.gather.openfiles import OpenFiles
from shoal.cli.doctor.gather.programs import SECCOMP_PROFILE, loads, programs, runtimes
from shoal.cli.doctor.gather.reading import sysctl

SYSCTLS = (
    "net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.bridge.bridge-nf-call-iptables",
    "fs.inotify.max_user_instances", "fs.inotify.max_user_watches",
)


def gather(data_root: Path, client: Client) -> Facts:
    """Everything that can be known by this user."""
    root = os.geteuid() == 0
    installed, opened = programs(), OpenFiles.of_all_processes()
    return Facts(
        kernel=kernel(probes.network() if root else {}), cgroups=cgroups(), programs=installed,
        runtimes=runtimes(installed) if root else (), libnftables=loads("libnftables.so.1"),
        seccomp_profile=SECCOMP_PROFILE.exists(), process=process(root), ports=tuple(ports(opened)), vxlans=vxlans(),
        clock_synchronised=clock_synchronised(), links=tuple(links()), chains=chains() if root else None,
        legacy_iptables=legacy_iptables(), sysctls={name: text for name in SYSCTLS if (text := sysctl(name))},
        inotify=opened.inotify, disk=disk(data_root, root), daemon=daemon(client))


def machine() -> dict[str, Any]:
    """Which host this is, for a report that is sent to somebody."""
    return {"hostname": platform.node(), "kernel": platform.release(), "architecture": platform.machine()}
