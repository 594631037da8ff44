"""The addresses in requests to make or join a swarm: `IP`, `interface`, each with an optional port."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from typing import NamedTuple

from shoal.api.errors import InvalidArgument, Unavailable
from shoal.api.membership import MANAGER_PORT, MANAGER_PORTS

ANY = "0.0.0.0"  # noqa: S104 - what Docker listens on by default
_SIOCGIFADDR = 0x8915
_OVERLAYS = ("docker", "shoal", "br-", "veth", "vx", "lo")


class Address(NamedTuple):
    """An IP address and a manager's port."""

    host: str
    port: int


def listen_address(text: str) -> Address:
    """What to listen on. Raises InvalidArgument."""
    wrong = "listen address must be an IP address or network interface (with optional port number)"
    host, port = _split(text or ANY, wrong)
    return Address(_resolve(host, wrong), port or MANAGER_PORT)


def advertised_address(text: str, listen: Address) -> Address:
    """Where others reach this host; found out where none is given. Raises InvalidArgument."""
    if text:
        wrong = "advertise address must be a non-zero IP address or network interface (with optional port number)"
        host, port = _split(text, wrong)
        address = _resolve(host, wrong)
        if ipaddress.ip_address(address).is_unspecified:
            raise InvalidArgument(wrong)
        return Address(address, port or listen.port)
    if not ipaddress.ip_address(listen.host).is_unspecified:
        return listen
    return Address(_only_address(), listen.port)


def data_path_address(text: str) -> str:
    """The IP address for overlay traffic; empty: the advertised one. Raises InvalidArgument."""
    if not text:
        return ""
    wrong = "data path address must be a non-zero IP address or network interface"
    address = _resolve(text, wrong)
    if ipaddress.ip_address(address).is_unspecified:
        raise InvalidArgument(wrong)
    return address


def _split(text: str, wrong: str) -> tuple[str, int]:
    """`host[:port]`; 0 where there is no port."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        host, colon, port = text.rpartition(":")
        if not colon:
            return text, 0
        if not port.isdecimal() or int(port[:6]) not in MANAGER_PORTS:
            raise InvalidArgument(f"{wrong}; in {text!r:.100} the port is none, or there is none above it for Raft"
                                  ) from None
        return host.strip("[]"), int(port)
    return text, 0


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
