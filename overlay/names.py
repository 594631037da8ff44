"""Who answers to which name on which network. Pure tables, looked up by the resolver.

Names are compared without case. An endpoint is one address with names of its own;
a service has a VIP, or else its backends answer; `tasks.<service>` names the
healthy endpoints behind a service, `tasks.<alias>` too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec


class NamedEndpoint(msgspec.Struct, frozen=True):
    """One place and the names that it alone answers to; the first is its reverse name."""

    address: str
    names: tuple[str, ...]
    service: str = ""
    healthy: bool = True
    address6: str = ""


class NamedService(msgspec.Struct, frozen=True):
    """A service's name and aliases, its VIP (empty: none) and its healthy backends."""

    names: tuple[str, ...]
    vip: str
    backends: tuple[str, ...]


class NetworkNames:
    """The names of one network, itself called `name`. Cost of a change grows with that change."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._endpoints: dict[str, NamedEndpoint] = {}
        self._services: dict[str, NamedService] = {}
        self._by_name: dict[str, set[str]] = {}
        self._by_service: dict[str, set[str]] = {}
        self._service_by_name: dict[str, set[str]] = {}
        self._by_address: dict[str, set[str]] = {}

    def set_endpoint(self, key: str, endpoint: NamedEndpoint) -> None:
        self.drop_endpoint(key)
        self._endpoints[key] = endpoint
        for name in endpoint.names:
            self._by_name.setdefault(name.lower(), set()).add(key)
        if endpoint.service:
            self._by_service.setdefault(endpoint.service.lower(), set()).add(key)
        for address in filter(None, (endpoint.address, endpoint.address6)):
            self._by_address.setdefault(address, set()).add(key)

    def drop_endpoint(self, key: str) -> None:
        old = self._endpoints.pop(key, None)
        if old is None:
            return
        for name in old.names:
            _discard(self._by_name, name.lower(), key)
        if old.service:
            _discard(self._by_service, old.service.lower(), key)
        for address in (old.address, old.address6):
            _discard(self._by_address, address, key)

    def set_service(self, key: str, service: NamedService) -> None:
        self.drop_service(key)
        self._services[key] = service
        for name in service.names:
            self._service_by_name.setdefault(name.lower(), set()).add(key)

    def drop_service(self, key: str) -> None:
        old = self._services.pop(key, None)
        if old is not None:
            for name in old.names:
                _discard(self._service_by_name, name.lower(), key)

    def addresses(self, name: str, *, ipv6: bool = False) -> tuple[str, ...] | None:
        """The addresses `name` stands for; empty if it has none just now; None if nobody knows it.

        With `ipv6` those of that family, which only endpoints on this host's networks have.
        """
        name = name.lower()
        if ipv6:
            return None if self.addresses(name) is None else self._addresses6(name)
        if keys := self._service_by_name.get(name):
            services = [self._services[key] for key in sorted(keys)]
            return _unique(address for service in services
                           for address in ((service.vip,) if service.vip else service.backends))
        if name.startswith("tasks."):
            return self._tasks_of(name[6:])
        if keys := self._by_name.get(name):
            found = [self._endpoints[key] for key in sorted(keys)]
            return _unique([one.address for one in found if one.healthy] or [one.address for one in found])
        return None

    def _addresses6(self, name: str) -> tuple[str, ...]:
        if name in self._service_by_name:
            return ()
        found = (self._endpoints[key].address6 for key in sorted(self._by_name.get(name, ())))
        return _unique(address for address in found if address)

    def _tasks_of(self, service: str) -> tuple[str, ...] | None:
        """The healthy endpoints behind a service that is asked for by its name or by an alias."""
        endpoints, services = self._by_service.get(service), self._service_by_name.get(service)
        if endpoints is None and services is None:
            return None
        found = {self._endpoints[key].address for key in endpoints or () if self._endpoints[key].healthy}
        return tuple(sorted(found.union(*(self._services[key].backends for key in services or ()))))

    def name_of(self, address: str) -> str | None:
        """The reverse name of an address of this network."""
        for key in sorted(self._by_address.get(address, ())):
            if names := self._endpoints[key].names:
                return names[0]
        for key, service in self._services.items():
            if service.vip == address:
                return service.names[0] if service.names else key
        return None


class Linked:
    """A network's names as one sandbox knows them: `aliases` are its own words for some of them."""

    def __init__(self, names: NetworkNames, aliases: Mapping[str, str]) -> None:
        self._names = names
        self._aliases = {alias.lower(): name for alias, name in aliases.items()}

    @property
    def name(self) -> str:
        return self._names.name

    def addresses(self, name: str, *, ipv6: bool = False) -> tuple[str, ...] | None:
        return self._names.addresses(self._aliases.get(name.lower(), name), ipv6=ipv6)

    def name_of(self, address: str) -> str | None:
        return self._names.name_of(address)


def lookup(
    networks: Sequence[NetworkNames | Linked], name: str, *, ipv6: bool = False,
) -> tuple[str, ...] | None:
    """What `name` stands for in a sandbox on these networks; the first that knows it answers.

    `name.network` asks one network alone.
    """
    for network in networks:
        if (found := network.addresses(name, ipv6=ipv6)) is not None:
            return found
    bare, _, wanted = name.lower().rpartition(".")
    for network in networks:
        if bare and network.name.lower() == wanted and (found := network.addresses(bare, ipv6=ipv6)) is not None:
            return found
    return None


def _discard(index: dict[str, set[str]], name: str, key: str) -> None:
    keys = index.get(name)
    if keys is not None:
        keys.discard(key)
        if not keys:
            del index[name]


def _unique(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(addresses))
