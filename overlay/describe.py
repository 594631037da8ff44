"""From what was decided about a sandbox to how the engine and the kernel are told. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from shoal.api.sandbox import EndpointInfo, Sandbox, SandboxRequest
from shoal.overlay import endpointopts, files
from shoal.overlay.localspecs import MTU
from shoal.overlay.records import BRIDGE, GWBRIDGE, Attached, LocalNetwork, SandboxRecord
from shoal.overlay.sandboxes import End

SHORT_ID = 12


def dns_names(container_id: str, name: str, hostname: str, aliases: Iterable[str]) -> tuple[str, ...]:
    """What other sandboxes of a network may call this one; its own name first."""
    return tuple(dict.fromkeys(one for one in (name, *aliases, container_id[:SHORT_ID], hostname) if one))


def end(attached: Attached, network: LocalNetwork | None, *, published: bool) -> End:
    """What is made in the kernel. `network`: None for one of the cluster; `published`: it has published ports."""
    common = End(link=attached.link, mac=attached.mac, mtu=attached.mtu, addresses=_addresses(attached),
                 sysctls=_sysctls(attached))
    if network is None:
        return msgspec.structs.replace(common, vni=attached.vni)
    if network.driver != "bridge":
        mtu = network.mtu if MTU in network.options else 0  # the parent's
        return msgspec.structs.replace(common, kind=network.driver, parent=network.link, mode=network.mode, mtu=mtu,
                                       made_as=f"s{attached.endpoint_id[:10]}")
    common = msgspec.structs.replace(common, mtu=network.mtu)
    return msgspec.structs.replace(common, host_link=attached.host_link, master=network.link,
                                   isolated=not network.icc, hairpin=published)


def _addresses(attached: Attached) -> tuple[str, ...]:
    found = [f"{attached.address}/{attached.prefix_length}"]
    if attached.address6:
        found.append(f"{attached.address6}/{attached.prefix_length6}")
    for address in attached.request.link_local if attached.request else ():
        found.append(f"{address}/{64 if ':' in address else 16}")
    return tuple(found)


def _sysctls(attached: Attached) -> dict[str, str]:
    """IPv6 is off on every link of a sandbox but on those whose network has it."""
    found = {}
    if any(":" in address for address in _addresses(attached)):
        found = {f"net.ipv6.conf.{attached.link}.{name}": "0" for name in ("disable_ipv6", "accept_ra")}
    return found | endpointopts.sysctls(attached.request.driver_opts if attached.request else {}, attached.link)


def link_names(links: Iterable[str]) -> dict[str, str]:
    """Alias → the name that others know it by, of links "container:alias"."""
    found = {}
    for link in links:
        name, _, alias = link.partition(":")
        is_id = len(name) == 64 and all(letter in "0123456789abcdef" for letter in name)
        found[alias or name] = name[:SHORT_ID] if is_id else name
    return found


def has_resolver(attached: Iterable[Attached]) -> bool:
    """Whether a sandbox on these networks has names, hence a resolver: the default bridge gives none."""
    return any(one.network_name not in (BRIDGE, GWBRIDGE) for one in attached)


def endpoint_info(attached: Attached) -> EndpointInfo:
    request = attached.request
    return EndpointInfo(
        network_id=attached.network_id, network_name=attached.network_name, endpoint_id=attached.endpoint_id,
        address=attached.address, prefix_length=attached.prefix_length, mac=attached.mac,
        gateway=attached.gateway, address6=attached.address6, prefix_length6=attached.prefix_length6,
        gateway6=attached.gateway6, aliases=request.aliases if request else (), dns_names=attached.names,
    )


def describe(record: SandboxRecord, host: files.Resolv, host_gateway: str, base_hosts: str = "") -> SandboxRecord:
    """`record` with its `sandbox` written anew from its other fields."""
    shown = [one for one in record.attached if one.request is not None]
    names = (record.hostname or record.container_id[:SHORT_ID],)
    addresses = [address for one in shown for address in (one.address, one.address6) if address]
    sandbox = Sandbox(
        container_id=record.container_id, netns=record.netns, ports=record.ports,
        endpoints=tuple(endpoint_info(one) for one in shown),
        hosts=files.hosts(addresses, names, record.extra_hosts, gateway=host_gateway, base=base_hosts),
        resolv_conf=files.resolv_conf(host, embedded=has_resolver(record.attached), dns=record.dns,
                                      search=record.dns_search, options=record.dns_options),
    )
    return SandboxRecord(**{field: getattr(record, field) for field in record.__struct_fields__ if field != "sandbox"},
                         sandbox=sandbox)


def blank(request: SandboxRequest, netns: str) -> SandboxRecord:
    """The record of a sandbox with nothing attached yet."""
    return SandboxRecord(
        container_id=request.container_id, name=request.name, hostname=request.hostname, mode=request.mode,
        netns=netns, dns=request.dns, dns_search=request.dns_search, dns_options=request.dns_options,
        extra_hosts=request.extra_hosts, sandbox=Sandbox(container_id=request.container_id, netns=netns),
    )
