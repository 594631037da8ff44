"""A task's containers in this host's engine: implements `worker.engine_executor.ContainerEngine` on `Engine`.

The worker knows no engine and the engine no tasks; here one's words become the other's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import msgspec

from shoal.api.errors import NotFound
from shoal.api.specs import Mount
from shoal.daemon.http.containers.mounts import mount_request
from shoal.daemon.http.containers.stdio import frame
from shoal.daemon.http.containers.wire import MountWire
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.nouns import (
    Container,
    ContainerConfig,
    HostConfig,
    Limits,
    LogConfig,
    MountRequest,
    Status,
)
from shoal.engine.containers.nouns import LogQuery as EngineLogQuery
from shoal.engine.images.distribution.challenges import ANONYMOUS, Credentials, parse_credentials
from shoal.worker.containerplan import ContainerPlan
from shoal.worker.executor import LogQuery
from shoal.worker.taskmachine import Health, Phase, Seen

_PHASES = {
    Status.CREATED: Phase.CREATED,
    Status.RUNNING: Phase.RUNNING,
    Status.PAUSED: Phase.RUNNING,
    Status.RESTARTING: Phase.RUNNING,
    Status.REMOVING: Phase.ABSENT,
    Status.EXITED: Phase.EXITED,
    Status.DEAD: Phase.EXITED,
}


class EngineContainers:
    """See the module."""

    def __init__(self, engine: Engine, bring: Callable[[str, Credentials], Awaitable[None]]) -> None:
        """`bring` sees to it that an image is here, and raises NotFound."""
        self._engine = engine
        self._bring = bring

    async def create(self, wanted: ContainerPlan) -> str:
        config, host = translate(wanted)
        options = wanted.pull_options
        await self._bring(
            wanted.image, parse_credentials(options.registry_auth) if options is not None else ANONYMOUS)
        return (await self._engine.create(wanted.name, config, host)).id

    async def start(self, container_id: str) -> None:
        await self._engine.start(container_id)

    async def stop(self, container_id: str, grace_s: float) -> None:
        await self._engine.stop(container_id, round(grace_s))

    async def remove(self, container_id: str) -> None:
        await self._engine.remove(container_id, force=True, volumes=True)

    def labelled(self, label: str) -> Iterable[tuple[str, str, Seen]]:
        return [(container.id, container.config.labels[label], seen(container))
                for container in self._engine.all() if label in container.config.labels]

    def seen(self, container_id: str) -> Seen:
        try:
            return seen(self._engine.get(container_id))
        except NotFound:
            return Seen()

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        return self._engine.watch(changed)

    async def logs(self, container_id: str, query: LogQuery) -> AsyncIterator[bytes]:
        batches = self._engine.log_batches(container_id, EngineLogQuery(
            stdout=query.stdout, stderr=query.stderr, follow=query.follow, timestamps=query.timestamps,
            tail=query.tail, since_ns=int(query.since * 1e9)))
        async for batch in batches:
            yield b"".join(frame(stream, data) for stream, data in batch)


def seen(container: Container) -> Seen:
    """Pure."""
    state = container.state
    phase = _PHASES[state.status]
    if phase is Phase.CREATED and state.error:
        phase = Phase.EXITED  # a start that failed
    return Seen(phase=phase, container_id=container.id, pid=state.pid, exit_code=state.exit_code, error=state.error,
                health=Health.NONE if state.health is None else Health(state.health.status))


def translate(wanted: ContainerPlan) -> tuple[ContainerConfig, HostConfig]:
    """Pure. A task's command is the container's entrypoint, its arguments the command, as Docker has it."""
    config = ContainerConfig(
        image=wanted.image,
        entrypoint=wanted.entrypoint or None,
        command=wanted.command or None,
        env=wanted.env,
        working_dir=wanted.working_dir,
        user=wanted.user,
        hostname=wanted.hostname,
        labels=wanted.labels,
        tty=wanted.tty,
        open_stdin=wanted.open_stdin,
        stop_signal=wanted.stop_signal,
        stop_timeout_s=round(wanted.stop_grace_s),
        health_check=wanted.health_check,
    )
    driver = wanted.log_driver
    host = HostConfig(
        network_mode=wanted.network_mode,
        endpoints=wanted.endpoints,
        ports=wanted.ports,
        mounts=tuple(_mount(each) for each in wanted.mounts),
        cap_add=wanted.capability_add,
        cap_drop=wanted.capability_drop,
        read_only=wanted.read_only,
        init=wanted.init,
        limits=Limits(
            nano_cpus=wanted.limits.nano_cpus, memory_bytes=wanted.limits.memory_bytes, pids=wanted.limits.pids,
            memory_reservation_bytes=wanted.memory_reservation_bytes),
        dns=wanted.dns,
        dns_search=wanted.dns_search,
        dns_options=wanted.dns_options,
        extra_hosts=wanted.hosts,
        sysctls=wanted.sysctls,
        group_add=wanted.groups,
        log=LogConfig(driver=driver.name, options=driver.options) if driver is not None else LogConfig(),
    )
    return config, host


def _mount(mount: Mount) -> MountRequest:
    """Its options are as the API has them."""
    return mount_request(msgspec.convert(
        {"Type": mount.type, "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only,
         **mount.options}, MountWire))
