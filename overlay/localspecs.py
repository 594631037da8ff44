"""What a network of this host is, from what a client asks for: addresses, links, options of its driver. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from shoal.api.errors import InvalidArgument, NotFound, NotImplementedHere, PermissionDenied
from shoal.overlay import ipam
from shoal.overlay.records import LocalNetwork, LocalNetworkSpec

DRIVERS = ("bridge", "host", "ipvlan", "macvlan", "null")
PARENTED = ("ipvlan", "macvlan")
"""Drivers whose links are made on one of the host's, the parent."""

MODES = {"macvlan": ("bridge", "private", "vepa", "passthru"), "ipvlan": ("l2",)}
"""The first is taken where none is asked for."""

_PREFIX = "com.docker.network."
MTU = f"{_PREFIX}driver.mtu"
LINK_PREFIX = f"{_PREFIX}container_iface_prefix"
_BRIDGE = f"{_PREFIX}bridge."
_ABSENT = (f"{_BRIDGE}inhibit_ipv4", f"{_BRIDGE}trusted_host_interfaces", f"{_PREFIX}host_ipv4", f"{_PREFIX}host_ipv6")
"""Options that Docker's bridge has and this one has not: they would be lost."""

_LINK = re.compile(r"[^\s/:]{1,15}")
_VLAN = re.compile(r"([^\s/:.]{1,10})\.([0-9]{1,4})")


def build(spec: LocalNetworkSpec, *, network_id: str, created: str, link: str, used: Iterable[str],
          others: Iterable[LocalNetwork]) -> LocalNetwork:
    """The network. `link`: a bridge's name if it is settled; `used`: the host's subnets.

    Raises InvalidArgument, NotFound (no such driver), PermissionDenied, NotImplementedHere.
    """
    if spec.driver in ("host", "null"):
        raise PermissionDenied(f'only one instance of "{spec.driver}" network is allowed')
    if spec.driver not in DRIVERS:
        raise NotFound(f"could not find a network driver named {spec.driver}: this host has bridge, macvlan and "
                       "ipvlan, and overlay in a swarm")
    others = list(others)
    network = LocalNetwork(
        id=network_id, name=spec.name, driver=spec.driver, created=created, internal=spec.internal,
        attachable=spec.attachable, ipv6=spec.ipv6 or bool(spec.subnet6), options=spec.options, labels=spec.labels,
        ipam_options=spec.ipam_options, mtu=_mtu(spec.options),
        link_prefix=_link_prefix(spec.options))
    network = _parented(network, others) if spec.driver in PARENTED else _bridge(network, link)
    return _addressed(network, spec, used, others)


# --- addresses ---


def _addressed(network: LocalNetwork, spec: LocalNetworkSpec, used: Iterable[str],
               others: Iterable[LocalNetwork]) -> LocalNetwork:
    taken = [(subnet, other.name) for other in others for subnet in (other.subnet, other.subnet6) if subnet]
    if spec.subnet:
        subnet = str(ipam.check_subnet(spec.subnet, taken))
    else:
        subnet = ipam.choose_subnet([*used, *(each for each, _ in taken if ":" not in each)])
    subnet6 = ""
    if network.ipv6:
        subnet6 = str(ipam.check_subnet(spec.subnet6, taken)) if spec.subnet6 else ipam.choose_subnet6(
            network.id, [each for each, _ in taken if ":" in each])
    for text, family in ((subnet, 4), (subnet6, 6)):
        if text and ipam.parse_subnet(text).version != family:
            raise InvalidArgument(f"invalid subnet {text}: it is not of IPv{family}")
    return msgspec.structs.replace(
        network, subnet=subnet, gateway=_gateway(network, subnet, spec.gateway),
        ip_range=_within(spec.ip_range, subnet), subnet6=subnet6,
        gateway6=_gateway(network, subnet6, spec.gateway6) if subnet6 else "",
        ip_range6=_within(spec.ip_range6, subnet6),
        reserved=_reserved(spec.reserved, subnet), reserved6=_reserved(spec.reserved6, subnet6))


def _gateway(network: LocalNetwork, subnet: str, wanted: str) -> str:
    """The bridge's own address; of the drivers with a parent, the router that the client names, if any."""
    if not wanted:
        return "" if network.driver in PARENTED else ipam.first_host(subnet)
    if ipam.parse_address(wanted, "gateway") not in ipam.parse_subnet(subnet):
        raise InvalidArgument(f"no matching subnet for gateway {wanted}")
    return str(ipam.parse_address(wanted))


def _within(ip_range: str, subnet: str) -> str:
    if ip_range and (not subnet or not ipam.is_within(ip_range, subnet)):
        raise InvalidArgument(f"no matching subnet for range {ip_range}")
    return ip_range


def _reserved(addresses: dict[str, str], subnet: str) -> dict[str, str]:
    for name, address in addresses.items():
        if not subnet or ipam.parse_address(address, f"auxiliary address {name}") not in ipam.parse_subnet(subnet):
            raise InvalidArgument(f"no matching subnet for aux-address {address}")
    return {name: str(ipam.parse_address(address)) for name, address in addresses.items()}


# --- drivers ---


def _bridge(network: LocalNetwork, link: str) -> LocalNetwork:
    options = network.options
    for name in _ABSENT:
        if options.get(name):
            raise NotImplementedHere(f"the network option {name} is not supported: leave it out")
    for family in ("ipv4", "ipv6"):
        mode = options.get(f"{_BRIDGE}gateway_mode_{family}", "")
        if mode not in ("", "nat"):
            raise NotImplementedHere(f"the network option {_BRIDGE}gateway_mode_{family}={mode} is not supported: "
                                     "only nat is")
    named = "" if link else options.get(f"{_BRIDGE}name", "")
    link = link or named or f"br-{network.id[:12]}"
    if not _LINK.fullmatch(link) or link in (".", ".."):
        raise InvalidArgument(f"invalid bridge name {link}: 1 to 15 characters, no space, slash or colon")
    host_ip = options.get(f"{_BRIDGE}host_binding_ipv4", "")
    if host_ip and ipam.parse_address(host_ip, "host_binding_ipv4").version != 4:
        raise InvalidArgument(f"invalid host_binding_ipv4 {host_ip}: it is no IPv4 address")
    return msgspec.structs.replace(
        network, link=link, foreign=bool(named), host_ip=host_ip,
        icc=flag(options, f"{_BRIDGE}enable_icc", default=True),
        masquerade=flag(options, f"{_BRIDGE}enable_ip_masquerade", default=True))


def _parented(network: LocalNetwork, others: Iterable[LocalNetwork]) -> LocalNetwork:
    """Without a parent a link of its own that leads nowhere: the network is internal then.

    What a client names is the client's own until it turns out that it had to be made.
    """
    driver, options = network.driver, network.options
    mode = options.get(f"{driver}_mode", "") or MODES[driver][0]
    if driver == "ipvlan" and mode in ("l3", "l3s"):
        raise NotImplementedHere(f"the ipvlan mode {mode} is not supported: only l2 is")
    if mode not in MODES[driver]:
        raise InvalidArgument(f"requested {driver} mode '{mode}' is not valid, '{MODES[driver][0]}' mode is the "
                              f"{driver} driver default")
    if (given := options.get("ipvlan_flag", "")) not in ("", "bridge") and driver == "ipvlan":
        raise NotImplementedHere(f"the ipvlan flag {given} is not supported: only bridge is")
    parent = options.get("parent", "")
    if parent == "lo":
        raise InvalidArgument(f"loopback interface is not a valid {driver} parent link")
    if parent and not _LINK.fullmatch(parent):
        raise InvalidArgument(f"invalid parent {parent}: it is no name of a link")
    for other in others:
        if parent and other.link == parent and other.driver in PARENTED:
            _check_shared(driver, mode, other)
    return msgspec.structs.replace(network, mode=mode, link=parent or dummy_name(driver, network.id),
                                   foreign=bool(parent), internal=network.internal or not parent)


def _check_shared(driver: str, mode: str, other: LocalNetwork) -> None:
    """A parent is of one driver, and passed through to one network alone. The kernel has it so."""
    if other.driver != driver or "passthru" in (mode, other.mode):
        raise PermissionDenied(f"{other.driver} network {other.name} is already using parent interface {other.link}")


def dummy_name(driver: str, network_id: str) -> str:
    return f"{'dm' if driver == 'macvlan' else 'di'}-{network_id[:12]}"


def vlan_of(parent: str) -> tuple[str, int] | None:
    """(link, tag) that a sub-interface's name says, "eth0.10"; None where it says none. Raises InvalidArgument."""
    found = _VLAN.fullmatch(parent)
    if found is None:
        return None
    if not 1 <= int(found[2]) <= 4094:
        raise InvalidArgument(f"vlan id must be between 1-4094, received: {found[2]}")
    return found[1], int(found[2])


# --- options ---


def _mtu(options: dict[str, str]) -> int:
    mtu = options.get(MTU, "1500")
    if not mtu.isdecimal() or not 68 <= int(mtu) <= 65535:
        raise InvalidArgument(f"invalid MTU {mtu}: use 68 to 65535")
    return int(mtu)


def _link_prefix(options: dict[str, str]) -> str:
    prefix = options.get(LINK_PREFIX, "") or "eth"
    if not re.fullmatch(r"[A-Za-z_-][A-Za-z0-9_-]{0,11}", prefix):
        raise InvalidArgument(f"invalid {LINK_PREFIX} {prefix}: at most 12 letters, digits, '-', '_'")
    return prefix


def flag(options: dict[str, str], name: str, *, default: bool) -> bool:
    """An option that is true or false. Raises InvalidArgument."""
    text = options.get(name, "")
    if not text:
        return default
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidArgument(f'invalid value {text!r} of option {name}: use "true" or "false"')
