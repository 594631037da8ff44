"""What the managers told this host of cluster networks, and what a message changes in it. Pure.

Kept under the run root, so that names and forwarding can be compared again
after a restart, before any manager has been heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from shoal.api.messages import NetworkEndpoint, NetworkInfo, NetworkService


class Told(msgspec.Struct, frozen=True):
    """The tables as they are kept on disk."""

    networks: list[NetworkInfo] = []
    endpoints: list[NetworkEndpoint] = []
    services: list[NetworkService] = []
    address: str = ""  # this host's on the underlay


class Changes(msgspec.Struct):
    """What one message changed, by network id; a value of None: it is gone."""

    endpoints: dict[str, dict[str, NetworkEndpoint | None]] = {}
    addresses: dict[str, set[str]] = {}  # touched, by the old or the new endpoint
    macs: dict[str, set[str]] = {}
    services: dict[str, dict[str, NetworkService | None]] = {}


class Cluster:
    """The tables. Invariant: `_holders` names, for each address, the endpoints that have it, the newest last."""

    def __init__(self, told: Told | None = None) -> None:
        self.networks: dict[str, NetworkInfo] = {}
        self.endpoints: dict[str, dict[str, NetworkEndpoint]] = {}
        self.services: dict[str, dict[str, NetworkService]] = {}
        self._holders: dict[str, dict[str, dict[str, None]]] = {}
        if told is not None:
            self.apply(complete=True, networks=told.networks, endpoints=told.endpoints, services=told.services)

    def told(self, address: str = "") -> Told:
        return Told(list(self.networks.values()),
                    [one for table in self.endpoints.values() for one in table.values()],
                    [one for table in self.services.values() for one in table.values()], address)

    def apply(
        self, *, complete: bool, networks: Iterable[NetworkInfo] = (), removed_networks: Iterable[str] = (),
        endpoints: Iterable[NetworkEndpoint] = (), removed_endpoints: Iterable[tuple[str, str]] = (),
        services: Iterable[NetworkService] = (), removed_services: Iterable[tuple[str, str]] = (),
    ) -> Changes:
        """Take a message in. A complete one replaces everything; what is equal counts as unchanged."""
        networks, endpoints, services = list(networks), list(endpoints), list(services)
        changes = Changes()
        if complete:
            kept = {(one.network_id, one.id) for one in endpoints}
            removed_endpoints = [(net, key) for net, table in self.endpoints.items() for key in table
                                 if (net, key) not in kept]
            kept = {(one.network_id, one.id) for one in services}
            removed_services = [(net, key) for net, table in self.services.items() for key in table
                                if (net, key) not in kept]
            here = {network.id for network in networks}
            removed_networks = [network_id for network_id in self.networks if network_id not in here]
        for network in networks:
            self.networks[network.id] = network
        for network_id, key in removed_endpoints:
            self._endpoint(changes, network_id, key, None)
        for endpoint in endpoints:
            self._endpoint(changes, endpoint.network_id, endpoint.id, endpoint)
        for network_id, key in removed_services:
            self._service(changes, network_id, key, None)
        for service in services:
            self._service(changes, service.network_id, service.id, service)
        for network_id in removed_networks:
            self.networks.pop(network_id, None)
            for key in list(self.endpoints.get(network_id, ())):
                self._endpoint(changes, network_id, key, None)
            for key in list(self.services.get(network_id, ())):
                self._service(changes, network_id, key, None)
        return changes

    def holders(self, network_id: str, addresses: Iterable[str] | None = None) -> list[NetworkEndpoint]:
        """The endpoint that has each address (the newest, where an old one is not yet gone)."""
        table, holders = self.endpoints.get(network_id, {}), self._holders.get(network_id, {})
        wanted = holders if addresses is None else [one for one in addresses if one in holders]
        return [table[next(reversed(holders[address]))] for address in wanted]

    def vips(self, network_id: str) -> dict[str, tuple[str, ...]]:
        """VIP → healthy backends, of every service of a network that has a VIP."""
        return {one.vip: one.backends for one in self.services.get(network_id, {}).values() if one.vip}

    def _endpoint(self, changes: Changes, network_id: str, key: str, new: NetworkEndpoint | None) -> None:
        table = self.endpoints.setdefault(network_id, {})
        holders = self._holders.setdefault(network_id, {})
        old = table.get(key)
        if old == new:
            return
        for one in (old, new):
            if one is not None:
                changes.addresses.setdefault(network_id, set()).add(one.address)
                changes.macs.setdefault(network_id, set()).add(one.mac)
        if old is not None:
            holders[old.address].pop(key, None)
            if not holders[old.address]:
                del holders[old.address]
        if new is None:
            table.pop(key, None)
        else:
            table[key] = new
            holders.setdefault(new.address, {})[key] = None
        changes.endpoints.setdefault(network_id, {})[key] = new

    def _service(self, changes: Changes, network_id: str, key: str, new: NetworkService | None) -> None:
        table = self.services.setdefault(network_id, {})
        if table.get(key) == new:
            return
        if new is None:
            table.pop(key, None)
        else:
            table[key] = new
        changes.services.setdefault(network_id, {})[key] = new


def pick(table: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """The part of `table` under `keys`."""
    return {key: table[key] for key in keys if key in table}
