"""From what was decided about a sandbox to how the engine and the kernel are told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shoal.api.sandbox import EndpointInfo, Sandbox, SandboxRequest
from shoal.overlay import files
from shoal.overlay.records import BRIDGE, GWBRIDGE, Attached, LocalNetwork, SandboxRecord
from shoal.overlay.sandboxes import End

SHORT_ID = 12


def dns_names(container_id: str, name: str, hostname: str, aliases: Iterable[str]) -> tuple[str, ...]:
    """What other sandboxes of a network may call this one; its own name first."""
    return tuple(dict.fromkeys(one for one in (name, *aliases, container_id[:SHORT_ID], hostname) if one))


def bridge_end(attached: Attached, network: LocalNetwork, *, published: bool) -> End:
    return End(link=attached.link, mac=attached.mac, mtu=network.mtu,
               address=f"{attached.address}/{attached.prefix_length}", host_link=attached.host_link,
               master=network.link, isolated=not network.icc, hairpin=published)


def overlay_end(attached: Attached) -> End:
    return End(link=attached.link, mac=attached.mac, mtu=attached.mtu,
               address=f"{attached.address}/{attached.prefix_length}", vni=attached.vni)


def has_resolver(attached: Iterable[Attached]) -> bool:
    """Whether a sandbox on these networks has names, hence a resolver: the default bridge gives none."""
    return any(one.network_name not in (BRIDGE, GWBRIDGE) for one in attached)


def default_gateway(attached: Sequence[Attached]) -> str:
    """The gateway of the first network that leads outside."""
    return next((one.gateway for one in attached if one.gateway), "")


def outside(attached: Sequence[Attached]) -> Attached | None:
    """The end that published ports lead to: the one that holds the default route."""
    return next((one for one in attached if one.gateway), None)


def endpoint_info(attached: Attached) -> EndpointInfo:
    request = attached.request
    return EndpointInfo(
        network_id=attached.network_id, network_name=attached.network_name, endpoint_id=attached.endpoint_id,
        address=attached.address, prefix_length=attached.prefix_length, mac=attached.mac,
        gateway=attached.gateway, aliases=request.aliases if request else (), dns_names=attached.names,
    )


def describe(record: SandboxRecord, host: files.Resolv, host_gateway: str, base_hosts: str = "") -> SandboxRecord:
    """`record` with its `sandbox` written anew from its other fields."""
    shown = [one for one in record.attached if one.request is not None]
    names = (record.hostname or record.container_id[:SHORT_ID],)
    sandbox = Sandbox(
        container_id=record.container_id, netns=record.netns, ports=record.ports,
        endpoints=tuple(endpoint_info(one) for one in shown),
        hosts=files.hosts([one.address for one in shown], names, record.extra_hosts, gateway=host_gateway,
                          base=base_hosts),
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
