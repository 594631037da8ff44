"""/_ping, /version, /info, and the answers of what this engine does not do."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from shoal.api.errors import NotImplementedHere
from shoal.daemon.http.hooks import Hooks
from shoal.daemon.http.info import host_figures
from shoal.daemon.http.versions import API_VERSION, MIN_API_VERSION, version_of
from shoal.daemon.http.wire import reply
from shoal.engine.images.archive import ARCHITECTURES

InfoProvider = Callable[[], dict[str, Any]]
"""Figures for /info, asked for at each request; later providers win."""

UNSUPPORTED = (
    ("POST", "/commit"),
)


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
        figures = {**host_figures(), "DockerRootDir": str(self._data_root), "SystemTime": _now()}
        for provider in self._info:
            figures.update(provider())
        figures["Swarm"] = await self._hooks.swarm_info()
        if version_of(request) < (1, 48):
            figures.pop("FirewallBackend", None)
        return reply(figures)

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
        "Experimental": True,
        "GitCommit": "",
        "GoVersion": f"none (Python {platform.python_version()})",
        "BuildTime": "",
    }
    number = version("shoal")
    details = {key: str(value).lower() if isinstance(value, bool) else value for key, value in build.items()}
    return {
        "Platform": {"Name": "Shoal"},
        "Version": number,
        "Components": [{"Name": "Engine", "Version": number, "Details": details}],
        **build,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
