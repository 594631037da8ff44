"""The network side of one host: what the daemon and the agent use.

Decisions are made here on the event loop, without waiting, from the records;
the kernel is changed on one thread kept for it, in the order of the decisions.
A record is written once its sandbox stands, and dropped before it falls: what a
crash leaves without a record is swept away at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shoal.api.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from shoal.api.ids import new_container_id
from shoal.api.sandbox import EndpointRequest, Sandbox, SandboxRequest
from shoal.overlay import describe, files, hosttable, ipam, kernel
from shoal.overlay.localnets import LocalNetworks
from shoal.overlay.ports import HostPorts, PortTaken
from shoal.overlay.records import BRIDGE, PREDEFINED, Attached, LocalNetwork, LocalNetworkSpec, SandboxRecord
from shoal.overlay.sandboxes import DnsSockets, Plumber, Wiring
from shoal.overlay.storage import Folder

log = logging.getLogger(__name__)
T = TypeVar("T")


class Networks:
    """Implements `shoal.api.sandbox.Networking`. One for each host; `start` before anything else."""

    def __init__(self, data: Path, run: Path, *, resolv_conf: Path = Path("/etc/resolv.conf"),
                 hosts_file: Path = Path("/etc/hosts")) -> None:
        self._resolv_path, self._hosts_path = resolv_conf, hosts_file
        self._netns_root = run / "netns"
        self._local = LocalNetworks(data / "networks")
        self._folder: Folder[SandboxRecord] = Folder(run / "sandboxes", SandboxRecord, durable=False)
        self._records: dict[str, SandboxRecord] = {}
        self._taken: dict[str, set[str]] = {}
        self._ports = HostPorts()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shoal-net")
        self._turns: dict[str, asyncio.Task[Any]] = {}
        self._plumber: Plumber | None = None

    # --- life ---

    async def start(self) -> None:
        """Find again what stands, make what is missing, sweep what nobody knows."""
        self._netns_root.mkdir(parents=True, exist_ok=True)
        self._plumber = await self._in_thread(lambda: Plumber(self._netns_root))
        self._local.load(await self._in_thread(kernel.used_subnets))
        await self._in_thread(self._ensure_bridges)
        await self._restore()
        await self._in_thread(self._plumber.sweep, {record.netns for record in self._records.values()},
                              {one.host_link for record in self._records.values() for one in record.attached})
        await self._rewrite_host_table()

    async def stop(self) -> None:
        """Let go of sockets and threads. The sandboxes stay as they are."""
        while self._turns:
            await asyncio.wait(list(self._turns.values()))
        self._ports.close()
        if self._plumber:
            await self._in_thread(self._plumber.close)
        self._thread.shutdown()

    async def reconcile(self, alive_container_ids: Iterable[str]) -> None:
        """Take away the sandboxes of containers that are no more."""
        alive = set(alive_container_ids)
        for container_id in [one for one in self._records if one not in alive]:
            await self.down(container_id)

    # --- sandboxes (the engine's interface) ---

    async def up(self, request: SandboxRequest) -> Sandbox:
        return await self._turn(request.container_id, self._up(request))

    async def down(self, container_id: str) -> None:
        await self._turn(container_id, self._down(container_id))

    def sandbox(self, container_id: str) -> Sandbox | None:
        record = self._records.get(container_id)
        return record.sandbox if record else None

    async def connect(self, container_id: str, endpoint: EndpointRequest) -> Sandbox:
        return await self._turn(container_id, self._connect(container_id, endpoint))

    async def disconnect(self, container_id: str, network: str) -> Sandbox:
        return await self._turn(container_id, self._disconnect(container_id, network))

    async def _up(self, request: SandboxRequest) -> Sandbox:
        if found := self._records.get(request.container_id):
            return found.sandbox
        mode = self._mode(request)
        if mode == "host":
            record = describe.blank(request, "")
            return self._keep(self._described(record, base_hosts=self._host_hosts())).sandbox
        if mode.startswith("container:"):
            return self._keep(self._shared(request, mode.partition(":")[2])).sandbox
        record = describe.blank(request, str(self._netns_root / request.container_id[:describe.SHORT_ID]))
        if mode == "networks":
            record = self._attach_all(record, request.endpoints or (EndpointRequest(network=BRIDGE),))
        try:
            record = await self._build(record, request)
        except BaseException:
            self._release(record)
            raise
        return self._keep(record).sandbox

    async def _build(self, record: SandboxRecord, request: SandboxRequest) -> SandboxRecord:
        ports = request.ports if describe.outside(record.attached) else ()
        ports = self._ports.take(record.container_id, record.name, ports)
        record = self._described(msgspec.structs.replace(record, ports=ports))
        wiring = Wiring(
            path=record.netns, ends=tuple(self._end(one) for one in record.attached),
            gateway=describe.default_gateway(record.attached), sysctls=request.sysctls,
        )
        await self._in_thread(self._kernel.build, wiring, self._published(record, hosttable.publish))
        return record

    async def _down(self, container_id: str) -> None:
        record = self._records.pop(container_id, None)
        if record is None:
            return
        self._folder.drop(container_id)
        if record.netns and record.mode != "shared":
            await self._in_thread(
                self._kernel.raze, Path(record.netns), self._published(record, hosttable.unpublish))
        self._release(record)

    async def _connect(self, container_id: str, endpoint: EndpointRequest) -> Sandbox:
        raise NotFound(container_id)

    async def _disconnect(self, container_id: str, network: str) -> Sandbox:
        raise NotFound(container_id)

    def _mode(self, request: SandboxRequest) -> str:
        """The request's mode, where an endpoint on the network `host` or `none` means that mode."""
        if request.mode != "networks" or not request.endpoints:
            return request.mode
        drivers = [self._driver(endpoint.network) for endpoint in request.endpoints]
        special = {"host": "host", "null": "none"}
        if drivers[0] in special and len(drivers) == 1:
            return special[drivers[0]]
        if any(driver in special for driver in drivers):
            raise InvalidArgument("a container on the host's network, or on none, can be on no other network")
        return "networks"

    def _shared(self, request: SandboxRequest, owner_id: str) -> SandboxRecord:
        owner = self._records.get(owner_id)
        if owner is None:
            raise Conflict(f"cannot join network of a non running container: {owner_id}")
        record = describe.blank(request, owner.netns)
        return msgspec.structs.replace(record, mode="shared", sandbox=msgspec.structs.replace(
            owner.sandbox, container_id=request.container_id, endpoints=(), ports=()))

    # --- endpoints ---

    def _attach_all(self, record: SandboxRecord, requests: Sequence[EndpointRequest]) -> SandboxRecord:
        """`record` with an address on each network. Raises with nothing taken."""
        try:
            for request in requests:
                record = self._attach(record, request)
        except BaseException:
            self._release(record)
            raise
        return record

    def _attach(self, record: SandboxRecord, request: EndpointRequest) -> SandboxRecord:
        network = self._local.resolve(request.network)
        if any(one.network_id == network.id for one in record.attached):
            raise PermissionDenied(f"endpoint with name {record.name} already exists in network {network.name}")
        taken = self._taken.setdefault(network.id, set())
        address = ipam.allocate(network.subnet, network.gateway, taken, request.address, network.ip_range)
        taken.add(address)
        return self._with(record, network, address, request)

    def _with(self, record: SandboxRecord, network: LocalNetwork, address: str,
              request: EndpointRequest | None) -> SandboxRecord:
        endpoint_id = new_container_id()
        links = {one.link for one in record.attached}
        link = next(name for number in range(len(links) + 1) if (name := f"eth{number}") not in links)
        names = () if network.is_default or request is None else describe.dns_names(
            record.container_id, record.name, record.hostname, request.aliases)
        attached = Attached(
            network_id=network.id, network_name=network.name, driver=network.driver, endpoint_id=endpoint_id,
            link=link, address=address,
            prefix_length=int(network.subnet.partition("/")[2]),
            mac=(request.mac if request else "") or ipam.mac_of(address),
            gateway="" if network.internal else network.gateway, host_link=f"v{endpoint_id[:7]}",
            names=names, request=request)
        return msgspec.structs.replace(record, attached=(*record.attached, attached))

    def _end(self, attached: Attached) -> Any:
        return describe.bridge_end(attached, self._local.by_id[attached.network_id])

    def _release(self, record: SandboxRecord) -> None:
        """Give addresses and ports back."""
        for one in record.attached:
            if taken := self._taken.get(one.network_id):
                taken.discard(one.address)
        if record.mode != "shared":
            self._ports.free(record.container_id)

    def _driver(self, reference: str) -> str:
        return self._local.resolve(reference).driver

    # --- networks of this host (the API's network routes) ---

    def networks(self) -> list[LocalNetwork]:
        return list(self._local.by_id.values())

    def network(self, reference: str) -> LocalNetwork:
        """By id, name or unambiguous prefix of an id. Raises NotFound, InvalidArgument."""
        return self._local.resolve(reference)

    def attached(self, network_id: str) -> list[tuple[SandboxRecord, Attached]]:
        """The sandboxes on a network, and where on it."""
        return [(record, one) for record in self._records.values() for one in record.attached
                if one.network_id == network_id]

    async def create_network(self, spec: LocalNetworkSpec) -> LocalNetwork:
        network = self._local.create(spec, await self._in_thread(kernel.used_subnets))
        try:
            await self._in_thread(self._kernel.ensure_bridge, network)
            await self._rewrite_host_table()
        except BaseException:
            self._local.remove(network)
            await self._in_thread(self._kernel.remove_bridge, network.link)
            raise
        return network

    async def remove_network(self, reference: str) -> LocalNetwork:
        """Raises PermissionDenied for a predefined network, or one with sandboxes."""
        network = self._local.resolve(reference)
        if self._taken.get(network.id) and network.name not in PREDEFINED:
            raise PermissionDenied(f"error while removing network: network {network.name} id {network.id} "
                                   "has active endpoints")
        self._local.remove(network)
        self._taken.pop(network.id, None)
        await self._in_thread(self._kernel.remove_bridge, network.link)
        await self._rewrite_host_table()
        return network

    # --- within ---

    @property
    def _kernel(self) -> Plumber:
        assert self._plumber is not None, "start() comes first"
        return self._plumber

    def _keep(self, record: SandboxRecord) -> SandboxRecord:
        self._folder.put(record.container_id, record)
        self._records[record.container_id] = record
        return record

    def _described(self, record: SandboxRecord, base_hosts: str = "") -> SandboxRecord:
        bridge = self._local.named(BRIDGE)
        try:
            host = files.parse_resolv(self._resolv_path.read_text())
        except OSError:
            host = files.Resolv()
        return describe.describe(record, host, bridge.gateway if bridge else "", base_hosts)

    def _host_hosts(self) -> str:
        try:
            return self._hosts_path.read_text()
        except OSError:
            return ""

    def _published(self, record: SandboxRecord, render: Callable[[Any, str], str]) -> str:
        end = describe.outside(record.attached)
        return render(record.ports, end.address) if end and record.ports else ""

    async def _rewrite_host_table(self) -> None:
        published = [(port, end.address) for record in self._records.values()
                     if (end := describe.outside(record.attached)) for port in record.ports]
        await self._in_thread(self._kernel.host_rules, hosttable.table(self._local.bridges(), published))

    def _ensure_bridges(self) -> None:
        for network in self._local.bridges():
            self._kernel.ensure_bridge(network)

    async def _restore(self) -> None:
        """The sandboxes of the run before, those whose namespace still stands."""
        for container_id, record in self._folder.load().items():
            own = bool(record.netns) and record.mode != "shared"
            if own and not await self._in_thread(kernel.is_namespace, Path(record.netns)):
                self._folder.drop(container_id)
                continue
            self._records[container_id] = record
            for one in record.attached:
                self._taken.setdefault(one.network_id, set()).add(one.address)
            try:
                self._ports.take(container_id, record.name, record.ports)
            except PortTaken as error:
                log.warning("a published port is held by another program", extra={
                    "container": container_id, "error": str(error)})

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    async def _turn(self, container_id: str, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` after whatever is under way for this container, to its end even if the caller is cancelled."""
        before = self._turns.get(container_id)

        async def run() -> T:
            try:
                if before is not None:
                    await asyncio.wait([before])
                return await work
            finally:
                if self._turns.get(container_id) is task:
                    del self._turns[container_id]

        task = asyncio.ensure_future(run())
        self._turns[container_id] = task
        return await asyncio.shield(task)
