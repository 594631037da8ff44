"""One host, put together: locks, images, root file systems, networks, engine, HTTP.

This is the only place that knows all of them.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from aiohttp import web

from shoal.api.membership import SwarmEvent
from shoal.daemon.http.app import build_app, serve
from shoal.daemon.http.hooks import Hooks
from shoal.daemon.http.info import EngineInfo
from shoal.daemon.listeners import TcpAddress, UnixAddress, addresses, listen, tls_context
from shoal.daemon.locks import RootLock
from shoal.daemon.netevents import Announced
from shoal.daemon.notify import Notifier
from shoal.daemon.settings import Settings
from shoal.daemon.swarm.containers import EngineContainers
from shoal.daemon.swarm.routes import add_routes
from shoal.daemon.swarm.wiring import join_parts
from shoal.engine.build.builder import Builder, pulled_by
from shoal.engine.containers.archive import Archives
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.oci.systemd import is_going_down
from shoal.engine.images.distribution.puller import Puller
from shoal.engine.images.distribution.pusher import Pusher
from shoal.engine.images.images import Images
from shoal.engine.storage.choose import choose
from shoal.engine.storage.rootfs import RootFSStore
from shoal.engine.volumes.discovery import Discovery
from shoal.overlay.networks import Networks

log = logging.getLogger("shoal.daemon")

SPARE_S = 10.0
"""What everything else at the end takes, at most."""


class Daemon:
    """Started once, stopped once. What runs in containers outlives it, but not the host."""

    def __init__(self, settings: Settings, systemd: Notifier) -> None:
        self.settings = settings
        self._systemd = systemd
        self.data_root = Path(settings.data_root)
        self.run_root = Path(settings.run_root)
        self.hooks = Hooks()
        self._closing = AsyncExitStack()

    async def start(self) -> None:
        """Take the locks, find again what runs, then serve. Raises ShoalError; then `stop` cleans up."""
        self._where, self._tls = addresses(self.settings), tls_context(self.settings)
        self._lock_roots()
        driver = choose(self.data_root, self.settings.storage_driver)
        self.images = Images(self.data_root / "images", driver)
        self.puller = Puller(self.images, self.settings.registries, downloads=self.settings.max_concurrent_downloads)
        rootfs = RootFSStore(driver, self.images.layers_of)
        self.networks = Networks(self.data_root, self.run_root)
        self._closing.push_async_callback(self.networks.stop)
        await self.networks.start()
        await self._start_engine(rootfs)
        builder = Builder(self.data_root / "build", self.engine, self.images, driver, pulled_by(self.puller),
                          cache_bytes=self.settings.build_cache_bytes)
        self.images.users = lambda image_id: [*self.engine.image_users(image_id), *builder.image_users(image_id)]
        await builder.open()
        await self._serve(build_app(
            self.engine, self.images, self.networks, Archives(self.engine, rootfs), builder,
            data_root=self.data_root, driver=driver.name, hooks=self.hooks,
            puller=self.puller,
            registries=self.settings.registries,
            pusher=Pusher(self.images, self.settings.registries, uploads=self.settings.max_concurrent_uploads),
            info=[EngineInfo(self.engine, self.images, self.data_root, driver.name, self.settings.engine_labels,
                             self.settings.registries)],
            extra_routes=[lambda app: add_routes(app, self.swarm)]))
        await self._start_swarm()
        gc.collect()
        gc.freeze()  # what is there by now stays: collections need not look at it

    async def stop(self) -> None:
        """Stop serving and let go of everything. Containers live on, unless the host goes down."""
        await self._closing.aclose()
        log.info("event=stopped")

    async def _stop_engine(self) -> None:
        if await asyncio.to_thread(is_going_down):
            self._systemd.notify(f"EXTEND_TIMEOUT_USEC={round((self.engine.shutdown_s + SPARE_S) * 1e6)}")
            await self.engine.shut_down()
        await self.engine.close()

    def _lock_roots(self) -> None:
        for root in (self.data_root, self.run_root):
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._closing.callback(RootLock(root).release)

    async def _start_engine(self, rootfs: RootFSStore) -> None:
        """The engine and the swarm's part know each other; containers are found again before anything is asked."""
        settings = self.settings
        attaching, self.swarm = join_parts(
            data_root=self.data_root, run_root=self.run_root, networks=self.networks,
            engine=self._swarm_containers, labels=settings.engine_labels,
            volume_drivers=lambda: self.engine.volumes.drivers.names(), hooks=self.hooks,
            publish=self._publish_of_swarm, puller=self.puller)
        self.attaching = attaching
        self._closing.push_async_callback(attaching.close)
        announced = Announced(attaching, lambda *event: self.engine.events.publish(*event), self._driver_of)
        self.engine = Engine(data_root=self.data_root, run_root=self.run_root, images=self.images, rootfs=rootfs,
                             networking=announced, cgroup_parent=settings.cgroup_parent,
                             cgroup_driver=settings.cgroup_driver,
                             runtime=settings.default_runtime, exec_spawner=settings.exec_spawner,
                             plugins=Discovery(settings.plugin_folders),
                             plugin_timeout_s=settings.plugin_timeout_s)
        self.images.users = self.engine.image_users
        self.images.emit = partial(self.engine.events.publish, "image")
        await self.engine.open()
        self._closing.push_async_callback(self._stop_engine)
        await self.networks.reconcile(container.id for container in self.engine.all())

    def _swarm_containers(self) -> EngineContainers:
        assert self.swarm.peers is not None
        return EngineContainers(self.engine, self.swarm.peers.bring)

    def _publish_of_swarm(self, event: SwarmEvent) -> None:
        self.engine.events.publish(event.type, event.action, event.id, event.attributes, scope="swarm")

    def _driver_of(self, network_id: str) -> str:
        local = (network.driver for network in self.networks.networks() if network.id == network_id)
        return next(local, "overlay")

    async def _start_swarm(self) -> None:
        self._closing.push_async_callback(self.swarm.stop)
        await self.swarm.start()
        self.attaching.reconcile()

    async def _serve(self, app: web.Application) -> None:
        serving = serve(app)
        self._closing.push_async_callback(serving.stop)
        await serving.start()
        for address in self._where:
            for listener in listen(address):
                self._closing.callback(listener.close)
                await serving.listen(listener, self._tls if isinstance(address, TcpAddress) else None)
            if isinstance(address, UnixAddress):
                self._closing.callback(address.path.unlink, missing_ok=True)
            log.info("event=serving address=%s", address)
