"""One host, put together: locks, images, root file systems, networks, engine, HTTP.

This is the only place that knows all of them. The cluster's part attaches here as
well: see `Daemon._attach_swarm`.
"""

from __future__ import annotations

import grp
import logging
import os
import socket
import stat
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from aiohttp import web

from shoal.api.errors import Conflict
from shoal.daemon.http.app import build_app, serve
from shoal.daemon.http.hooks import Hooks
from shoal.daemon.locks import RootLock
from shoal.daemon.settings import Settings
from shoal.engine.images.images import Images
from shoal.engine.storage.overlay2 import Overlay2
from shoal.engine.storage.rootfs import RootFSStore

log = logging.getLogger("shoal.daemon")

SOCKET_MODE = 0o660
SOCKET_GROUP = "docker"


class Daemon:
    """Started once, stopped once. What runs in containers outlives it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.data_root = Path(settings.data_root)
        self.run_root = Path(settings.run_root)
        self.hooks = Hooks()
        self._closing = AsyncExitStack()

    async def start(self) -> None:
        """Take the locks, find again what runs, then serve. Raises ShoalError; then `stop` cleans up."""
        for root in (self.data_root, self.run_root):
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
            lock = RootLock(root)
            self._closing.callback(lock.release)
        driver = Overlay2(self.data_root / "overlay2")
        self.images = Images(self.data_root / "images", driver)
        self.rootfs = RootFSStore(driver, self.images.layers_of)
        app = build_app(self.images, data_root=self.data_root, hooks=self.hooks)
        await self._serve(app)

    async def stop(self) -> None:
        """Stop serving and let go of everything; containers live on."""
        await self._closing.aclose()
        log.info("event=stopped")

    async def _serve(self, app: web.Application) -> None:
        runner = await serve(app)
        self._closing.push_async_callback(runner.cleanup)
        for path in self.settings.sockets:
            listener = _listen(path)
            self._closing.callback(path.unlink, missing_ok=True)
            await web.SockSite(runner, listener).start()
            log.info("event=serving address=unix://%s", path)


def _listen(path: Path) -> socket.socket:
    """A listening socket that root and the docker group may use. Raises Conflict where one is served."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise Conflict(f"{path} is in the way: it is no socket")
        if _answers(path):
            raise Conflict(f"{path} is served by another process")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    with suppress(KeyError):  # no such group here: root alone
        os.chown(path, 0, grp.getgrnam(SOCKET_GROUP).gr_gid)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
