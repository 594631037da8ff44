"""What must change in the kernel: (wanted, what stands) → operations. Pure.

Applying the operations to what stands gives what is wanted, and planning again
then gives none. Cost is that of the two sides given, so a caller that knows what
changed gives only those keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from shoal.api.messages import NetworkEndpoint
from shoal.overlay.sandboxtable import DropService, ServiceOp, SetService


class Forwarding(msgspec.Struct):
    """What a VXLAN device knows: MAC → host behind it, address → MAC."""

    fdb: dict[str, str] = {}
    neighbours: dict[str, str] = {}


class SetFdb(msgspec.Struct, frozen=True):
    mac: str
    node: str


class DropFdb(msgspec.Struct, frozen=True):
    mac: str


class SetNeighbour(msgspec.Struct, frozen=True):
    address: str
    mac: str


class DropNeighbour(msgspec.Struct, frozen=True):
    address: str


ForwardOp = SetFdb | DropFdb | SetNeighbour | DropNeighbour


def wanted_forwarding(endpoints: Iterable[NetworkEndpoint], own_address: str) -> Forwarding:
    """The entries for `endpoints`. Those here, or nowhere yet, need none: macvlan finds its siblings itself."""
    wanted = Forwarding()
    for endpoint in endpoints:
        if endpoint.node_addr and endpoint.node_addr != own_address:
            wanted.fdb[endpoint.mac] = endpoint.node_addr
            wanted.neighbours[endpoint.address] = endpoint.mac
    return wanted


def plan_forwarding(wanted: Forwarding, actual: Forwarding) -> list[ForwardOp]:
    """Additions first: an endpoint that moved is never unreachable in between."""
    ops: list[ForwardOp] = [SetFdb(mac, node) for mac, node in wanted.fdb.items() if actual.fdb.get(mac) != node]
    ops += [SetNeighbour(address, mac) for address, mac in wanted.neighbours.items()
            if actual.neighbours.get(address) != mac]
    ops += [DropNeighbour(address) for address in actual.neighbours if address not in wanted.neighbours]
    ops += [DropFdb(mac) for mac in actual.fdb if mac not in wanted.fdb]
    return ops


def carry_out(actual: Forwarding, ops: Iterable[ForwardOp]) -> None:
    """What `ops` make of `actual`, in place: how the driver remembers what the kernel has."""
    for op in ops:
        match op:
            case SetFdb(mac, node):
                actual.fdb[mac] = node
            case DropFdb(mac):
                actual.fdb.pop(mac, None)
            case SetNeighbour(address, mac):
                actual.neighbours[address] = mac
            case DropNeighbour(address):
                actual.neighbours.pop(address, None)


def plan_services(
    wanted: Mapping[str, tuple[str, ...]], actual: Mapping[str, tuple[str, ...]],
) -> list[ServiceOp]:
    """VIP → backends: what to set and what to drop."""
    ops: list[ServiceOp] = [DropService(vip, was) for vip, was in actual.items() if vip not in wanted]
    ops += [SetService(vip, backends, actual.get(vip)) for vip, backends in wanted.items()
            if actual.get(vip) != backends]
    return ops


def lost_backends(ops: Iterable[ServiceOp]) -> set[tuple[str, str]]:
    """Pairs (VIP, backend) that no connection may use any more: their flows must be forgotten."""
    lost = set()
    for op in ops:
        stays = op.backends if isinstance(op, SetService) else ()
        lost |= {(op.vip, backend) for backend in op.was or () if backend not in stays}
    return lost
