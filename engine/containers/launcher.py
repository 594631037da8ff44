"""From a container's record to a process: root, network, specification, conmon. And all of it taken away again."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from shoal.api.errors import Conflict, InvalidArgument, ShoalError
from shoal.api.sandbox import EndpointRequest, Networking, PublishedPort, Sandbox, SandboxRequest
from shoal.engine.containers import links
from shoal.engine.containers.files import write_bytes
from shoal.engine.containers.links import Links
from shoal.engine.containers.logs import drivers, journal
from shoal.engine.containers.mounts import Mounts
from shoal.engine.containers.nouns import Container, Limits
from shoal.engine.containers.oci import blockio, capabilities, host, kernellog, seccomp, spec, systemd, users
from shoal.engine.containers.oci.cgroupdriver import Driver, unit_of, unit_properties
from shoal.engine.containers.oci.cgroups import Cgroups
from shoal.engine.containers.oci.monitor import Monitor, Monitors, RuntimeFailed, ran_out_of_memory
from shoal.engine.containers.table import Table
from shoal.engine.storage.mount import mount, unmount
from shoal.engine.storage.rootfs import RootFSStore

T = TypeVar("T")
U = TypeVar("U")

CONCURRENT_STARTS = 4 * (os.cpu_count() or 1)
"""More runtimes at once would only take each other's time and memory."""

VOLUMES_MOUNTED = "volumes-mounted"
"""A file of the bundle."""

KILLED = 128 + 9
_SHORT_ID = 12
_encode = msgspec.json.Encoder().encode


class Launcher:
    """`table` has the other containers that a mode names (container:<ref>)."""

    def __init__(
        self, *, monitors: Monitors, cgroups: Cgroups, driver: Driver, rootfs: RootFSStore, networking: Networking,
        mounts: Mounts, table: Table,
    ) -> None:
        self.monitors = monitors
        self.cgroups = cgroups
        self._driver = driver
        self._groups: dict[str, str] = {}  # container → its cgroup, while it has one
        self._rootfs = rootfs
        self._networking = networking
        self._mounts = mounts
        self._table = table
        self.links = Links(table, networking, hostname, monitors.bundle)
        self._slots = asyncio.Semaphore(CONCURRENT_STARTS)

    def group(self, container: Container) -> str:
        """The container's cgroup: as written down at its launch, for the settings may have changed since."""
        if container.id not in self._groups:
            try:
                group = (self.monitors.bundle(container.id) / "cgroup").read_text()
            except OSError:
                return self._driver.group(container.id, container.host.cgroup_parent)
            self._groups[container.id] = group
        return self._groups[container.id]

    def limit(self, container: Container, limits: Limits) -> None:
        """Put these limits on it while it runs. Blocking. Raises ShoalError."""
        group = self.group(container)
        if unit := unit_of(group):
            # first: it rounds what the files then say exactly
            systemd.set_properties(unit, unit_properties(limits, bfq=self._has_bfq(limits)))
        self.cgroups.update(group, limits)

    def _has_bfq(self, limits: Limits) -> bool:
        """Whether BFQ's is the weight of block devices that counts, if there is one."""
        return bool(limits.blkio_weight) and "blkio_weight_devices" in self.cgroups.block_limits

    def ran_out_of_memory(self, container: Container, exit_code: int) -> bool:
        """Whether the kernel killed something in it for lack of memory. It has ended."""
        group = self.group(container)
        if not unit_of(group) or self.cgroups.oom_kills(group):
            return self.cgroups.oom_kills(group) > 0
        if ran_out_of_memory(self.monitors.bundle(container.id)):
            return True  # else conmon may have come to look too late
        return exit_code == KILLED and kernellog.killed_for_memory(group, container.state.started_ns)

    # --- up ---

    async def launch(self, container: Container) -> Monitor:
        """Everything up to where the program begins (`Monitor.release`). Raises ShoalError; nothing is left then."""
        try:
            return await self._launch(container)
        except BaseException:
            await asyncio.shield(self.clear(container))
            raise

    async def _launch(self, container: Container) -> Monitor:
        if container.host.log.driver == drivers.JOURNALD:
            journal.check_writable()
        joined, linked = self._joined(container), self.links.of(container)
        # first of all, and the last to go: where there is a bundle, there may be something to clear away
        self.monitors.bundle(container.id).mkdir(mode=0o711, exist_ok=True)
        request = self._network_request(container)
        root, sandbox = await _both(self._root(container), self._networking.up(request))
        sources = await self._open(container) if container.mounts else {}
        launch = await asyncio.to_thread(self._prepare, container, root, sandbox, joined, sources, linked)
        config = container.config
        async with self._slots:
            return await self.monitors.spawn(
                container.id, _encode(spec.build(launch)),
                log=drivers.conmon_flags(container, self._table.folder(container.id)),
                tty=config.tty, stdin=config.open_stdin, keep_stdin=not config.ends_stdin)

    async def _root(self, container: Container) -> Path:
        return await self._rootfs.prepare(container.id, container.image_id)

    def _network_request(self, container: Container) -> SandboxRequest:
        config, asked = container.config, container.host
        mode, endpoints = network_of(container)
        if mode.startswith("container:"):
            mode = f"container:{self._running(mode.partition(':')[2], 'network').id}"
        ports = asked.ports
        if asked.publish_all:
            named = {(port.container_port, port.protocol) for port in ports}
            exposed = (port for text in config.exposed_ports for port in exposed_ports(text))
            ports += tuple(port for port in exposed if (port.container_port, port.protocol) not in named)
        return SandboxRequest(
            container_id=container.id, name=container.name, hostname=hostname(container), mode=mode,
            endpoints=endpoints, ports=ports, dns=asked.dns, dns_search=asked.dns_search,
            dns_options=asked.dns_options, extra_hosts=asked.extra_hosts,
            sysctls={key: value for key, value in asked.sysctls.items() if key.startswith("net.")})

    def _joined(self, container: Container) -> dict[str, str]:
        """The namespaces of other containers that it joins."""
        joined = {}
        for kind, mode in (("pid", container.host.pid_mode), ("ipc", container.host.ipc_mode)):
            if mode.startswith("container:"):
                owner = self._running(mode.partition(":")[2], f"{kind.upper()} namespace")
                joined[kind] = f"/proc/{owner.state.pid}/ns/{kind}"
        return joined

    def _running(self, ref: str, what: str) -> Container:
        owner = self._table.find(ref)
        if not owner.state.running or not owner.state.pid:
            raise Conflict(f"cannot join {what} of a non running container: {owner.id}")
        return owner

    async def _open(self, container: Container) -> dict[str, str]:
        """Its volumes, mounted; noted, so that what is told when they are let go of is told once."""
        sources = await self._mounts.open(container.mounts, container.id)
        if sources:
            write_bytes(self.monitors.bundle(container.id) / VOLUMES_MOUNTED, b"")
            self._mounts.tell("mount", container)
        return sources

    def _prepare(self, container: Container, root: Path, sandbox: Sandbox, joined: dict[str, str],
                 sources: dict[str, str], linked: Sequence[links.Link]) -> spec.Launch:
        """What blocks: users, binds, devices, and the files that are bound in."""
        asked = container.host
        bundle = self.monitors.bundle(container.id)
        self._place(container, bundle)
        security = spec.security(asked.security_opt)
        held = capabilities.effective(
            asked.cap_add, asked.cap_drop, privileged=asked.privileged, held=host.held_capabilities())
        profile = None
        if not asked.privileged and security.seccomp != b"":
            profile = seccomp.compiled(security.seccomp, frozenset(held))
        return spec.Launch(
            container=container,
            root=str(root),
            cgroup=self._driver.oci_path(container.id, asked.cgroup_parent),
            hostname=hostname(container),
            netns=sandbox.netns,
            user=users.of_root(root, container.config.user, asked.group_add),
            capabilities=held,
            seccomp=profile,
            no_new_privileges=security.no_new_privileges,
            apparmor=host.apparmor_profile(security.apparmor),
            unmasked=security.unmasked,
            mounts=self._mounts.ready(container.mounts, sources),
            files=write_network_files(bundle, sandbox, hostname(container), links.hosts_lines(linked)),
            link_env=links.environment(linked, container.name),
            joined=joined,
            shm_source=self._shm(container, bundle),
            devices=host.devices(asked.devices, all_of_host=asked.privileged) if asked.devices or asked.privileged
            else (),
            rlimits=host.rlimits(asked.ulimits),
            oom_score_adj=host.oom_score_adj(asked.oom_score_adj),
            init_path=host.init_path() if asked.init else "",
            cgroup_version=self.cgroups.version,
            counts_swap=self.cgroups.counts_swap,
            block_devices=blockio.device_numbers(asked.limits),
            annotations=self._driver.annotations(asked.limits, container.config.stop_timeout_s,
                                                 bfq=self._has_bfq(asked.limits)),
        )

    def _place(self, container: Container, bundle: Path) -> None:
        """Settle where its cgroup is to be."""
        group = self._driver.group(container.id, container.host.cgroup_parent)
        write_bytes(bundle / "cgroup", group.encode())
        if unit := unit_of(group):
            systemd.let_go(unit)

    def _shm(self, container: Container, bundle: Path) -> str:
        """A /dev/shm that others can share: this container's own, or the one of the container it joins."""
        mode = container.host.ipc_mode
        if mode == "shareable":
            place = bundle / "shm"
            place.mkdir(exist_ok=True)
            size = container.host.shm_size_bytes or spec.DEFAULT_SHM_BYTES
            mount("shm", place, "tmpfs", 0, f"mode=1777,size={size}")
            return str(place)
        if mode.startswith("container:"):
            owner = self._table.find(mode.partition(":")[2])
            place = self.monitors.bundle(owner.id) / "shm"
            if not place.is_dir():
                raise Conflict(f"cannot join IPC of container {owner.id}: non-shareable IPC "
                               "(hint: use IpcMode:shareable for the donor container)")
            return str(place)
        return ""

    # --- down ---

    async def clear(self, container: Container) -> None:
        """Take everything away that a launch makes. Idempotent; raises the first error, after trying everything."""
        results = await asyncio.gather(
            asyncio.to_thread(self._clear_processes, container), self._networking.down(container.id),
            self._rootfs.release(container.id), return_exceptions=True)
        await self._mounts.close(container.mounts, container.id)
        if (mounted := self.monitors.bundle(container.id) / VOLUMES_MOUNTED).exists():
            mounted.unlink()
            self._mounts.tell("unmount", container)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await asyncio.to_thread(self.monitors.clear, container.id)
        self._groups.pop(container.id, None)

    async def discard(self, container: Container) -> None:
        """Take everything of a container away, also what it wrote. It does not run."""
        if self.monitors.bundle(container.id).exists():
            await self.clear(container)
        await self._rootfs.remove(container.id)

    def _clear_processes(self, container: Container) -> None:
        self.cgroups.remove(self.group(container))
        unmount(self.monitors.bundle(container.id) / "shm")


def network_of(container: Container) -> tuple[str, tuple[EndpointRequest, ...]]:
    """The sandbox's mode and endpoints: the words of `docker run --network`, as `SandboxRequest` has them."""
    mode, endpoints = container.host.network_mode, container.host.endpoints
    if container.config.network_disabled or mode == "none":
        return "none", ()
    if mode == "host" or mode.startswith("container:"):
        return mode, ()
    if not endpoints and mode not in ("", "default", "bridge", "networks"):
        endpoints = (EndpointRequest(network=mode),)
    return "networks", endpoints


def hostname(container: Container) -> str:
    """Its own, the host's where it shares the host's names or network, else its short id."""
    if container.config.hostname:
        return container.config.hostname
    if container.host.uts_mode == "host" or container.host.network_mode == "host":
        return socket.gethostname()
    return container.id[:_SHORT_ID]


def write_network_files(bundle: Path, sandbox: Sandbox, name: str, more_hosts: str = "") -> dict[str, str]:
    """The files that are bound into the container; what is bound in already is written in place."""
    made = {}
    for target, content in (("hosts", sandbox.hosts + more_hosts), ("resolv.conf", sandbox.resolv_conf),
                            ("hostname", name + "\n")):
        if content:
            place = bundle / target
            if place.exists():
                place.write_text(content)
            else:
                write_bytes(place, content.encode(), mode=0o644)
            made[f"/etc/{target}"] = str(place)
    return made


def translate(failure: RuntimeFailed) -> tuple[ShoalError, int]:
    """What the client is told of a start that failed, and the container's exit code. Source: moby, daemon/errors.go."""
    message = ("failed to create task for container: failed to create shim task: OCI runtime create failed: "
               f"{failure.message}: unknown")
    return classify(message)


def classify(message: str) -> tuple[ShoalError, int]:
    """400 and 126 or 127 where the program cannot be run; else 500 and 128."""
    lower = message.lower()
    if "permission denied" in lower:
        return InvalidArgument(message), 126
    if "is a directory" in lower:
        return InvalidArgument(message + ": permission denied"), 126
    if "not a directory" in lower:
        return InvalidArgument(message + ": Are you trying to mount a directory onto a file (or vice-versa)? Check if "
                               "the specified host path exists and is the expected type"), 127
    if "executable file not found" in lower or "no such file or directory" in lower:
        return InvalidArgument(message), 127
    return ShoalError(message), 128


def exposed_ports(text: str) -> list[PublishedPort]:
    """The ports of "80", "80/udp" or "8000-8010/tcp", for the host to choose its own. Raises InvalidArgument."""
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal() or not 0 < int(first) <= int(last or first) < 65536:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return [PublishedPort(container_port=number, protocol=protocol or "tcp")
            for number in range(int(first), int(last or first) + 1)]


async def _both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Both results, once both are done; the first error, if any."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(other, BaseException):
        raise other
    return one, other
