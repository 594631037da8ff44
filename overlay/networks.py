"""The network side of one host: what the daemon and the agent use.

`containers.py` has the sandboxes; here are the start and its restoring, the
networks of this host, and what the managers say of the cluster's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shoal.api.errors import PermissionDenied, ShoalError
from shoal.api.messages import NetworkEndpoint, NetworkInfo, NetworkService
from shoal.overlay import attached as places
from shoal.overlay import kernel
from shoal.overlay.clusternets import Member
from shoal.overlay.containers import Containers, seen
from shoal.overlay.ports import PortTaken
from shoal.overlay.records import PREDEFINED, Attached, LocalNetwork, LocalNetworkSpec, SandboxRecord
from shoal.overlay.sandboxes import DnsSockets, Plumber

log = logging.getLogger(__name__)

T = TypeVar("T")


AUDIT_PERIOD_S = 300
"""Between two comparisons of the overlay networks with the kernel (0.2 ms of CPU for each endpoint)."""


class Networks(Containers):
    """Implements `shoal.api.sandbox.Networking`. One for each host; `start` before anything else."""

    _watch: asyncio.Task[None] | None = None
    _dropping: Sequence[str] = ()

    # --- life ---

    async def start(self) -> None:
        """Find again what stands, make what is missing, sweep what nobody knows."""
        self._netns_root.mkdir(parents=True, exist_ok=True)
        self._plumber = await self._in_thread(lambda: Plumber(self._netns_root))
        self._cluster.plumber = self._plumber
        self._cluster.load()
        self._local.load(await self._in_thread(kernel.used_subnets))
        await self._in_thread(self._ensure_bridges)
        await self._restore()
        records = self._records.values()
        await self._in_thread(self._plumber.sweep, self._cluster.live_paths() | {record.netns for record in records},
                              {one.host_link for record in records for one in record.attached})
        await self._rewrite_host_table()
        await self._name_dropping_chains()
        self._watch = asyncio.get_running_loop().create_task(self._audit_now_and_then())

    async def stop(self) -> None:
        """Let go of sockets and threads. The sandboxes stay as they are."""
        while self._turns:
            await asyncio.wait(list(self._turns.values()))
        if self._watch:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self._resolver.stop()
        self._cluster.close()
        self._ports.close()
        if self._plumber:
            await self._in_thread(self._plumber.close)
        self._thread.shutdown()

    async def reconcile(self, alive_container_ids: Iterable[str]) -> None:
        """Take away the sandboxes of containers that are no more."""
        alive = set(alive_container_ids)
        for container_id in [one for one in self._records if one not in alive]:
            await self.down(container_id)

    # --- what the managers say (the agent's interface) ---

    def set_underlay(self, address: str, port: int = 4789) -> None:
        """The address that other hosts send this host's overlay traffic to, and the UDP port of all hosts.

        Comes before `apply_cluster`. Networks that are up take a new address over with the next complete message;
        the port they keep.
        """
        self._cluster.set_underlay(address, port)

    async def apply_cluster(
        self, *, complete: bool = False, networks: Iterable[NetworkInfo] = (), removed_networks: Iterable[str] = (),
        endpoints: Iterable[NetworkEndpoint] = (), removed_endpoints: Iterable[tuple[str, str]] = (),
        services: Iterable[NetworkService] = (), removed_services: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Take in what a message of the managers says. Returns once kernel and resolver have it."""
        if self._cluster.port != self._table_port:
            await self._rewrite_host_table()
        await self._cluster.apply(
            complete=complete, networks=tuple(networks), removed_networks=tuple(removed_networks),
            endpoints=tuple(endpoints), removed_endpoints=tuple(removed_endpoints), services=tuple(services),
            removed_services=tuple(removed_services))

    def cluster_networks(self) -> list[NetworkInfo]:
        """The networks that the managers told of."""
        return list(self._cluster.tables.networks.values())

    async def audit(self) -> int:
        """Compare overlay entries with the kernel and mend them. Returns how many differed."""
        return await self._cluster.audit()

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

    def unused(self) -> list[LocalNetwork]:
        """The networks that a prune removes: a user's own, without a sandbox."""
        return [network for network in self._local.by_id.values()
                if network.name not in PREDEFINED and not self._taken.get(network.id)]

    async def create_network(self, spec: LocalNetworkSpec) -> LocalNetwork:
        return await _to_its_end(self._create_network(spec))

    async def _create_network(self, spec: LocalNetworkSpec) -> LocalNetwork:
        network = self._local.create(spec, await self._in_thread(kernel.used_subnets))
        ensure = self._kernel.ensure_bridge if network.driver == "bridge" else self._kernel.ensure_parent
        try:
            made = await self._in_thread(ensure, network)
        except BaseException:
            self._local.remove(network)
            self._local.forget(network)
            raise
        if network.foreign and (made or self._local.shares_own_parent(network)):
            network = msgspec.structs.replace(network, foreign=False)
            self._local.mark(network)
        await self._rewrite_host_table()
        return network

    async def remove_network(self, reference: str) -> LocalNetwork:
        """Raises PermissionDenied for a predefined network, or one with sandboxes."""
        return await _to_its_end(self._remove_network(reference))

    async def _remove_network(self, reference: str) -> LocalNetwork:
        network = self._local.resolve(reference)
        if self._taken.get(network.id) and network.name not in PREDEFINED:
            raise PermissionDenied(f"error while removing network: network {network.name} id {network.id} "
                                   "has active endpoints")
        self._local.remove(network)
        self._taken.pop(network.id, None)
        if not network.foreign and not self._local.parent_is_shared(network):
            await self._in_thread(self._kernel.remove_link, network.link)
        self._local.forget(network)
        await self._rewrite_host_table()
        return network

    # --- within ---

    async def _audit_now_and_then(self) -> None:
        """Mend what others changed in the kernel, until cancelled."""
        while True:
            await asyncio.sleep(AUDIT_PERIOD_S)
            try:
                await self._cluster.audit()
                await self._name_dropping_chains()
            except Exception:
                log.exception("the networks could not be compared with the kernel; tried again later")

    async def _name_dropping_chains(self) -> None:
        """Say once of each firewall chain of another program that it drops what this host forwards."""
        if self._plumber is None:
            return
        chains = await self._in_thread(self._plumber.dropping_chains)
        for chain in chains:
            if chain not in self._dropping:
                log.warning('event=forwarding-dropped chain="%s" effect="containers may not reach the outside, nor '
                            'clients their published ports" mend="let this chain accept the bridges of Shoal"', chain)
        self._dropping = chains

    def _ensure_bridges(self) -> None:
        for network in self._local.bridges():
            self._kernel.ensure_bridge(network)
        for network in self._local.parented():
            try:
                self._kernel.ensure_parent(network)
            except ShoalError as error:  # its network is there, its containers fail to start until it is back
                log.warning("event=parent-missing network=%s parent=%s error=%s", network.name, network.link, error)

    async def _restore(self) -> None:
        """The sandboxes of the run before, those whose namespace still stands."""
        for container_id, record in self._folder.load().items():
            own = bool(record.netns) and record.mode != "shared"
            if own and not await self._in_thread(kernel.is_namespace, Path(record.netns)):
                self._folder.drop(container_id)
                continue
            self._records[container_id] = record
            for one in record.attached:
                self._taken.setdefault(one.network_id, set()).update(filter(None, (one.address, one.address6)))
                if one.vni and not await self._cluster.adopt(
                        one.network_id, one.vni, container_id, Member(record.netns, record.dns_port)):
                    log.error("a sandbox's overlay network does not stand any more", extra={
                        "container": container_id, "network": one.network_name})
            if own:
                self._naming.serve(record, await self._reopen(record))
            try:
                end = places.outside(record.attached)
                self._ports.take(container_id, record.name, record.ports, again=True,
                                 ipv6=end is not None and bool(end.address6))
            except PortTaken as error:
                log.warning("a published port is held by another program", extra={
                    "container": container_id, "error": str(error)})

    async def _reopen(self, record: SandboxRecord) -> DnsSockets | None:
        """The resolver's sockets again, in a sandbox of the run before."""
        if not record.dns_port:
            return None
        try:
            return await self._in_thread(self._kernel.reopen_dns, Path(record.netns), record.dns_port)
        except OSError as error:
            log.error("a sandbox's resolver cannot listen again", extra={
                "container": record.container_id, "port": record.dns_port, "error": str(error)})
            return None


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it goes on when the caller is cancelled, so that record and kernel agree."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(seen)
    return await asyncio.shield(task)
