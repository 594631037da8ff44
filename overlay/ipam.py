"""Addresses of this host's own networks. Pure: what is taken is an argument.

Cluster networks get theirs from the managers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

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


def choose_subnet6(seed: str, used: Iterable[str]) -> str:
    """A /64 of a unique local prefix (RFC 4193) made of `seed`, at least ten random hexadecimal digits."""
    taken = [IPv6Network(subnet) for subnet in used]
    for number in range(1, 256):
        pool = IPv6Network((int(f"fd{seed[:10]}{number:04x}", 16) << 64, 64))
        if not any(pool.overlaps(other) for other in taken):
            return str(pool)
    raise Unavailable("no IPv6 subnet is left to choose: name a subnet for the network")


def parse_subnet(text: str) -> IPv4Network | IPv6Network:
    """Raises InvalidArgument."""
    try:
        subnet = ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from error
    if subnet.prefixlen > subnet.max_prefixlen - 2:
        raise InvalidArgument(f"invalid subnet {text}: it has no room for a gateway and a container")
    return subnet


def parse_address(text: str, what: str = "address") -> IPv4Address | IPv6Address:
    """Raises InvalidArgument."""
    try:
        return ip_address(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid {what} {text}: {error}") from error


def overlap(one: str, other: str) -> bool:
    """Whether two subnets, perhaps of different families, have addresses in common."""
    first, second = ip_network(one), ip_network(other)
    return (isinstance(first, IPv4Network) and isinstance(second, IPv4Network) and first.overlaps(second)) or (
        isinstance(first, IPv6Network) and isinstance(second, IPv6Network) and first.overlaps(second))


def is_within(range_: str, subnet: str) -> bool:
    """Whether the whole of one subnet is part of another. Raises InvalidArgument."""
    inner, outer = parse_subnet(range_), parse_subnet(subnet)
    return (isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network) and inner.subnet_of(outer)) or (
        isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer))


def check_subnet(text: str, others: Iterable[tuple[str, str]]) -> IPv4Network | IPv6Network:
    """`text` as a subnet that overlaps none of `others`, pairs of (subnet, whose).

    Raises InvalidArgument, PermissionDenied where it overlaps.
    """
    subnet = parse_subnet(text)
    for other, whose in others:
        if other and overlap(text, other):
            raise PermissionDenied(f"invalid pool request: Pool overlaps with other one on this address space: "
                                   f"{subnet} and {other} of network {whose}")
    return subnet


def first_host(subnet: str) -> str:
    """The address a gateway gets if none is asked for."""
    return str(ip_network(subnet).network_address + 1)


def allocate(subnet: str, gateway: str, taken: Collection[str], wanted: str = "", ip_range: str = "") -> str:
    """The lowest free address of `subnet` (or of `ip_range` within it), or `wanted` itself.

    Raises InvalidArgument for a `wanted` outside, Conflict for one in use,
    Unavailable when none is left.
    """
    net = ip_network(subnet)
    reserved = {int(net.network_address)}
    if net.version == 4:
        reserved.add(int(net.broadcast_address))
    if wanted:
        address = parse_address(wanted.partition("/")[0])
        if address not in net or int(address) in reserved:
            raise InvalidArgument(f"Invalid address {address}: It does not belong to any of this network's subnets")
        if str(address) in taken or str(address) == gateway:
            raise Conflict(f"Address already in use: {address} on {subnet}")
        return str(address)
    pool = ip_network(ip_range, strict=False) if ip_range else net
    make = type(net.network_address)
    for number in range(int(pool.network_address), int(pool.broadcast_address) + 1):
        if number in reserved:
            continue
        candidate = str(make(number))
        if candidate not in taken and candidate != gateway:
            return candidate
    raise Unavailable(f"no available IPv{net.version} addresses on this network's address pools: {pool} is full")


def mac_of(address: str) -> str:
    """The MAC that belongs to an IPv4 address: 02:42, then its four bytes."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in IPv4Address(address).packed)
