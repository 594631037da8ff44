"""Where a container is on networks, and which of its ports are published: from the body to nouns. Pure."""

from __future__ import annotations

import ipaddress
import re

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.sandbox import EndpointRequest, PublishedPort
from shoal.api.wire import convert
from shoal.daemon.http.containers.wire import BindingWire, EndpointWire, HostWire, NetworkingWire
from shoal.overlay import endpointopts

PROTOCOLS = ("tcp", "udp", "sctp")
_PORT = re.compile(r"(\d{1,5})(?:/([A-Za-z]+))?", re.ASCII)
_HOST_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}", re.ASCII)
_ON_BRIDGE = ("default", "bridge")


def checked_port(text: str) -> tuple[int, str]:
    """(number, protocol) of "80/tcp" or "80"."""
    found = _PORT.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= 65535:
        raise InvalidArgument(f"invalid port specification: {text!r}: use a number from 1 to 65535 and a protocol")
    protocol = (found[2] or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid port specification: {text!r}: unknown protocol, use {', '.join(PROTOCOLS)}")
    return int(found[1]), protocol


def published(bindings: dict[str, tuple[BindingWire, ...]]) -> tuple[PublishedPort, ...]:
    ports = []
    for text, wanted in bindings.items():
        number, protocol = checked_port(text)
        for binding in wanted:
            first, last = _host_ports(binding.host_port)
            ports.append(PublishedPort(container_port=number, protocol=protocol, host_ip=_host_ip(binding.host_ip),
                                       host_port=first, last_host_port=last))
    return tuple(ports)


def _host_ip(text: str) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid HostIp of a published port: {text!r} is no address") from error
    return str(address)


def _host_ports(text: str) -> tuple[int, int]:
    """(first, last) of "8000-8010"; (number, 0) of a number."""
    if not text:
        return 0, 0
    found = _HOST_PORTS.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or 0)) if found else (65536, 0)
    if max(first, last) > 65535 or (found and found[2] and not 0 < first <= last):
        raise InvalidArgument(f"invalid HostPort of a published port: {text!r}")
    return first, last if last > first else 0


def network_mode(host: HostWire, *, disabled: bool = False) -> str:
    """The mode, with its old and empty forms made plain."""
    if disabled:
        return "none"
    mode = host.network_mode or "default"
    if mode.startswith("container:") and not mode.partition(":")[2]:
        raise InvalidArgument("invalid container format container:<name|id>")
    return mode


def endpoints(mode: str, networking: NetworkingWire, mac: str = "") -> tuple[EndpointRequest, ...]:
    """A place on each network, that of the mode first. Empty: only what the mode says.

    `mac` is the container's own, for the first place where that names none.
    """
    wanted = {name: endpoint_wire(value) for name, value in networking.endpoints_config.items()}
    if mode in ("host", "none") or mode.startswith("container:"):
        if others := [name for name in wanted if name != mode]:
            raise InvalidArgument(f"container cannot be connected to network {others[0]}: its network mode is {mode}")
        return ()
    found = {_plain(name): endpoint(_plain(name), wire) for name, wire in wanted.items()}
    first = _plain(mode)
    if first not in found and (mac if not found else mode != "default"):
        found[first] = EndpointRequest(network=first)
    places = sorted(found.values(), key=lambda each: each.network != first)
    if mac and not places[0].mac:
        places[0] = msgspec.structs.replace(places[0], mac=mac)
    return tuple(places)


def _plain(network: str) -> str:
    return "bridge" if network in _ON_BRIDGE else network


def endpoint_wire(value: object) -> EndpointWire:
    return convert({} if value is None else value, EndpointWire)


def endpoint(network: str, wire: EndpointWire) -> EndpointRequest:
    """Raises InvalidArgument."""
    asked = wire.ipam_config
    address, address6 = _address(asked.ipv4_address, 4), _address(asked.ipv6_address, 6)
    if network in _ON_BRIDGE and (address or address6):
        raise InvalidArgument("user specified IP address is supported on user defined networks only")
    if network in _ON_BRIDGE and wire.aliases:
        raise InvalidArgument("network-scoped alias is supported only for containers in user defined networks")
    endpointopts.check(wire.driver_opts)
    for link in wire.links:
        checked_link(link)
    return EndpointRequest(
        network=network, aliases=wire.aliases, address=address, address6=address6, mac=checked_mac(wire.mac_address),
        link_local=tuple(_link_local(each) for each in asked.link_local_ips), links=wire.links,
        driver_opts=wire.driver_opts, gw_priority=wire.gw_priority)


def _address(text: str, version: int) -> str:
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid IPv{version} address: {text}") from error
    if address.version != version or address.is_unspecified or "%" in text:
        raise InvalidArgument(f"invalid IPv{version} address: {text}")
    return str(address)


def _link_local(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid link-local IP address: {text}") from error
    if not address.is_link_local or "%" in text:
        raise InvalidArgument(f"invalid link-local IP address: {text}")
    return str(address)


def checked_link(text: str) -> tuple[str, str]:
    """(container, alias) of "container:alias", or of "container". Raises InvalidArgument."""
    name, separator, alias = text.partition(":")
    if not name or ":" in alias or (separator and not alias):
        raise InvalidArgument(f"bad format for links: {text}")
    alias = alias or name
    return name.removeprefix("/"), alias.rpartition("/")[2] if name.startswith("/") else alias


def linked(
    mode: str, places: tuple[EndpointRequest, ...], links: tuple[str, ...],
) -> tuple[tuple[EndpointRequest, ...], tuple[str, ...]]:
    """The places, and the links of the default network ("container:alias").

    On a network of the user's, links are names that it answers. Raises InvalidArgument.
    """
    wanted = tuple("{}:{}".format(*checked_link(link)) for link in links)
    if _plain(mode) in ("bridge", "none") or not wanted:
        return places, wanted
    first = places[0] if places else EndpointRequest(network=mode)
    joined = tuple(dict.fromkeys("{}:{}".format(*checked_link(link)) for link in (*first.links, *wanted)))
    return (msgspec.structs.replace(first, links=joined), *places[1:]), ()


def checked_mac(text: str) -> str:
    if text and not _MAC.fullmatch(text):
        raise InvalidArgument(f"invalid MAC address: {text}")
    return text.lower().replace("-", ":")
