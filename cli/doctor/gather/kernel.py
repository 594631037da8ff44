"""The kernel's parts, and its control groups."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from shoal.cli.doctor.checks.kernel import FEATURES
from shoal.cli.doctor.facts import AVAILABLE, BUILT_IN, LOADED, CgroupHost, Kernel
from shoal.cli.doctor.gather.reading import text, unpacked


def kernel(tried: Mapping[str, str]) -> Kernel:
    release = os.uname().release
    folder = Path("/lib/modules", release)
    config = text(Path(f"/boot/config-{release}")) or unpacked(Path("/proc/config.gz"))
    listed, built_in = text(folder / "modules.dep"), text(folder / "modules.builtin")
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
        filesystems=frozenset(text(Path("/proc/filesystems")).replace("nodev", "").split()),
        namespaces=frozenset(entry.name for entry in Path("/proc/self/ns").iterdir()),
        seccomp_actions=frozenset(text(Path("/proc/sys/kernel/seccomp/actions_avail")).split()))


def cgroups() -> CgroupHost:
    top = Path("/sys/fs/cgroup")
    kinds = set()
    writable = True
    for line in text(Path("/proc/self/mounts")).splitlines():
        kind, options = line.split()[2:4]
        if kind in ("cgroup", "cgroup2"):
            kinds.add(kind)
            writable = writable and "ro" not in options.split(",")
    mode = "hybrid" if len(kinds) == 2 else {"cgroup": "v1", "cgroup2": "v2"}[kinds.pop()] if kinds else ""
    init = text(Path("/proc/1/comm")).strip()
    return CgroupHost(
        mode=mode, controllers=_controllers(mode, top), writable=writable, counts_swap=_counts_swap(mode, top),
        real_root=not (top / "cgroup.type").exists(), init=init,
        systemd=init == "systemd" and Path("/run/systemd/system").is_dir(),
        dbus=Path("/run/dbus/system_bus_socket").exists())


def _controllers(mode: str, top: Path) -> frozenset[str]:
    if mode == "v2":
        return frozenset(text(top / "cgroup.controllers").split())
    lines = [line.split(":") for line in text(Path("/proc/self/cgroup")).splitlines()]
    return frozenset(name for line in lines for name in line[1].split(",") if name)


def _counts_swap(mode: str, top: Path) -> bool:
    if mode != "v2":
        return (top / "memory/memory.memsw.limit_in_bytes").exists()
    counting = list(top.glob("*/memory.max"))
    return not counting or counting[0].with_name("memory.swap.max").exists()
