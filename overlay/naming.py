"""What a sandbox's resolver knows: between its record, the tables of its networks and the resolver."""

from __future__ import annotations

from collections.abc import Callable

from shoal.overlay import attached as places
from shoal.overlay import describe, files
from shoal.overlay.clusternets import ClusterNetworks
from shoal.overlay.dns import Desk, Resolver
from shoal.overlay.names import Linked, NamedEndpoint, NetworkNames
from shoal.overlay.records import SandboxRecord
from shoal.overlay.sandboxes import DnsSockets


class Naming:
    """See the module. `host_resolv` gives what the host's resolv.conf says now."""

    def __init__(self, cluster: ClusterNetworks, resolver: Resolver, host_resolv: Callable[[], files.Resolv]) -> None:
        self._cluster = cluster
        self._resolver = resolver
        self._host_resolv = host_resolv

    def services(self, record: SandboxRecord) -> dict[str, tuple[str, ...]]:
        """VIP → backends on its overlay networks."""
        return self._cluster.services_of(one.network_id for one in record.attached if one.vni)

    def serve(self, record: SandboxRecord, sockets: DnsSockets | None) -> None:
        """Make the sandbox's names known, and answer its own questions."""
        for one in record.attached:
            if one.names:
                names = self._cluster.names_of(one.network_id)
                names.name = one.network_name
                names.set_endpoint(one.endpoint_id, NamedEndpoint(one.address, one.names, address6=one.address6))
            if one.vni:
                self._cluster.joined(one.network_id, record.container_id, record.dns_port)
        if sockets:
            self.open(record, sockets)
        else:
            self.change(record)

    def open(self, record: SandboxRecord, sockets: DnsSockets) -> None:
        """Answer its questions, at these sockets."""
        self._resolver.open(record.container_id, Desk(sockets, self._scope(record), self._servers(record)))

    def change(self, record: SandboxRecord) -> None:
        """It is on other networks now."""
        self._resolver.change(record.container_id, self._scope(record), self._servers(record))

    def _scope(self, record: SandboxRecord) -> list[NetworkNames | Linked]:
        found: list[NetworkNames | Linked] = []
        for one in record.attached:
            if one.names:
                names = self._cluster.names_of(one.network_id)
                links = describe.link_names(one.request.links if one.request else ())
                found.append(Linked(names, links) if links else names)
        return found

    def _servers(self, record: SandboxRecord) -> tuple[str, ...]:
        """Where questions go on to. From internal networks there is no way out, for questions either."""
        return (tuple(record.dns) or self._host_resolv().servers) if places.reaches_out(record.attached) else ()
