"""Addresses of this host's own networks. Pure: what is taken is an argument.

Cluster networks get theirs from the managers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from shoal.api.errors import Conflict, InvalidArgument, PermissionDenied, Unavailable


def default_pools() -> Iterator[IPv4Network]:
    """The subnets that are offered, in order: 172.17.0.0/16 to 172.31.0.0/16, then /20s of 192.168.0.0/16."""
    for second in range(17, 32):
        yield IPv4Network(f"172.{second}.0.0/16")
    yield from IPv4Network("192.168.0.0/16").subnets(new_prefix=20)


def choose_subnet(used: Iterable[str]) -> str:
    """The first default pool that overlaps nothing in `used`. Raises Unavailable when there is none."""
    taken = [IPv4Network(subnet) for subnet in used]
    for pool in default_pools():
        if not any(pool.overlaps(other) for other in taken):
            return str(pool)
    raise Unavailable("all predefined address pools have been fully subnetted: name a subnet for the network")


def parse_subnet(text: str) -> IPv4Network:
    """Raises InvalidArgument."""
    try:
        subnet = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from error
    if subnet.prefixlen > 30:
        raise InvalidArgument(f"invalid subnet {text}: it has no room for a gateway and a container")
    return subnet


def parse_address(text: str, what: str = "address") -> IPv4Address:
    """Raises InvalidArgument."""
    try:
        return IPv4Address(text)
    except AddressValueError as error:
        raise InvalidArgument(f"invalid {what} {text}: {error}") from error


def check_subnet(text: str, others: Iterable[tuple[str, str]]) -> IPv4Network:
    """`text` as a subnet that overlaps none of `others`, pairs of (subnet, whose).

    Raises InvalidArgument, PermissionDenied where it overlaps.
    """
    subnet = parse_subnet(text)
    for other, whose in others:
        if other and subnet.overlaps(IPv4Network(other)):
            raise PermissionDenied(f"invalid pool request: Pool overlaps with other one on this address space: "
                                   f"{subnet} and {other} of network {whose}")
    return subnet


def first_host(subnet: str) -> str:
    """The address a gateway gets if none is asked for."""
    return str(IPv4Network(subnet).network_address + 1)


def allocate(subnet: str, gateway: str, taken: Collection[str], wanted: str = "", ip_range: str = "") -> str:
    """The lowest free address of `subnet` (or of `ip_range` within it), or `wanted` itself.

    Raises InvalidArgument for a `wanted` outside, Conflict for one in use,
    Unavailable when none is left.
    """
    net = IPv4Network(subnet)
    if wanted:
        address = parse_address(wanted.partition("/")[0])
        if address not in net or address in (net.network_address, net.broadcast_address):
            raise InvalidArgument(f"Invalid address {address}: It does not belong to any of this network's subnets")
        if str(address) in taken or str(address) == gateway:
            raise Conflict(f"Address already in use: {address} on {subnet}")
        return str(address)
    pool = IPv4Network(ip_range) if ip_range else net
    reserved = {int(net.network_address), int(net.broadcast_address)}
    for number in range(int(pool.network_address), int(pool.broadcast_address) + 1):
        if number in reserved:
            continue
        candidate = str(IPv4Address(number))
        if candidate not in taken and candidate != gateway:
            return candidate
    raise Unavailable(f"no available IPv4 addresses on this network's address pools: {pool} is full")


def mac_of(address: str) -> str:
    """The MAC that belongs to an IPv4 address: 02:42, then its four bytes."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in IPv4Address(address).packed)
