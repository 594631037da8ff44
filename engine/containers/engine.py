"""`Engine`: the containers of one host. A thin facade: each concern lives in a module by its noun.

A reference (`ref`) is an id, a name (with or without its slash) or an unambiguous
prefix of an id. What a reference does not mean raises NotFound, "No such container: <ref>".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from shoal.api.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.api.sandbox import EndpointRequest, Networking, Sandbox
from shoal.engine.containers import links, merge, shutdown
from shoal.engine.containers.connections import Connections
from shoal.engine.containers.creation import CPUS, Creation
from shoal.engine.containers.events import Events
from shoal.engine.containers.execs import Execs
from shoal.engine.containers.launcher import Launcher
from shoal.engine.containers.life import Life
from shoal.engine.containers.logs.logs import Logs
from shoal.engine.containers.mounts import Mounts
from shoal.engine.containers.nouns import (
    Container,
    ContainerConfig,
    Created,
    Exec,
    ExecConfig,
    HostConfig,
    Limits,
    LogQuery,
    Pruned,
    RestartPolicy,
    Status,
    Usage,
    WaitResult,
)
from shoal.engine.containers.oci import blockio, cgroupdriver, runtime, systemd
from shoal.engine.containers.oci.cgroups import Cgroups
from shoal.engine.containers.oci.monitor import RESIZE, Monitors
from shoal.engine.containers.prober import Prober
from shoal.engine.containers.recovery import recover
from shoal.engine.containers.removal import Removal
from shoal.engine.containers.spawner.entry import way_in
from shoal.engine.containers.stdio.client import STDERR, STDOUT
from shoal.engine.containers.stdio.client import Attachment as Attachment  # for those who use the engine
from shoal.engine.containers.stdio.loggedclient import LoggedClient
from shoal.engine.containers.table import Table
from shoal.engine.containers.waits import Waits
from shoal.engine.images.images import Images
from shoal.engine.images.removal import ImageUser
from shoal.engine.storage.rootfs import RootFSStore
from shoal.engine.volumes.discovery import Discovery
from shoal.engine.volumes.plugin import TIMEOUT_S
from shoal.engine.volumes.volumes import Volumes

T = TypeVar("T")

CLOSE_TIMEOUT_S = 5
"""What is under way when the engine closes may take so long to come to its end; the next start takes up the rest."""


class Engine:
    """See the module. Methods are called from one event loop.

    What changes a container runs to its end, also when the caller is cancelled (a client that went away).
    """

    def __init__(
        self,
        *,
        data_root: Path,
        run_root: Path,
        images: Images,
        rootfs: RootFSStore,
        networking: Networking,
        cgroup_parent: str = "",
        cgroup_driver: str = cgroupdriver.AUTO,
        runtime: str = "",
        exec_spawner: bool = True,
        plugins: Discovery | None = None,
        plugin_timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`runtime`: runc, crun or a path; empty: the first that works here. Raises InvalidArgument.

        `exec_spawner`: whether execs go through it, where it can do them; else through the runtime.
        """
        self.events = Events()
        self.volumes = Volumes(data_root / "volumes", run_root / "volumes", users=self._volume_users,
                               emit=self._emit_volume, discovery=plugins, plugin_timeout_s=plugin_timeout_s)
        self._table = Table(data_root / "containers")
        self._run_root = run_root
        self._images = images
        self._rootfs = rootfs
        self._networking = networking
        self._cgroups = Cgroups()
        self._drivers = cgroupdriver.candidates(
            cgroup_driver, cgroup_parent, version=self._cgroups.version, systemd=systemd.is_init())
        self._wanted_runtime = runtime
        self._exec_spawner = exec_spawner
        self._waits = Waits()
        self._logs = Logs(self._table)
        self.mounts = Mounts(self.volumes, rootfs, find=self._table.find, emit=self._emit_volume,
                             image_of=lambda reference: images.resolve(reference).id)
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- the engine's own life ---

    async def open(self) -> None:
        """Find again what runs, take in what ended meanwhile, start what its restart policy wants. Before any other.

        Raises ShoalError where no runtime works.
        """
        self._run_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not systemd.is_init():
            await asyncio.to_thread(self._cgroups.make_room)
        self._runtime, self._driver = await asyncio.to_thread(
            runtime.find, self._wanted_runtime, self._run_root, self._drivers)
        monitors = Monitors(self._run_root / "containers", self._runtime)
        self._launcher = Launcher(
            monitors=monitors, cgroups=self._cgroups, driver=self._driver, rootfs=self._rootfs,
            networking=self._networking, mounts=self.mounts, table=self._table)
        entry = way_in(self._run_root / "execs", self._runtime, self._cgroups, lambda one: self._life.monitor(one),
                       self._launcher.group, spawner=self._exec_spawner)
        self._execs = Execs(entry, self._table.get, self._emit,
                            lambda one: links.environment(self._launcher.links.known(one), one.name))
        self._prober = Prober(self._table, self._execs, self._emit, self._shell_of)
        self._life = Life(self._table, self._launcher, self._waits, emit=self._emit,
                          started=self._has_started, ended=self._has_ended, remove=self._remove_with_volumes)
        self._creation = Creation(
            self._table, self._launcher, self._images, self._rootfs, self.mounts, self.volumes, self._emit,
            check_parent=self._driver.check)
        self._removal = Removal(self._table, self._launcher, self._life, self._waits, self.volumes, self._emit)
        self._connections = Connections(self._table, self._networking, monitors.bundle, self._launcher.links)
        await recover(self._table, self._life, self._removal, self.mounts, self.volumes, self._rootfs, monitors)
        self._logs.start(self._life.monitors)

    @property
    def shutdown_s(self) -> float:
        """How long `shut_down` may take."""
        return shutdown.longest_s(self._running())

    async def shut_down(self) -> None:
        """Before `close`, where the host goes down: stop what runs. The next start of the engine starts it again."""
        await shutdown.shut_down(self._life, self._running())

    def _running(self) -> list[Container]:
        return [container for container in self._table.all() if container.state.running]

    async def close(self) -> None:
        """Let go; containers live on."""
        await self._logs.close()
        await self._prober.close()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        await self._life.close()
        await self._execs.close()
        await self.volumes.close()

    @property
    def runtime(self) -> tuple[str, str]:
        """The OCI runtime's name and path."""
        return self._runtime.name, self._runtime.path

    @property
    def warnings(self) -> list[str]:
        """What people should know of this engine."""
        return [*([self._runtime.warning] if self._runtime.warning else []),
                *blockio.lacking(self._cgroups.block_limits, self._cgroups.version)]

    @property
    def cgroup_version(self) -> int:
        return self._cgroups.version

    @property
    def cgroup_driver(self) -> str:
        return self._driver.name

    # --- reading ---

    def get(self, ref: str) -> Container:
        """As it is now. Raises NotFound, and InvalidArgument for an ambiguous prefix."""
        return self._table.find(ref)

    def all(self) -> list[Container]:
        """Every container, the newest first. The caller filters."""
        return self._table.all()

    def sandbox(self, ref: str) -> Sandbox | None:
        """Its network sandbox, while it has one."""
        return self._networking.sandbox(self._table.find(ref).id)

    def log_path(self, ref: str) -> Path:
        return self._logs.path(self._table.find(ref))

    async def written_bytes(self, ref: str) -> int:
        """Bytes that it wrote on top of its image."""
        return await self._rootfs.written_bytes(self._table.find(ref).id)

    def image_users(self, image_id: str) -> Iterable[ImageUser]:
        """The containers made from an image (for `Images.users`)."""
        return [ImageUser(one.id, one.state.running) for one in self._table.all()
                if one.image_id == image_id or any(point.image_id == image_id for point in one.mounts)]

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """`changed` hears the id of each container whose record changed. Returns what ends that."""
        return self._table.watch(changed)

    # --- changing ---

    async def create(self, name: str, config: ContainerConfig, host: HostConfig) -> Created:
        """Make a container; an empty `name` gets one made up.

        Raises NotFound ("No such image: …"), Conflict (the name is in use), InvalidArgument.
        """
        return await self._finish(self._creation.create(name, config, host))

    async def start(self, ref: str) -> None:
        """Start it. No error where it runs. Raises InvalidArgument where its program cannot be run (400), Conflict."""
        await self._finish(self._life.start(self._table.find(ref).id))

    async def stop(self, ref: str, timeout_s: int | None = None, signal: str = "") -> None:
        """Its stop signal, so long a wait (None: its own; negative: for ever), a kill. No error where it has stopped.

        Returns once it has stopped.
        """
        await self._finish(self._life.stop(self._table.find(ref).id, timeout_s, signal))

    async def restart(self, ref: str, timeout_s: int | None = None, signal: str = "") -> None:
        await self._finish(self._life.restart(self._table.find(ref).id, timeout_s, signal))

    async def kill(self, ref: str, signal: str = "KILL") -> None:
        """Raises Conflict where it does not run, InvalidArgument for an unknown signal."""
        await self._finish(self._life.kill(self._table.find(ref).id, signal or "KILL"))

    async def pause(self, ref: str) -> None:
        """Raises Conflict where it does not run or is paused already."""
        await self._finish(self._life.pause(self._table.find(ref).id, frozen=True))

    async def unpause(self, ref: str) -> None:
        await self._finish(self._life.pause(self._table.find(ref).id, frozen=False))

    async def rename(self, ref: str, name: str) -> None:
        container = self._table.find(ref)
        if not name.removeprefix("/"):
            raise InvalidArgument("Neither old nor new names may be empty")
        if name.removeprefix("/") == container.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        self._table.rename(container.id, name)
        self._emit(self._table.get(container.id), "rename", {"oldName": f"/{container.name}"})

    async def update(self, ref: str, limits: Limits, restart: RestartPolicy | None = None) -> list[str]:
        """Change limits (those that are not 0 or empty) and the restart policy. Returns warnings."""
        container = self._table.find(ref)
        limits, discarded = blockio.kept(limits, self._cgroups.block_limits)
        host = merge.updated(container.host, limits, restart)
        warnings = merge.check_limits(host.limits, cpus=CPUS, update=True)
        if container.state.running:
            await asyncio.to_thread(self._launcher.limit, container, host.limits)
        self._table.change(container.id, host=host)
        self._emit(container, "update", {})
        return [*warnings, *discarded]

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        """`force` kills it first; `volumes`: its anonymous volumes too. Raises Conflict where it runs."""
        container = self._table.find(ref)
        if container.state.status is Status.REMOVING:
            raise Conflict(f"removal of container {ref} is already in progress")
        await self._finish(self._removal.remove(container.id, force=force, volumes=volumes))

    def remove_link(self, ref: str, alias: str) -> None:
        """Take a link from the container that has it. Raises NotFound."""
        self._launcher.links.remove(ref, alias)

    async def _remove_with_volumes(self, container_id: str) -> None:
        await self._removal.remove(container_id, force=True, volumes=True)

    async def prune(self, selected: Callable[[Container], bool] = lambda container: True) -> Pruned:
        """Remove those that do not run (created, exited, dead) and are `selected`."""
        deleted, freed = [], 0
        for container in self._table.all():
            if container.state.status in (Status.CREATED, Status.EXITED, Status.DEAD) and selected(container):
                freed += await self.written_bytes(container.id)
                try:
                    await self.remove(container.id)
                except (Conflict, NotFound):
                    continue  # started, or removed by somebody else, in between
                deleted.append(container.id)
        self.events.publish("container", "prune", "", {"reclaimed": str(freed)})
        return Pruned(deleted=tuple(deleted), reclaimed_bytes=freed)

    def wait(self, ref: str, condition: str = "not-running") -> asyncio.Future[WaitResult]:
        """Conditions: not-running, next-exit, removed. Registered at the call; cancel it to stop waiting."""
        return self._waits.wait(self._table.find(ref), condition)

    # --- its networks ---

    async def connect(self, ref: str, endpoint: EndpointRequest) -> None:
        """Join one more network, at once or at its next start."""
        await self._finish(self._connections.connect(self._table.find(ref), endpoint))

    async def disconnect(self, ref: str, network: str) -> None:
        await self._finish(self._connections.disconnect(self._table.find(ref), network))

    # --- its stdio ---

    def logs(self, ref: str, query: LogQuery) -> AsyncIterator[tuple[int, bytes]]:
        """(stream, bytes) of its log: whole lines, their time before them where asked. Raises at the call."""
        return self._logs.lines(self._table.find(ref), query)

    def log_batches(self, ref: str, query: LogQuery) -> AsyncIterator[list[tuple[int, bytes]]]:
        """As `logs`, but as many lines at once as are there: ten times as fast for who sends them on."""
        return self._logs.batches(self._table.find(ref), query)

    async def attach(
        self, ref: str, *, stdin: bool = False, stdout: bool = True, stderr: bool = True, logs: bool = False,
        stream: bool = True,
    ) -> Attachment:
        """Its stdio, from now on; of one that does not run yet, from its start on (nothing is lost).

        `logs`: what was written before comes first; without `stream` that is all.
        Raises Conflict where it is paused or restarting.
        """
        container = self._table.find(ref)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        if container.state.status is Status.RESTARTING:
            raise Conflict(f"container {ref} is restarting, wait until the container is running")
        streams = frozenset({STDOUT} if stdout else ()) | frozenset({STDERR} if stderr else ())
        client = None
        if stream:
            client = await self._life.join(container, stdin=stdin and container.config.open_stdin, streams=streams)
        if logs:
            lines = self._logs.lines(container, LogQuery(stdout=stdout, stderr=stderr))
            return LoggedClient(lines, client, tty=container.config.tty)
        return client if client is not None else LoggedClient(None, None, tty=container.config.tty)

    async def resize(self, ref: str, height: int, width: int) -> None:
        """Resize its terminal. Raises Conflict where it does not run."""
        self._life.monitor(self._table.find(ref)).control(RESIZE, height, width)

    # --- exec ---

    async def exec_create(self, ref: str, config: ExecConfig) -> Exec:
        """Raises Conflict where the container does not run or is paused."""
        if not config.command:
            raise InvalidArgument("No exec command specified")
        return self._execs.create(self._table.find(ref), config)

    async def exec_start(
        self, exec_id: str, *, detach: bool = False, console_size: tuple[int, int] = (0, 0)
    ) -> Attachment | None:
        """Start it; its stdio as `ExecConfig` attaches it (None where detached). Conflict where it ran already."""
        return await self._execs.start(exec_id, detach=detach, console_size=console_size)

    def exec_check(self, exec_id: str) -> Exec:
        """Raises what `exec_start` would before it starts anything. For who has to answer before it starts."""
        return self._execs.check(exec_id)

    def exec_inspect(self, exec_id: str) -> Exec:
        """Raises NotFound, "No such exec instance: <id>"."""
        return self._execs.get(exec_id)

    def execs(self, ref: str) -> list[Exec]:
        """Those of a container that have not been forgotten."""
        return self._execs.of(self._table.find(ref).id)

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        self._execs.resize(exec_id, height, width)

    # --- what it does just now ---

    async def top(self, ref: str, ps_args: str = "-ef") -> tuple[list[str], list[list[str]]]:
        """Titles and rows of `ps`, of its processes only. Raises Conflict where it does not run."""
        from shoal.engine.containers import top

        container = self._table.find(ref)
        self._life.monitor(container)
        pids = self._cgroups.pids(self._launcher.group(container))
        return await asyncio.to_thread(top.run, ps_args or "-ef", pids)

    async def usage(self, ref: str) -> Usage:
        """One sample of what it uses."""
        from shoal.engine.containers import usage

        container = self._table.find(ref)
        if not container.state.pid:
            return Usage(read_ns=time.time_ns(), cgroup_version=self._cgroups.version)
        return await asyncio.to_thread(
            usage.sample, self._cgroups, self._launcher.group(container), container.state.pid)

    # --- inside ---

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end, whatever becomes of the caller."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _emit(self, container: Container, action: str, attributes: dict[str, str]) -> None:
        about = {**container.config.labels, "image": container.config.image, "name": container.name, **attributes}
        self.events.publish("container", action, container.id, about)

    def _emit_volume(self, action: str, name: str, attributes: dict[str, str]) -> None:
        self.events.publish("volume", action, name, attributes)

    def _volume_users(self, name: str) -> list[str]:
        return [one.id for one in self._table.all() if any(point.name == name for point in one.mounts)]

    def _shell_of(self, image_id: str) -> tuple[str, ...]:
        try:
            return self._images.resolve(image_id).config.shell
        except ShoalError:
            return ()

    def _has_started(self, container: Container) -> None:
        self._prober.start(container)
        self._launcher.links.has_started(container)

    def _has_ended(self, container: Container) -> None:
        self._prober.stop(container)
        self._execs.forget(container.id)
