"""The swarm's networks on the wire: what a client asks for, and both forms in which they are shown. Pure."""

from __future__ import annotations

import ipaddress
from typing import Any

from msgspec import field

from shoal.api.errors import InvalidArgument, NotImplementedHere
from shoal.api.ids import is_object_name
from shoal.api.objects import Network
from shoal.api.specs import IPAMPool, NetworkSpec
from shoal.api.wire import Wire, means_something
from shoal.manager.controlapi.requests import rfc3339

VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
MTU_OPTION = "com.docker.network.driver.mtu"
KNOWN_OPTIONS = frozenset({MTU_OPTION, VNI_OPTION, "encrypted"})
PREDEFINED = frozenset({"bridge", "host", "none", "default"})


class PoolWire(Wire, frozen=True, omit_defaults=True):
    subnet: str = ""
    ip_range: str = field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = field(default_factory=dict)


class IPAMWire(Wire, frozen=True, omit_defaults=True):
    driver: str = ""
    options: dict[str, str] = field(default_factory=dict)
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
    check_duplicate: bool = False  # of old clients; names are always unique here


def network_spec(wire: NetworkWire) -> NetworkSpec:
    """What a client sent, as it is stored. Raises InvalidArgument and NotImplementedHere."""
    if not is_object_name(wire.name):
        raise InvalidArgument(f"invalid network name {wire.name!r}: 1 to 63 letters, digits, '_', '.' and '-'")
    if wire.name in PREDEFINED:
        raise InvalidArgument(f"operation is not permitted on predefined {wire.name} network")
    if wire.driver != "overlay":
        raise InvalidArgument(f"driver {wire.driver!r} makes no networks of swarm scope: use overlay")
    if wire.scope not in ("", "swarm"):
        raise InvalidArgument(f"overlay networks have swarm scope, not {wire.scope!r}")
    if wire.ingress:
        raise NotImplementedHere("ingress networks are not supported yet: publish ports with mode=host")
    if wire.config_only or means_something(wire.config_from):
        raise NotImplementedHere("config-only networks are not supported in a swarm")
    if wire.enable_ipv6 or wire.enable_ipv4 is False:
        raise NotImplementedHere("overlay networks have IPv4 only: leave EnableIPv6 out")
    return NetworkSpec(
        name=wire.name,
        labels=wire.labels,
        driver_opts=_options(wire.options),
        internal=wire.internal,
        attachable=wire.attachable,
        pools=_pools(wire.ipam or IPAMWire()),
    )


def network_json(network: Network, version: tuple[int, int] = (1, 50)) -> dict[str, Any]:
    """A network as `docker network inspect` shows it; its containers are each host's to tell."""
    shown: dict[str, Any] = {
        "Name": network.spec.name,
        "Id": network.id,
        "Created": rfc3339(network.meta.created_at),
        "Scope": "swarm",
        "Driver": network.spec.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Config": _configs(network)},
        "Internal": network.spec.internal,
        "Attachable": network.spec.attachable,
        "Ingress": network.spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": None,
        "Options": _driver_options(network),
        "Labels": network.spec.labels,
    }
    if version < (1, 47):
        del shown["EnableIPv4"]
    return shown


def swarm_form(network: Network) -> dict[str, Any]:
    """A network as a task's attachment shows it."""
    spec: dict[str, Any] = {
        "Name": network.spec.name,
        "Labels": network.spec.labels,
        "DriverConfiguration": {"Name": network.spec.driver, "Options": network.spec.driver_opts},
        "IPAMOptions": {"Driver": {"Name": "default"}},
        "Scope": "swarm",
    }
    if network.spec.attachable:
        spec["Attachable"] = True
    if network.spec.internal:
        spec["Internal"] = True
    return {
        "ID": network.id,
        "Version": {"Index": network.meta.version},
        "CreatedAt": rfc3339(network.meta.created_at),
        "UpdatedAt": rfc3339(network.meta.updated_at),
        "Spec": spec,
        "DriverState": {"Name": network.spec.driver, "Options": _driver_options(network)},
        "IPAMOptions": {"Driver": {"Name": "default"}, "Configs": _configs(network)},
    }


def _configs(network: Network) -> list[dict[str, str]]:
    pools = network.ipam or network.spec.pools
    return [
        {
            key: value
            for key, value in (("Subnet", pool.subnet), ("IPRange", pool.ip_range), ("Gateway", pool.gateway))
            if value
        }
        for pool in pools
    ]


def _driver_options(network: Network) -> dict[str, str]:
    return {**network.spec.driver_opts, **({VNI_OPTION: str(network.vni)} if network.vni else {})}


def _options(options: dict[str, str]) -> dict[str, str]:
    for key, value in options.items():
        if key == "encrypted" and value.lower() not in ("false", "0"):
            raise NotImplementedHere("encrypted overlays are not supported yet: leave the option out")
        if key == VNI_OPTION:
            raise InvalidArgument(f"{VNI_OPTION} cannot be chosen: the managers give a VNI to each network")
        if key == MTU_OPTION and not (value.isdigit() and 576 <= int(value) <= 65_450):
            raise InvalidArgument(f"invalid {MTU_OPTION} {value!r}: a number from 576 to 65450")
    return options


def _pools(ipam: IPAMWire) -> tuple[IPAMPool, ...]:
    if ipam.driver not in ("", "default"):
        raise NotImplementedHere(f"IPAM driver {ipam.driver!r} is not supported: only 'default' is")
    if means_something(ipam.options):
        raise NotImplementedHere("IPAM options are not supported: leave them out")
    if len(ipam.config) > 1:
        raise NotImplementedHere("an overlay network has one subnet here")
    pools = []
    for pool in ipam.config:
        if pool.auxiliary_addresses:
            raise NotImplementedHere("auxiliary addresses are not supported: leave them out")
        if pool.gateway:
            _check_gateway(pool)
        pools.append(IPAMPool(subnet=pool.subnet, ip_range=pool.ip_range, gateway=pool.gateway))
    return tuple(pool for pool in pools if pool != IPAMPool())


def _check_gateway(pool: PoolWire) -> None:
    try:
        gateway = ipaddress.IPv4Address(pool.gateway)
        subnet = ipaddress.IPv4Network(pool.subnet, strict=False) if pool.subnet else None
    except ValueError as error:
        raise InvalidArgument(f"invalid gateway or subnet: {error}") from error
    if subnet is not None and gateway in (subnet.network_address, subnet.broadcast_address):
        raise InvalidArgument(f"gateway {gateway} is the first or last address of {subnet}, which no host can have")
