"""The cluster's networks on this host: tables as told, devices and services as applied.

Runs on the event loop. Every change is decided at once, against what was
applied before, and handed to the network thread in that order; so what is
remembered as applied is what the kernel will have. Where a step fails, or after
a restart, the network is marked unsure and compared with the kernel as a whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from shoal.api.errors import Conflict, NotImplementedHere, Unavailable
from shoal.api.messages import NetworkEndpoint, NetworkInfo, NetworkService
from shoal.overlay.cluster import Changes, Cluster, Told, pick
from shoal.overlay.names import NamedEndpoint, NamedService, NetworkNames
from shoal.overlay.nft import NftError
from shoal.overlay.plan import Forwarding, carry_out, plan_forwarding, plan_services, wanted_forwarding
from shoal.overlay.rtnetlink import NetlinkError
from shoal.overlay.sandboxes import ClusterStep, Plumber

log = logging.getLogger(__name__)

_SAVE_DELAY_S = 0.2
"""Tables are written this long after a change, once for all changes in between."""


_MANY_SERVICES = 64
"""From here on a sandbox's copy of its rules is kept in memory between changes."""


class Member(msgspec.Struct, frozen=True):
    """A sandbox of this host on an overlay network."""

    path: str
    dns_port: int


class Live(msgspec.Struct):
    """An overlay network that has a sandbox here. `applied` and `services`: what the kernel has, or is about to."""

    network_id: str
    vni: int
    applied: Forwarding
    services: dict[str, tuple[str, ...]]
    members: dict[str, Member] = {}
    unsure: bool = False


InThread = Callable[..., Awaitable[Any]]


class ClusterNetworks:
    """Tables, live networks and names of the cluster's networks on this host."""

    def __init__(self, run: Path, in_thread: InThread) -> None:
        self._file = run / "cluster.msgpack"
        self._in_thread = in_thread
        self.tables = Cluster()
        self.names: dict[str, NetworkNames] = {}
        self._live: dict[str, Live] = {}
        self.address = ""
        self.port = 4789
        self.plumber: Plumber | None = None
        self._save_timer: asyncio.TimerHandle | None = None

    # --- life ---

    def load(self) -> None:
        """What an earlier run was told. Names answer from it at once."""
        try:
            told = msgspec.msgpack.decode(self._file.read_bytes(), type=Told)
        except FileNotFoundError:
            return
        except msgspec.DecodeError as error:
            log.warning("the tables of the last run cannot be read: a manager must tell them again", extra={
                "error": str(error)})
            return
        self.tables = Cluster(told)
        self.address = self.address or told.address
        for network_id in {*self.tables.endpoints, *self.tables.services}:
            self._name(network_id, dict(self.tables.endpoints.get(network_id, {})),
                       dict(self.tables.services.get(network_id, {})))

    def save(self) -> None:
        """Write the tables now."""
        if self._save_timer:
            self._save_timer.cancel()
            self._save_timer = None
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(msgspec.msgpack.encode(self.tables.told(self.address)))
        fresh.replace(self._file)

    def close(self) -> None:
        if self._save_timer:
            self.save()

    def set_underlay(self, address: str, port: int) -> None:
        """Networks that are up get the new address at the next complete message; the port they keep."""
        if address != self.address:
            for live in self._live.values():
                live.unsure = True
        self.address, self.port = address, port

    # --- sandboxes come and go ---

    def resolve(self, reference: str) -> NetworkInfo | None:
        """A network that the managers told of, by id or name."""
        if found := self.tables.networks.get(reference):
            return found
        return next((network for network in self.tables.networks.values() if network.name == reference), None)

    def names_of(self, network_id: str) -> NetworkNames:
        return self.names.setdefault(network_id, NetworkNames())

    def services_of(self, network_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """VIPs that a sandbox on these networks translates."""
        found: dict[str, tuple[str, ...]] = {}
        for network_id in network_ids:
            if live := self._live.get(network_id):
                found.update(live.services)
        return found

    def live_paths(self) -> set[str]:
        return {str(self._plumber.overlays.path(live.vni)) for live in self._live.values()}

    async def join(self, network: NetworkInfo, container_id: str, path: str) -> None:
        """Count a sandbox in, making the network on this host if it is the first.

        Raises NotImplementedHere for what this host cannot do, Unavailable before
        the underlay is known.
        """
        if network.driver != "overlay":
            raise NotImplementedHere(f"network {network.name}: driver {network.driver} cannot span hosts")
        if "encrypted" in network.options and network.options["encrypted"] != "false":
            raise NotImplementedHere(f"network {network.name} is encrypted, which this host cannot do yet: "
                                     "it is not joined, so that nothing goes in the clear")
        if live := self._live.get(network.id):
            live.members[container_id] = Member(path, 0)
            return
        if not self.address:
            raise Unavailable(f"network {network.name}: this host's data path address is not known yet")
        wanted = wanted_forwarding(self.tables.holders(network.id), self.address)
        ops = plan_forwarding(wanted, Forwarding())
        live = Live(network.id, network.vni, wanted, self.tables.vips(network.id))
        live.members[container_id] = Member(path, 0)
        self._live[network.id] = live
        plumber = self._plumber

        def make() -> None:
            plumber.overlays.make(plumber.rtnl, network.vni, self.address, self.port, network.mtu)
            plumber.overlays.forward(network.vni, ops)

        try:
            await self._in_thread(make)
        except BaseException:
            self._live.pop(network.id, None)
            raise

    def joined(self, network_id: str, container_id: str, dns_port: int) -> None:
        """The sandbox stands, its resolver on `dns_port`."""
        if (live := self._live.get(network_id)) and (member := live.members.get(container_id)):
            live.members[container_id] = Member(member.path, dns_port)

    async def leave(self, network_id: str, container_id: str) -> None:
        """Count a sandbox out; with the last, the network leaves this host."""
        live = self._live.get(network_id)
        if live is None:
            return
        live.members.pop(container_id, None)
        if not live.members:
            del self._live[network_id]
            await self._in_thread(self._plumber.overlays.remove, live.vni)

    async def adopt(self, network_id: str, vni: int, container_id: str, member: Member) -> bool:
        """Take up a network that stands from an earlier run. False if it does not stand."""
        live = self._live.get(network_id)
        if live is None:
            if not await self._in_thread(self._plumber.overlays.adopt, vni):
                return False
            live = self._live[network_id] = Live(
                network_id, vni, wanted_forwarding(self.tables.holders(network_id), self.address),
                self.tables.vips(network_id), unsure=True)
        live.members[container_id] = member
        return True

    # --- what the managers say ---

    async def apply(
        self, *, complete: bool, networks: Iterable[NetworkInfo], removed_networks: Iterable[str],
        endpoints: Iterable[NetworkEndpoint], removed_endpoints: Iterable[tuple[str, str]],
        services: Iterable[NetworkService], removed_services: Iterable[tuple[str, str]],
    ) -> None:
        changes = self.tables.apply(
            complete=complete, networks=networks, removed_networks=removed_networks, endpoints=endpoints,
            removed_endpoints=removed_endpoints, services=services, removed_services=removed_services)
        for network_id in {*changes.endpoints, *changes.services}:
            self._name(network_id, changes.endpoints.get(network_id, {}), changes.services.get(network_id, {}))
        if changes.endpoints or changes.services or networks or removed_networks:
            self._save_soon()
        steps = [step for live in self._live.values() if (step := self._step(live, changes))]
        if steps:
            await self._carry_out(steps)
        if complete:
            await self.audit(only_unsure=True)

    async def audit(self, *, only_unsure: bool = False) -> int:
        """Compare the kernel with what it should have, and mend it. Returns how many entries differed."""
        mended = 0
        for live in list(self._live.values()):
            if (only_unsure and not live.unsure) or not self.address:
                continue
            live.unsure = False
            wanted = wanted_forwarding(self.tables.holders(live.network_id), self.address)
            live.applied, live.services = wanted, self.tables.vips(live.network_id)
            try:
                differed = await self._in_thread(self._plumber.overlays.repair, live.vni, wanted,
                                               self.address)
            except (NetlinkError, KeyError, OSError) as error:
                live.unsure = self._live.get(live.network_id) is live
                if live.unsure:
                    log.error("an overlay network could not be compared with the kernel", extra={
                        "network": live.network_id, "error": str(error)})
                continue
            if differed:
                log.warning("forwarding entries differed and were mended", extra={
                    "network": live.network_id, "entries": differed})
            mended += differed
            await self._rewrite([member.path for member in live.members.values()])  # containers come and go meanwhile
        return mended

    def _step(self, live: Live, changes: Changes) -> ClusterStep | None:
        """What `changes` mean for one network here; remembered as applied."""
        network_id = live.network_id
        touched = changes.addresses.get(network_id, set())
        macs = changes.macs.get(network_id, set())
        forward = plan_forwarding(
            wanted_forwarding(self.tables.holders(network_id, touched), self.address),
            Forwarding(pick(live.applied.fdb, macs), pick(live.applied.neighbours, touched)))
        carry_out(live.applied, forward)
        services = []
        if network_id in changes.services:
            wanted = self.tables.vips(network_id)
            services = plan_services(wanted, live.services)
            live.services = wanted
        if not forward and not services:
            return None
        return ClusterStep(vni=live.vni, forward=tuple(forward), services=tuple(services),
                           paths=tuple(member.path for member in live.members.values()),
                           long=len(live.services) > _MANY_SERVICES)

    async def _carry_out(self, steps: list[ClusterStep]) -> None:
        try:
            failed = await self._in_thread(self._plumber.change_cluster, steps)
        except (NetlinkError, KeyError) as error:
            log.warning("a change was refused by the kernel; comparing as a whole", extra={"error": str(error)})
            for live in self._live.values():
                live.unsure = live.unsure or any(step.vni == live.vni for step in steps)
            await self.audit(only_unsure=True)
            return
        await self._rewrite(failed)

    async def _rewrite(self, paths: Iterable[str]) -> None:
        """Write the service tables of these sandboxes anew."""
        for path in paths:
            known = {container_id: member for live in self._live.values()
                     for container_id, member in live.members.items() if member.path == path and member.dns_port}
            for container_id, member in known.items():
                networks = [live.network_id for live in self._live.values() if container_id in live.members]
                try:
                    await self._in_thread(self._plumber.rewrite_services, path, member.dns_port,
                                          self.services_of(networks))
                except (NftError, OSError) as error:
                    log.error("a sandbox's service table could not be written", extra={
                        "sandbox": path, "error": str(error)})

    def _name(self, network_id: str, endpoints: dict[str, NetworkEndpoint | None] | dict[str, NetworkEndpoint],
              services: dict[str, NetworkService | None] | dict[str, NetworkService]) -> None:
        names = self.names_of(network_id)
        for key, endpoint in endpoints.items():
            if endpoint is None:
                names.drop_endpoint(key)
            else:
                names.set_endpoint(key, NamedEndpoint(endpoint.address, endpoint.names, endpoint.service_name,
                                                      endpoint.healthy))
        for key, service in services.items():
            if service is None:
                names.drop_service(key)
            else:
                names.set_service(key, NamedService((service.name, *service.aliases), service.vip, service.backends))

    def _save_soon(self) -> None:
        if self._save_timer is None:
            self._save_timer = asyncio.get_running_loop().call_later(_SAVE_DELAY_S, self.save)

    @property
    def _plumber(self) -> Plumber:
        assert self.plumber is not None, "start() comes first"
        return self.plumber


def check_address(network: NetworkInfo, address: str) -> tuple[str, int]:
    """An address that the managers gave, and its prefix length. Raises Conflict if there is none."""
    bare, _, prefix = address.partition("/")
    if not bare:
        raise Conflict(f"network {network.name} belongs to the swarm: an endpoint on it gets its address "
                       "from a manager")
    return bare, int(prefix or network.subnet.partition("/")[2])
