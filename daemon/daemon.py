"""One host, put together: locks, images, root file systems, networks, engine, HTTP.

This is the only place that knows all of them.
"""

from __future__ import annotations

import gc
import grp
import logging
import os
import socket
import stat
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

from aiohttp import web

from shoal.api.errors import Conflict
from shoal.daemon.http.app import build_app, serve
from shoal.daemon.http.hooks import Hooks
from shoal.daemon.http.info import EngineInfo
from shoal.daemon.locks import RootLock
from shoal.daemon.netevents import Announced
from shoal.daemon.settings import Settings
from shoal.daemon.swarm.containers import EngineContainers
from shoal.daemon.swarm.routes import add_routes
from shoal.daemon.swarm.wiring import join_parts
from shoal.engine.containers.archive import Archives
from shoal.engine.containers.engine import Engine
from shoal.engine.images.images import Images
from shoal.engine.storage.choose import choose
from shoal.engine.storage.rootfs import RootFSStore
from shoal.engine.volumes.discovery import Discovery
from shoal.overlay.networks import Networks

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
        self._lock_roots()
        driver = choose(self.data_root, self.settings.storage_driver)
        self.images = Images(self.data_root / "images", driver)
        rootfs = RootFSStore(driver, self.images.layers_of)
        self.networks = Networks(self.data_root, self.run_root)
        self._closing.push_async_callback(self.networks.stop)
        await self.networks.start()
        await self._start_engine(rootfs)
        await self._serve(build_app(
            self.engine, self.images, self.networks, Archives(self.engine, rootfs),
            data_root=self.data_root, driver=driver.name, hooks=self.hooks,
            info=[EngineInfo(self.engine, self.images, self.data_root, driver.name, self.settings.engine_labels)],
            extra_routes=[lambda app: add_routes(app, self.swarm)]))
        await self._start_swarm()
        gc.collect()
        gc.freeze()  # what is there by now stays: collections need not look at it

    async def stop(self) -> None:
        """Stop serving and let go of everything; containers live on."""
        await self._closing.aclose()
        log.info("event=stopped")

    def _lock_roots(self) -> None:
        for root in (self.data_root, self.run_root):
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._closing.callback(RootLock(root).release)

    async def _start_engine(self, rootfs: RootFSStore) -> None:
        """The engine and the swarm's part know each other; containers are found again before anything is asked."""
        settings = self.settings
        attaching, self.swarm = join_parts(
            data_root=self.data_root, run_root=self.run_root, networks=self.networks,
            engine=lambda: EngineContainers(self.engine), labels=settings.engine_labels, hooks=self.hooks)
        self.attaching = attaching
        self._closing.push_async_callback(attaching.close)
        announced = Announced(attaching, lambda *event: self.engine.events.publish(*event), self._driver_of)
        self.engine = Engine(data_root=self.data_root, run_root=self.run_root, images=self.images, rootfs=rootfs,
                             networking=announced, cgroup_parent=settings.cgroup_parent,
                             cgroup_driver=settings.cgroup_driver,
                             runtime=settings.default_runtime, plugins=Discovery(settings.plugin_folders),
                             plugin_timeout_s=settings.plugin_timeout_s)
        self.images.users = self.engine.image_users
        self.images.emit = partial(self.engine.events.publish, "image")
        await self.engine.open()
        self._closing.push_async_callback(self.engine.close)
        await self.networks.reconcile(container.id for container in self.engine.all())

    def _driver_of(self, network_id: str) -> str:
        local = (network.driver for network in self.networks.networks() if network.id == network_id)
        return next(local, "overlay")

    async def _start_swarm(self) -> None:
        self._closing.push_async_callback(self.swarm.stop)
        await self.swarm.start()
        self.attaching.reconcile()

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
