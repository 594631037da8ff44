"""The networks of this host on the wire: what a client asks for, how they are shown and filtered. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import field

from shoal.api.errors import InvalidArgument, NotImplementedHere
from shoal.api.wire import Wire, means_something
from shoal.daemon.http.wire import labels_match, truth
from shoal.overlay.records import PREDEFINED, LocalNetwork, LocalNetworkSpec

LIST_FILTERS = frozenset({"dangling", "driver", "id", "label", "name", "scope", "type"})
MTU = "com.docker.network.driver.mtu"


class PoolWire(Wire, frozen=True):
    subnet: str = ""
    ip_range: str = field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = field(default_factory=dict)


class IPAMWire(Wire, frozen=True):
    driver: str = ""
    options: dict[str, str] | None = None
    config: tuple[PoolWire, ...] = ()


class NetworkWire(Wire, frozen=True):
    """The body of POST /networks/create."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: Any = None
    ipam: IPAMWire | None = field(name="IPAM", default=None)
    enable_ipv4: bool | None = field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = field(name="EnableIPv6", default=None)
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def is_swarm(self) -> bool:
        return self.driver == "overlay" or self.scope == "swarm"


def local_spec(wire: NetworkWire) -> LocalNetworkSpec:
    """Raises InvalidArgument, and NotImplementedHere for what would be lost."""
    if wire.ingress:
        raise InvalidArgument("ingress networks must have swarm scope: use the overlay driver")
    if wire.config_only or means_something(wire.config_from):
        raise NotImplementedHere("ConfigOnly and ConfigFrom are not supported: leave them out")
    if wire.enable_ipv4 is False:
        raise NotImplementedHere("EnableIPv4=false is not supported: networks of this host have IPv4, and IPv6 beside "
                                 "it")
    pool, pool6 = _pools(wire.ipam or IPAMWire())
    if pool6 != PoolWire() and not wire.enable_ipv6:
        raise InvalidArgument("IPAM.Config: an IPv6 subnet needs EnableIPv6")
    return LocalNetworkSpec(name=wire.name, driver=wire.driver or "bridge", subnet=pool.subnet, gateway=pool.gateway,
                            ip_range=pool.ip_range, reserved=pool.auxiliary_addresses, subnet6=pool6.subnet,
                            gateway6=pool6.gateway, ip_range6=pool6.ip_range, reserved6=pool6.auxiliary_addresses,
                            internal=wire.internal, attachable=wire.attachable, ipv6=bool(wire.enable_ipv6),
                            options=wire.options, labels=wire.labels,
                            ipam_options=wire.ipam.options if wire.ipam else None)


def _pools(ipam: IPAMWire) -> tuple[PoolWire, PoolWire]:
    """The subnet of IPv4 and that of IPv6."""
    if ipam.driver not in ("", "default"):
        raise NotImplementedHere(f"IPAM.Driver {ipam.driver!r} is not supported: only 'default' is")
    if ipam.options:
        raise NotImplementedHere("IPAM.Options is not supported: leave it out")
    found: dict[bool, PoolWire] = {}
    for pool in ipam.config:
        if not pool.subnet and (pool.gateway or pool.ip_range or pool.auxiliary_addresses):
            raise InvalidArgument("IPAM.Config: a gateway, a range or an auxiliary address needs a subnet")
        if pool != PoolWire() and found.setdefault(":" in pool.subnet, pool) is not pool:
            raise NotImplementedHere("IPAM.Config: a network of this host has one subnet of each family")
    return found.get(False, PoolWire()), found.get(True, PoolWire())


def network_json(network: LocalNetwork) -> dict[str, Any]:
    """Without its containers."""
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": network.ipv6,
        "IPAM": {"Driver": "default", "Config": _config_json(network)}
        | ({} if network.ipam_options is None else {"Options": network.ipam_options}),
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": _default_options(network) if network.is_default else network.options,
        "Labels": network.labels,
    }


def _config_json(network: LocalNetwork) -> list[dict[str, Any]]:
    pools: list[dict[str, Any]] = [
        {"Subnet": network.subnet, "IPRange": network.ip_range, "Gateway": network.gateway,
         "AuxiliaryAddresses": network.reserved},
        {"Subnet": network.subnet6, "IPRange": network.ip_range6, "Gateway": network.gateway6,
         "AuxiliaryAddresses": network.reserved6}]
    return [{key: value for key, value in pool.items() if value} for pool in pools if pool["Subnet"]]


def _default_options(network: LocalNetwork) -> dict[str, str]:
    return {
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": str(network.icc).lower(),
        "com.docker.network.bridge.enable_ip_masquerade": str(network.masquerade).lower(),
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",  # noqa: S104 - shown, not bound
        "com.docker.network.bridge.name": network.link,
        MTU: str(network.mtu),
    }


def matches(shown: dict[str, Any], filters: dict[str, list[str]], is_used: Callable[[str], bool]) -> bool:
    """Whether a network in the API's form passes. Raises InvalidArgument for a value that makes no sense."""
    name, network_id = shown["Name"], shown["Id"]
    kind = "builtin" if name in PREDEFINED and shown["Scope"] == "local" else "custom"
    for value in filters.get("type", ()):
        if value not in ("builtin", "custom"):
            raise InvalidArgument(f"invalid filter: 'type'='{value}'")
    for value in filters.get("scope", ()):
        if value not in ("local", "swarm", "global"):
            raise InvalidArgument(f"invalid filter: 'scope'='{value}'")
    dangling = [truth(value, "dangling") for value in filters.get("dangling", ())]
    return (
        _any(filters.get("name"), lambda value: value in name)
        and _any(filters.get("id"), lambda value: value in network_id)
        and _any(filters.get("driver"), lambda value: value == shown["Driver"])
        and _any(filters.get("scope"), lambda value: value == shown["Scope"])
        and _any(filters.get("type"), lambda value: value == kind)
        and labels_match(filters.get("label", ()), shown.get("Labels") or {})
        and all((kind == "custom" and not is_used(network_id)) == wanted for wanted in dangling)
    )


def _any(values: list[str] | None, match: Callable[[str], bool]) -> bool:
    return not values or any(match(value) for value in values)
