"""Address pools: subnets out of the cluster's pools, addresses out of a subnet. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from shoal.api.errors import Conflict, InvalidArgument
from shoal.api.objects import IPAMConfig
from shoal.api.specs import IPAMPool

INGRESS_SUBNET = ipaddress.IPv4Network("10.0.0.0/24")
"""Kept for the ingress network."""


def mac_of(address: str) -> str:
    """The MAC that belongs to an IPv4 address: nobody has to look it up."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def overlapping(subnet: str, taken: Iterable[tuple[str, str]]) -> str:
    """The name of the first of these (name, subnet) that a subnet overlaps; "" where it overlaps none."""
    network = ipaddress.ip_network(subnet, strict=False)
    for name, other in taken:
        if network.overlaps(ipaddress.ip_network(other, strict=False)):
            return name
    return ""


def check_pools(pools: Sequence[IPAMPool], taken: Iterable[tuple[str, str]]) -> None:
    """Check what a user asks of a new network against the (name, subnet) that there are.

    Raises InvalidArgument where a pool makes no sense, Conflict where it overlaps another network's.
    """
    known = list(taken)
    for pool in pools:
        if not pool.subnet:
            if pool.gateway or pool.ip_range:
                raise InvalidArgument("a gateway or an IP range needs a subnet")
            continue
        subnet = _subnet(pool.subnet)
        for word, text in (("gateway", pool.gateway), ("IP range", pool.ip_range)):
            if text and not _within(text, subnet):
                raise InvalidArgument(f"{word} {text} is not within subnet {pool.subnet}")
        other = overlapping(pool.subnet, known)
        if other:
            raise Conflict(f"subnet {pool.subnet} overlaps with the one of network {other}: choose another")
        known.append(("(this one)", pool.subnet))


def _subnet(text: str) -> ipaddress.IPv4Network:
    try:
        subnet = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from error
    if not isinstance(subnet, ipaddress.IPv4Network):
        raise InvalidArgument(f"invalid subnet {text}: overlay networks have IPv4 subnets here")
    if subnet.prefixlen > 30:
        raise InvalidArgument(f"invalid subnet {text}: there is no room for a gateway and a task in it")
    return subnet


def _within(text: str, subnet: ipaddress.IPv4Network) -> bool:
    try:
        part = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return isinstance(part, ipaddress.IPv4Network) and part.subnet_of(subnet)


def configs(pools: Sequence[IPAMPool], fresh_subnet: str | None) -> tuple[IPAMConfig, ...]:
    """A network's addresses as stored: what the user asked for, or the subnet that was found for it."""
    asked = [pool for pool in pools if pool.subnet]
    if not asked:
        return (_config(IPAMPool(subnet=fresh_subnet)),) if fresh_subnet else ()
    return tuple(_config(pool) for pool in asked)


def _config(pool: IPAMPool) -> IPAMConfig:
    subnet = ipaddress.IPv4Network(pool.subnet, strict=False)
    gateway = pool.gateway.partition("/")[0] or str(subnet.network_address + 1)
    return IPAMConfig(subnet=str(subnet), gateway=gateway, ip_range=pool.ip_range)


def free_subnet(pools: Sequence[str], prefix: int, taken: Iterable[str]) -> str | None:
    """The lowest subnet of the pools that overlaps none taken; None where there is none. The ingress one is kept."""
    used = [ipaddress.ip_network(subnet, strict=False) for subnet in taken]
    used.append(INGRESS_SUBNET)
    for pool_text in pools:
        pool = ipaddress.IPv4Network(pool_text, strict=False)
        if pool.prefixlen > prefix:
            continue
        step, candidate = 1 << (32 - prefix), int(pool.network_address)
        inside = sorted(
            (int(each.network_address), int(each.broadcast_address)) for each in used if each.version == 4
        )
        for first, last in inside:
            if last < candidate:
                continue
            if first >= candidate + step:
                break
            candidate = (last // step + 1) * step
        if candidate + step - 1 <= int(pool.broadcast_address):
            return f"{ipaddress.IPv4Address(candidate)}/{prefix}"
    return None


class AddressPool:
    """The addresses of one network.

    Invariant: an address is held by one owner at most. Addresses are given in
    turn, so that one that was given back rests before it is given again.
    """

    def __init__(self, config: IPAMConfig) -> None:
        self.subnet = ipaddress.IPv4Network(config.subnet)
        within = ipaddress.IPv4Network(config.ip_range, strict=False) if config.ip_range else self.subnet
        self._first = max(int(within.network_address), int(self.subnet.network_address) + 1)
        self._last = min(int(within.broadcast_address), int(self.subnet.broadcast_address) - 1)
        self._gateway = int(ipaddress.IPv4Address(config.gateway)) if config.gateway else 0
        self._owners: dict[int, str] = {}
        self._next = self._first

    @property
    def size(self) -> int:
        """Addresses that may be given, in all."""
        return self._last - self._first + 1 - (self._first <= self._gateway <= self._last)

    @property
    def used(self) -> int:
        return len(self._owners)

    def claim(self, address: str, owner: str) -> bool:
        """Note an address (with or without prefix length) as held; False where another owner holds it."""
        number = int(ipaddress.IPv4Address(address.partition("/")[0]))
        if ipaddress.IPv4Address(number) not in self.subnet or number == self._gateway:
            return False
        if self._owners.setdefault(number, owner) != owner:
            return False
        if self._first <= number <= self._last and number >= self._next:
            self._next = number + 1
        return True

    def take(self, owner: str) -> str | None:
        """An address with its prefix length; None where every one is held."""
        if self.used >= self.size:
            inside = sum(1 for number in self._owners if self._first <= number <= self._last)
            if inside >= self.size:
                return None
        for _ in range(self._last - self._first + 1):
            number = self._next if self._next <= self._last else self._first
            self._next = number + 1
            if number != self._gateway and number not in self._owners:
                self._owners[number] = owner
                return f"{ipaddress.IPv4Address(number)}/{self.subnet.prefixlen}"
        return None

    def release(self, address: str, owner: str) -> None:
        """Give an address back; nothing happens where it is another's."""
        number = int(ipaddress.IPv4Address(address.partition("/")[0]))
        if self._owners.get(number) == owner:
            del self._owners[number]
