"""The addresses in requests to make or join a swarm: `IP`, `interface`, each with an optional port."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

from shoal.api.errors import InvalidArgument, Unavailable
from shoal.api.membership import MANAGER_PORT

ANY = "0.0.0.0"  # noqa: S104 - what Docker listens on by default
_SIOCGIFADDR = 0x8915
_OVERLAYS = ("docker", "shoal", "br-", "veth", "vx", "lo")


def listen_address(text: str) -> str:
    """The IP address to listen on. Raises InvalidArgument."""
    host = _split(text or ANY, "listen address")
    return _resolve(host, "listen address must be an IP address or network interface (with optional port number)")


def advertised_address(text: str, listen: str) -> str:
    """The IP address that others reach this host at; found out where none is given. Raises InvalidArgument."""
    if text:
        wrong = "advertise address must be a non-zero IP address or network interface (with optional port number)"
        address = _resolve(_split(text, "advertise address"), wrong)
        if ipaddress.ip_address(address).is_unspecified:
            raise InvalidArgument(wrong)
        return address
    if not ipaddress.ip_address(listen).is_unspecified:
        return listen
    return _only_address()


def data_path_address(text: str) -> str:
    """The IP address for overlay traffic; empty: the advertised one. Raises InvalidArgument."""
    if not text:
        return ""
    wrong = "data path address must be a non-zero IP address or network interface"
    address = _resolve(text, wrong)
    if ipaddress.ip_address(address).is_unspecified:
        raise InvalidArgument(wrong)
    return address


def _split(text: str, what: str) -> str:
    """The host of `host[:port]`."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        host, colon, port = text.rpartition(":")
        if not colon:
            return text
        if port != str(MANAGER_PORT):
            raise InvalidArgument(f"{what} {text}: this swarm's managers serve on port {MANAGER_PORT} only") from None
        return host.strip("[]")
    return text


def _resolve(host: str, wrong: str) -> str:
    """An IP address as it is, or the one of an interface."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        found = interface_address(host)
    if not found:
        raise InvalidArgument(wrong)
    return found


def interface_address(name: str) -> str:
    """The first IPv4 address of an interface; empty where there is none."""
    if not 0 < len(name) < 16:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def _only_address() -> str:
    """The host's address, where it is clear which. Raises InvalidArgument, Unavailable."""
    found = {name: address for _, name in socket.if_nameindex()
             if not name.startswith(_OVERLAYS) and (address := interface_address(name))}
    if not found:
        raise Unavailable("could not find the system's IP address - specify one with --advertise-addr")
    if len(found) > 1:
        shown = ", ".join(f"{address} on {name}" for name, address in sorted(found.items()))
        raise InvalidArgument("could not choose an IP address to advertise since this system has multiple addresses "
                              f"({shown}) - specify one with --advertise-addr")
    return next(iter(found.values()))
