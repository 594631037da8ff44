"""Containers on networks: sandboxes up and down, connected and disconnected.

Decisions are made on the event loop, without waiting, from the records; the
kernel is changed on one thread kept for it, in the order of the decisions. A
record is written once its sandbox stands, and dropped before it falls: what a
crash leaves without a record is swept away at the next start.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shoal.api.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, ShoalError
from shoal.api.ids import new_container_id
from shoal.api.sandbox import EndpointRequest, PublishedPort, Sandbox, SandboxRequest
from shoal.overlay import attached as places
from shoal.overlay import describe, files, hosttable, ipam, kernel
from shoal.overlay.clusternets import ClusterNetworks, check_address
from shoal.overlay.dns import Resolver
from shoal.overlay.localnets import LocalNetworks
from shoal.overlay.naming import Naming
from shoal.overlay.ports import HostPorts
from shoal.overlay.records import BRIDGE, GWBRIDGE, Attached, LocalNetwork, SandboxRecord
from shoal.overlay.rtnetlink import NetlinkError
from shoal.overlay.sandboxes import DnsSockets, End, Plumber, Wiring
from shoal.overlay.storage import Folder

T = TypeVar("T")

_LINGER_S, _LINGER_STEP_S = 10.0, 0.02
"""How long, and how often, a link's MAC is waited for that a sandbox just gone had."""


class Containers:
    """The sandboxes of this host's containers, and all that they stand on."""

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
        self._cluster = ClusterNetworks(run, self._in_thread)
        self._resolver = Resolver()
        self._naming = Naming(self._cluster, self._resolver, self._host_resolv)
        self._gateway_lock = asyncio.Lock()
        self._table_port = 0  # the data path port that the host's rules name

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
            record = await self._attach_all(record, request.endpoints or (EndpointRequest(network=BRIDGE),))
        try:
            for one in record.attached:
                await self._join(record, one)
            record, sockets = await self._build(record, request)
        except BaseException:
            await self._release(record)
            raise
        self._naming.serve(record, sockets)
        return self._keep(record).sandbox

    async def _build(self, record: SandboxRecord, request: SandboxRequest) -> tuple[SandboxRecord, DnsSockets | None]:
        ports = self._take_ports(record, request.ports)
        record = self._described(msgspec.structs.replace(record, ports=ports))
        ends = tuple(self._end(record, one) for one in record.attached)
        deadline = asyncio.get_running_loop().time() + _LINGER_S
        while True:
            wiring = Wiring(
                path=record.netns, ends=ends, gateways=places.gateways(record.attached),
                sysctls=request.sysctls,
                services=self._naming.services(record) if describe.has_resolver(record.attached) else None)
            try:
                sockets = await self._in_thread(
                    self._kernel.build, wiring, self._published(record, hosttable.publish),
                    {port.host_port for port in ports if port.protocol == "udp"})
            except NetlinkError as error:
                # A sandbox that had this MAC has just gone, and the kernel is still clearing it away.
                if error.errno != errno.EADDRINUSE or asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_LINGER_STEP_S)
            except OSError as error:
                raise ShoalError(f"the network sandbox of container {record.container_id} cannot be made: "
                                 f"{error}") from error
            else:
                return msgspec.structs.replace(record, dns_port=sockets.port if sockets else 0), sockets

    async def _down(self, container_id: str) -> None:
        record = self._records.pop(container_id, None)
        if record is None:
            return
        self._folder.drop(container_id)
        self._resolver.shut(container_id)
        if record.netns and record.mode != "shared":
            await self._in_thread(
                self._kernel.raze, Path(record.netns), [one.host_link for one in record.attached if one.host_link],
                self._published(record, hosttable.unpublish), self._udp_address(record))
        await self._release(record)

    async def _connect(self, container_id: str, endpoint: EndpointRequest) -> Sandbox:
        record = self._records.get(container_id)
        if record is None:
            raise NotFound(f"no sandbox of container {container_id} is up")
        if record.mode != "networks":
            raise PermissionDenied("container cannot be connected to a network: it shares the host's or another "
                                   "container's, or has none")
        if self._driver(endpoint.network) in ("host", "null"):
            raise PermissionDenied(f"container cannot be connected to the network {endpoint.network}")
        fresh = await self._attach(record, endpoint)
        added = fresh.attached[len(record.attached):]
        try:
            for one in added:
                await self._join(fresh, one)
                services = None if fresh.dns_port or not describe.has_resolver([one]) else self._naming.services(fresh)
                sockets = await self._in_thread(
                    self._kernel.extend, Path(record.netns), self._end(record, one),
                    places.gateways(fresh.attached), services)
                if sockets:
                    fresh = msgspec.structs.replace(fresh, dns_port=sockets.port)
                    self._naming.open(fresh, sockets)
        except BaseException:
            for one in added:
                await self._leave(fresh, one)
            raise
        fresh = self._described(fresh)
        self._naming.serve(fresh, None)
        await self._lead_ports(record, fresh)
        if fresh.dns_port:
            await self._in_thread(self._kernel.rewrite_services, fresh.netns, fresh.dns_port,
                                  self._naming.services(fresh))
        return self._keep(fresh).sandbox

    async def _disconnect(self, container_id: str, network: str) -> Sandbox:
        record = self._records.get(container_id)
        if record is None:
            raise NotFound(f"no sandbox of container {container_id} is up")
        gone = next((one for one in record.attached if network in (one.network_id, one.network_name)), None)
        if gone is None:
            raise PermissionDenied(f"container {container_id} is not connected to the network {network}")
        left = tuple(one for one in record.attached if one is not gone)
        fresh = self._described(msgspec.structs.replace(record, attached=left))
        self._keep(fresh)
        await self._in_thread(self._kernel.shrink, Path(record.netns), gone.link, gone.host_link,
                              places.gateways(left))
        await self._leave(fresh, gone)
        await self._lead_ports(record, fresh)
        self._naming.change(fresh)
        if fresh.dns_port:
            await self._in_thread(self._kernel.rewrite_services, fresh.netns, fresh.dns_port,
                                  self._naming.services(fresh))
        return fresh.sandbox

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

    async def _attach_all(self, record: SandboxRecord, requests: Sequence[EndpointRequest]) -> SandboxRecord:
        """`record` with an address on each network. Raises with nothing taken."""
        try:
            for request in requests:
                record = await self._attach(record, request)
        except BaseException:
            await self._release(record)
            raise
        return record

    async def _attach(self, record: SandboxRecord, request: EndpointRequest) -> SandboxRecord:
        """`record` with an address on one more network (and on the gateway bridge if that now leads outside)."""
        told = self._cluster.resolve(request.network)
        if told is None:
            network = self._local.resolve(request.network)
            self._check_new(record, network.id, network.name)
            return self._with(record, network, request)
        self._check_new(record, told.id, told.name)
        address, prefix = check_address(told, request.address)
        record = msgspec.structs.replace(record, attached=(
            *record.attached, places.on_told(record, told, new_container_id(), address, prefix, request)))
        if told.internal or any(one.gateway for one in record.attached):
            return record
        return self._with(record, await self._gwbridge(), None)

    def _check_new(self, record: SandboxRecord, network_id: str, name: str) -> None:
        if any(one.network_id == network_id for one in record.attached):
            raise PermissionDenied(f"endpoint with name {record.name} already exists in network {name}")

    def _take(self, network: LocalNetwork, wanted: str, wanted6: str) -> tuple[str, str]:
        """A free address of each family that the network has; the second is empty without IPv6."""
        if wanted6 and not network.subnet6:
            raise InvalidArgument(f"no configured subnet of network {network.name} contains IP address {wanted6}")
        taken = self._taken.setdefault(network.id, set())
        busy = taken | set(network.reserved.values()) | set(network.reserved6.values())
        address = ipam.allocate(network.subnet, network.gateway, busy, wanted, network.ip_range)
        address6 = ipam.allocate(network.subnet6, network.gateway6, busy, wanted6, network.ip_range6) \
            if network.subnet6 else ""
        taken.update(filter(None, (address, address6)))
        return address, address6

    async def _gwbridge(self) -> LocalNetwork:
        """The bridge that leads overlay sandboxes outside; made with the first of them."""
        async with self._gateway_lock:
            if found := self._local.named(GWBRIDGE):
                return found
            network = self._local.gwbridge(await self._in_thread(kernel.used_subnets))
            await self._in_thread(self._kernel.ensure_bridge, network)
            await self._rewrite_host_table()
            return network

    def _with(self, record: SandboxRecord, network: LocalNetwork, request: EndpointRequest | None) -> SandboxRecord:
        asked = request or EndpointRequest(network=network.id)
        address, address6 = self._take(network, asked.address, asked.address6)
        try:
            one = places.on_local(record, network, new_container_id(), address, address6, request)
        except BaseException:
            self._taken[network.id] -= {address, address6}
            raise
        return msgspec.structs.replace(record, attached=(*record.attached, one))

    def _end(self, record: SandboxRecord, attached: Attached) -> End:
        network = None if attached.vni else self._local.by_id[attached.network_id]
        return describe.end(attached, network, published=bool(record.ports))

    async def _join(self, record: SandboxRecord, attached: Attached) -> None:
        """Make the network ready on this host, and the sandbox's names known on it."""
        if attached.vni:
            await self._cluster.join(self._cluster.tables.networks[attached.network_id], record.container_id,
                                     record.netns)

    async def _leave(self, record: SandboxRecord, attached: Attached) -> None:
        """Give the endpoint's address and names back."""
        if attached.names:
            self._cluster.names_of(attached.network_id).drop_endpoint(attached.endpoint_id)
        if taken := self._taken.get(attached.network_id):
            taken -= {attached.address, attached.address6}
        if attached.vni:
            await self._cluster.leave(attached.network_id, record.container_id)

    async def _release(self, record: SandboxRecord) -> None:
        """Give addresses, names and ports back."""
        if record.mode == "shared":
            return
        self._ports.free(record.container_id)
        for one in record.attached:
            await self._leave(record, one)

    def _driver(self, reference: str) -> str:
        told = self._cluster.resolve(reference)
        return told.driver if told else self._local.resolve(reference).driver

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
        return describe.describe(record, self._host_resolv(), bridge.gateway if bridge else "", base_hosts)

    def _host_resolv(self) -> files.Resolv:
        try:
            return files.parse_resolv(self._resolv_path.read_text())
        except OSError:
            return files.Resolv()

    def _host_hosts(self) -> str:
        try:
            return self._hosts_path.read_text()
        except OSError:
            return ""

    def _take_ports(self, record: SandboxRecord, wanted: Sequence[PublishedPort]) -> tuple[PublishedPort, ...]:
        """Hold the host's ports, where there is an end that they can lead to."""
        end = places.outside(record.attached)
        if end is None:
            return ()
        host_ip = self._local.by_id[end.network_id].host_ip
        ports = [msgspec.structs.replace(port, host_ip=port.host_ip or host_ip) for port in wanted]
        return self._ports.take(record.container_id, record.name, ports, ipv6=bool(end.address6))

    def _published(self, record: SandboxRecord, render: Callable[[Any, str, str], str]) -> str:
        end = places.outside(record.attached)
        return render(record.ports, end.address, end.address6) if end and record.ports else ""

    def _udp_address(self, record: SandboxRecord) -> str:
        """Where published UDP ports lead: clients there must be let go when it goes, or they send into the void."""
        end = places.outside(record.attached)
        return end.address if end and any(port.protocol == "udp" for port in record.ports) else ""

    async def _lead_ports(self, before: SandboxRecord, after: SandboxRecord) -> None:
        """Lead published ports to the end that holds the default route now."""
        old, new = places.outside(before.attached), places.outside(after.attached)
        if after.ports and old != new:
            await self._in_thread(
                self._kernel.lead_ports, self._published(before, hosttable.unpublish),
                self._published(after, hosttable.publish), new.host_link if new else "", self._udp_address(before))

    async def _rewrite_host_table(self) -> None:
        published = [(port, hosttable.target(port, end.address, end.address6)) for record in self._records.values()
                     if (end := places.outside(record.attached)) for port in record.ports]
        self._table_port = self._cluster.port
        await self._in_thread(self._kernel.host_rules, hosttable.table(
            self._local.bridges(), published, self._table_port))

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
        task.add_done_callback(seen)
        return await asyncio.shield(task)


def seen(task: asyncio.Task[Any]) -> None:
    """The caller that was cancelled will not ask for the error; nobody else has to."""
    if not task.cancelled():
        task.exception()
