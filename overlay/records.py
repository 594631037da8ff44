"""The nouns of this package, and those of them that are kept on disk.

Networks of this host are kept under the data root, one file each. Sandboxes and
what the managers last told are kept under the run root: they end with the boot.
"""

from __future__ import annotations

import msgspec

from shoal.api.sandbox import EndpointRequest, PublishedPort, Sandbox

BRIDGE, GWBRIDGE = "bridge", "shoal_gwbridge"
"""The default network, and the one that takes overlay sandboxes to the outside."""

DEFAULT_LINK, GWBRIDGE_LINK = "shoal0", "shoalgw0"
PREDEFINED = frozenset({"bridge", "host", "none", GWBRIDGE})


class LocalNetworkSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network of this host alone, as a client asks for it. Empty fields are chosen."""

    name: str
    driver: str = "bridge"
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    reserved: dict[str, str] = {}
    subnet6: str = ""
    gateway6: str = ""
    ip_range6: str = ""
    reserved6: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    ipam_options: dict[str, str] | None = None  # kept for inspect: None where none were given, not even {}


class LocalNetwork(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network of this host alone. `subnet` is empty for host and none, `subnet6` without IPv6.

    `reserved` are addresses that no container gets, by the names they were given (Docker: auxiliary).
    """

    id: str
    name: str
    driver: str
    created: str  # RFC 3339, UTC
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    reserved: dict[str, str] = {}
    subnet6: str = ""
    gateway6: str = ""
    ip_range6: str = ""
    reserved6: dict[str, str] = {}
    internal: bool = False
    attachable: bool = False
    ipv6: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    ipam_options: dict[str, str] | None = None
    link: str = ""  # the bridge's name, or the parent of macvlan and ipvlan
    mode: str = ""  # of macvlan: bridge, private, vepa, passthru; of ipvlan: l2
    foreign: bool = False  # the link is the user's own, and stays when the network goes
    mtu: int = 1500
    icc: bool = True  # whether its containers reach each other
    masquerade: bool = True
    host_ip: str = ""  # where ports are published that name no address
    link_prefix: str = "eth"  # of the links' names in sandboxes

    @property
    def is_default(self) -> bool:
        return self.name == BRIDGE


class Attached(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One end of a sandbox: a link in it, on one network.

    `host_link` is the veth's end on the host, empty for other kinds.
    """

    network_id: str
    network_name: str
    driver: str
    endpoint_id: str
    link: str  # its name in the sandbox
    address: str
    prefix_length: int
    mac: str
    gateway: str = ""
    address6: str = ""
    prefix_length6: int = 0
    gateway6: str = ""
    internal: bool = False
    host_link: str = ""
    vni: int = 0
    mtu: int = 1500
    names: tuple[str, ...] = ()  # what other sandboxes of the network resolve to it
    request: EndpointRequest | None = None  # None: made for its own sake (the gateway bridge)


class SandboxRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sandbox that is up, as it is found again after a restart."""

    container_id: str
    name: str
    hostname: str
    mode: str
    netns: str
    attached: tuple[Attached, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    dns_port: int = 0  # 0: no resolver of ours
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    sandbox: Sandbox
