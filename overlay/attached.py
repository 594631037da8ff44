"""A sandbox's place on a network, as it is settled before anything is made. Pure: ids and addresses are given."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.api.errors import Conflict
from shoal.api.messages import NetworkInfo
from shoal.api.sandbox import EndpointRequest
from shoal.overlay import describe, endpointopts, ipam
from shoal.overlay.localspecs import PARENTED
from shoal.overlay.records import GWBRIDGE, Attached, LocalNetwork, SandboxRecord


def on_local(record: SandboxRecord, network: LocalNetwork, endpoint_id: str, address: str, address6: str,
             request: EndpointRequest | None) -> Attached:
    """On a network of this host. No `request`: on the bridge that leads overlay sandboxes outside."""
    names = () if network.is_default or request is None else describe.dns_names(
        record.container_id, record.name, record.hostname, request.aliases)
    mac = (request.mac if request else "") or ipam.mac_of(address)
    return Attached(
        network_id=network.id, network_name=network.name, driver=network.driver, endpoint_id=endpoint_id,
        link=free_link(record, network.link_prefix, request), address=address,
        prefix_length=_length(network.subnet), mac="" if network.driver == "ipvlan" else mac, mtu=network.mtu,
        gateway="" if network.internal else network.gateway, address6=address6,
        prefix_length6=_length(network.subnet6) if address6 else 0,
        gateway6=network.gateway6 if address6 and not network.internal else "", internal=network.internal,
        host_link="" if network.driver in PARENTED else f"v{endpoint_id[:7]}", names=names, request=request)


def on_told(record: SandboxRecord, told: NetworkInfo, endpoint_id: str, address: str, prefix_length: int,
            request: EndpointRequest) -> Attached:
    """On a network of the cluster."""
    return Attached(
        network_id=told.id, network_name=told.name, driver=told.driver, endpoint_id=endpoint_id,
        link=free_link(record, "eth", request), address=address, prefix_length=prefix_length, vni=told.vni,
        mtu=told.mtu, mac=request.mac or ipam.mac_of(address), request=request, internal=told.internal,
        names=describe.dns_names(record.container_id, record.name, record.hostname, request.aliases))


def free_link(record: SandboxRecord, prefix: str, request: EndpointRequest | None) -> str:
    """The name that is asked for, or the first of eth0, eth1, … that the sandbox has not. Raises Conflict."""
    links = {one.link for one in record.attached}
    if request is not None and (wanted := endpointopts.link_name(request.driver_opts)):
        if wanted in links:
            raise Conflict(f"interface name {wanted} is used by another network of container {record.name}")
        return wanted
    return next(name for number in range(len(links) + 1) if (name := f"{prefix}{number}") not in links)


def _length(subnet: str) -> int:
    return int(subnet.partition("/")[2])


# --- which of several leads outside ---


def ranked(attached: Sequence[Attached]) -> list[Attached]:
    """Where the way out is looked for, in order. Source: libnetwork, `Endpoint.Less`."""
    return sorted(attached, key=lambda one: (
        -(one.request.gw_priority if one.request else 0), one.network_name == GWBRIDGE, one.internal,
        -(bool(one.gateway) + bool(one.gateway6)), one.network_name))


def gateways(attached: Sequence[Attached]) -> tuple[str, ...]:
    """The routers of the default routes: of IPv4, of IPv6, where there is one."""
    order = ranked(attached)
    found = (next((one.gateway for one in order if one.gateway), ""),
             next((one.gateway6 for one in order if one.gateway6), ""))
    return tuple(filter(None, found))


def outside(attached: Sequence[Attached]) -> Attached | None:
    """The end that published ports lead to: the bridge's that holds the default route. None: they lead nowhere."""
    first = next((one for one in ranked(attached) if one.gateway), None)
    return first if first is not None and first.host_link else None


def reaches_out(attached: Sequence[Attached]) -> bool:
    """Whether any of its networks is more than internal."""
    return any(one.gateway or (one.driver in PARENTED and not one.internal) for one in attached)
