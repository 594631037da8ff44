"""/_ping, /version, /info, /auth, and the answers of what this engine does not do."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument, NotImplementedHere
from shoal.daemon.http.hooks import Hooks
from shoal.daemon.http.versions import API_VERSION, MIN_API_VERSION, version_of
from shoal.daemon.http.wire import Wire, body, reply
from shoal.engine.images.archive import ARCHITECTURES

InfoProvider = Callable[[], dict[str, Any]]
"""Figures for /info, asked for at each request; later providers win."""

UNSUPPORTED = (
    ("POST", "/build"),
    ("POST", "/build/prune"),
    ("POST", "/session"),
    ("POST", "/commit"),
    ("GET", "/distribution/{name:.+}/json"),
    ("POST", "/plugins/{tail:.*}"),
    ("DELETE", "/plugins/{tail:.*}"),
)


class Auth(Wire, frozen=True):
    username: str = ""
    password: str = ""
    serveraddress: str = ""


class SystemRoutes:
    def __init__(self, hooks: Hooks, info: Sequence[InfoProvider], data_root: Path) -> None:
        self._hooks = hooks
        self._info = info
        self._data_root = data_root
        self._version = msgspec.json.encode(_version())

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/_ping", self.ping)  # and HEAD
        router.add_get("/version", self.version, allow_head=False)
        router.add_get("/info", self.info, allow_head=False)
        router.add_post("/auth", self.auth)
        router.add_get("/plugins", self.no_plugins, allow_head=False)
        for method, path in UNSUPPORTED:
            router.add_route(method, path, self.unsupported)

    async def ping(self, request: web.Request) -> web.Response:
        return web.Response(
            body=b"OK",
            content_type="text/plain",
            charset="utf-8",
            headers={
                "Builder-Version": "1",
                "Swarm": self._hooks.ping_swarm(),
                "Cache-Control": "no-cache, no-store, must-revalidate",
                "Pragma": "no-cache",
            },
        )

    async def version(self, request: web.Request) -> web.Response:
        return web.Response(body=self._version, content_type="application/json")

    async def info(self, request: web.Request) -> web.Response:
        figures = {**_host(), "DockerRootDir": str(self._data_root), "SystemTime": _now()}
        for provider in self._info:
            figures.update(provider())
        figures["Swarm"] = await self._hooks.swarm_info()
        if version_of(request) < (1, 48):
            figures.pop("FirewallBackend", None)
        return reply(figures)

    async def auth(self, request: web.Request) -> web.Response:
        wanted = await body(request, Auth)
        if not wanted.username:
            raise InvalidArgument("no username was given")
        raise NotImplementedHere(f"this host cannot log in to {wanted.serveraddress or 'a registry'}")

    async def no_plugins(self, request: web.Request) -> web.Response:
        return reply([])

    async def unsupported(self, request: web.Request) -> web.Response:
        raise NotImplementedHere(f"{request.method} {request.path}: this engine does not do that")


def _version() -> dict[str, Any]:
    from importlib.metadata import version

    kernel = os.uname()
    build = {
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
        "Arch": ARCHITECTURES.get(kernel.machine, kernel.machine),
        "KernelVersion": kernel.release,
        "Experimental": False,
        "GitCommit": "",
        "GoVersion": f"none (Python {platform.python_version()})",
        "BuildTime": "",
    }
    number = version("shoal")
    details = {key: str(value).lower() if value is False else value for key, value in build.items()}
    return {
        "Platform": {"Name": "Shoal"},
        "Version": number,
        "Components": [{"Name": "Engine", "Version": number, "Details": details}],
        **build,
    }


@cache
def _host_constants() -> dict[str, Any]:
    from importlib.metadata import version

    kernel = os.uname()
    return {
        "KernelVersion": kernel.release,
        "OSType": "linux",
        "Architecture": kernel.machine,
        "OperatingSystem": _os_release().get("PRETTY_NAME", "Linux"),
        "OSVersion": _os_release().get("VERSION_ID", ""),
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "ServerVersion": version("shoal"),
        "Driver": "overlay2",
        "DriverStatus": [["Supports d_type", "true"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null", "overlay"],
            "Authorization": None,
            "Log": ["json-file"],
        },
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "1",
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": []},
        "ExperimentalBuild": False,
        "Isolation": "",
        "InitBinary": "catatonit",
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "ProductLicense": "",
        "Warnings": [],
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "OomKillDisable": False,
        "IPv4Forwarding": True,
        "Debug": False,
        "LiveRestoreEnabled": True,
        "HttpProxy": os.environ.get("HTTP_PROXY", ""),
        "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
        "NoProxy": os.environ.get("NO_PROXY", ""),
        "GenericResources": None,
        "Labels": [],
        "DefaultRuntime": "runc",
        "Runtimes": {"runc": {"path": "runc"}},
    }


def _host() -> dict[str, Any]:
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


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


