"""The figures of GET /info: what this host is, and what is on it just now."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

from shoal.api.ids import new_container_id
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.logs.drivers import DRIVERS
from shoal.engine.containers.nouns import Status
from shoal.engine.containers.oci.host import has_apparmor
from shoal.engine.images.distribution.endpoints import LOOPBACK, NO_RULES, RegistryRules
from shoal.engine.images.images import Images

_UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")
_SWAP_V1 = Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")


def unified_cgroups() -> bool:
    """Whether this host has cgroup v2 alone."""
    return _UNIFIED.exists()


@cache
def _host_constants() -> dict[str, Any]:
    from importlib.metadata import version

    kernel = os.uname()
    return {
        "Warnings": _warnings(),
        "KernelVersion": kernel.release,
        "OSType": "linux",
        "Architecture": kernel.machine,
        "OperatingSystem": _os_release().get("PRETTY_NAME", "Linux"),
        "OSVersion": _os_release().get("VERSION_ID", ""),
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "ServerVersion": version("shoal"),
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"],
            "Authorization": [],
            "Log": list(DRIVERS),
        },
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if unified_cgroups() else "1",
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registry_config(NO_RULES),
        "ExperimentalBuild": True,
        "Isolation": "",
        "InitBinary": "catatonit",
        "SecurityOptions": [*(["name=apparmor"] if has_apparmor() else []), "name=seccomp,profile=builtin",
                            *(["name=cgroupns"] if unified_cgroups() else [])],
        "ProductLicense": "",
        **_limits_that_work(),
        "IPv4Forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1",
        "Debug": False,
        "LiveRestoreEnabled": True,
        "HttpProxy": os.environ.get("HTTP_PROXY", ""),
        "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
        "NoProxy": os.environ.get("NO_PROXY", ""),
        "GenericResources": [],
        "Labels": [],
        "DefaultRuntime": "runc",
        "Runtimes": {"runc": {"path": "runc"}},
    }


def host_figures() -> dict[str, Any]:
    return {
        **_host_constants(),
        "Name": os.uname().nodename,
        "NFd": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "NGoroutines": 0,
        "NEventsListener": 0,
        "ID": "",
        "Containers": 0,
        "ContainersRunning": 0,
        "ContainersPaused": 0,
        "ContainersStopped": 0,
        "Images": 0,
    }


def _controllers() -> set[str]:
    if unified_cgroups():
        return set(_UNIFIED.read_text().split())
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return {name for line in lines for name in line.split(":")[1].split(",") if name}


def _limits_that_work() -> dict[str, bool]:
    known = _controllers()
    return {
        "MemoryLimit": "memory" in known,
        "SwapLimit": "memory" in known and (unified_cgroups() or _SWAP_V1.exists()),
        "CpuCfsPeriod": "cpu" in known,
        "CpuCfsQuota": "cpu" in known,
        "CPUShares": "cpu" in known,
        "CPUSet": "cpuset" in known,
        "PidsLimit": "pids" in known,
        "OomKillDisable": "memory" in known and not unified_cgroups(),
    }


def _warnings() -> list[str]:
    """In the words of `docker info`."""
    texts = {"MemoryLimit": "No memory limit support", "SwapLimit": "No swap limit support",
             "CpuCfsQuota": "No cpu cfs quota support", "CPUSet": "No cpuset support",
             "PidsLimit": "No pids limit support"}
    return [f"WARNING: {text}" for key, text in texts.items() if not _limits_that_work()[key]]


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


class EngineInfo:
    """An `InfoProvider`: what the engine knows."""

    def __init__(self, engine: Engine, images: Images, data_root: Path, storage: str, labels: dict[str, str],
                 registries: RegistryRules = NO_RULES) -> None:
        self._engine = engine
        self._images = images
        self._id = engine_id(data_root)
        self._storage = {"Driver": storage, "DriverStatus": [
            ["Backing Filesystem", _file_system(data_root)], ["Supports d_type", "true"]]}
        self._labels = [f"{key}={value}" for key, value in labels.items()]
        self._registries = registry_config(registries)

    def __call__(self) -> dict[str, Any]:
        states = [container.state.status for container in self._engine.all()]
        running = sum(state in (Status.RUNNING, Status.RESTARTING) for state in states)
        paused = states.count(Status.PAUSED)
        name, path = self._engine.runtime
        return {
            "ID": self._id,
            **self._storage,
            "Containers": len(states),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": len(states) - running - paused,
            "Images": len(self._images.all()),
            "NEventsListener": self._engine.events.listeners,
            "Labels": self._labels,
            "Warnings": [*_host_constants()["Warnings"], *(f"WARNING: {text}" for text in self._engine.warnings)],
            "CgroupDriver": self._engine.cgroup_driver,
            "Plugins": {**_host_constants()["Plugins"], "Volume": self._engine.volumes.drivers.names()},
            "RegistryConfig": self._registries,
            "DefaultRuntime": name,
            "Runtimes": {name: {"path": path}},
        }


def registry_config(rules: RegistryRules) -> dict[str, Any]:
    """What the settings say of registries, as the API has it. Pure."""
    mirrors = [url.rstrip("/") + "/" for url in rules.mirrors]
    indexes = {"docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}}
    indexes |= {name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
                for name in rules.insecure if "/" not in name}
    networks = [*map(str, LOOPBACK), *(name for name in rules.insecure if "/" in name)]
    return {"IndexConfigs": indexes, "InsecureRegistryCIDRs": networks, "Mirrors": mirrors}


def _file_system(path: Path) -> str:
    """The type of the one that holds the path."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    lines = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return next((words[words.index("-") + 1] for words in lines if words[2] == wanted), "unknown")


def engine_id(data_root: Path) -> str:
    """Of this host, for life; made at the first start."""
    path = data_root / "engine-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        made = new_container_id()[:32]
        fresh = path.with_suffix(".new")
        fresh.write_text(made + "\n")
        fresh.replace(path)
        return made
