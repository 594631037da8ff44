"""A container's network sandbox: what the engine asks for, what the network side answers.

The engine knows containers, the overlay package knows networks; neither imports
the other. The daemon hands the engine something that satisfies `Networking`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class PublishedPort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`-p host_ip:host_port:container_port/protocol`. `host_port` 0: the host picks one of 32768-60999.

    With `last_host_port` the host picks one of `host_port` to that.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    last_host_port: int = 0


class EndpointRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place on one network. For a cluster's network the managers chose `address` and `mac`."""

    network: str  # id or name
    aliases: tuple[str, ...] = ()
    address: str = ""  # IPv4 without or with prefix length; empty: allocate
    address6: str = ""  # IPv6; empty: allocate where the network has it
    link_local: tuple[str, ...] = ()  # more addresses, on its link alone
    mac: str = ""
    links: tuple[str, ...] = ()  # "container:alias": names that this container alone knows
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0  # the network with the highest leads outside


class SandboxRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The network side of a container about to start.

    `mode`: "none", "host", "container:<id>", or "networks" (the `endpoints` say which).
    """

    container_id: str
    name: str
    hostname: str = ""
    mode: str = "networks"
    endpoints: tuple[EndpointRequest, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "name:address"
    sysctls: dict[str, str] = {}  # net.* only: set in the sandbox


class EndpointInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An endpoint as it was made, and as inspect shows it."""

    network_id: str
    network_name: str
    endpoint_id: str
    address: str  # IPv4, no prefix length
    prefix_length: int
    mac: str
    gateway: str = ""
    address6: str = ""  # IPv6, no prefix length
    prefix_length6: int = 0
    gateway6: str = ""
    aliases: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()


class Sandbox(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sandbox that is up.

    `netns` is a path that the OCI runtime joins; empty means the host's own namespace.
    `hosts` and `resolv_conf` are the texts of the container's /etc/hosts and /etc/resolv.conf.
    """

    container_id: str
    netns: str
    endpoints: tuple[EndpointInfo, ...] = ()
    ports: tuple[PublishedPort, ...] = ()  # with the host ports really bound
    hosts: str = ""
    resolv_conf: str = ""


class Networking(Protocol):
    """What the engine needs of the network side."""

    async def up(self, request: SandboxRequest) -> Sandbox:
        """Make the sandbox. Idempotent for one container id; leaves nothing after an error."""

    async def down(self, container_id: str) -> None:
        """Take the sandbox away. No error where there is none."""

    def sandbox(self, container_id: str) -> Sandbox | None:
        """The sandbox that is up for this container, if any (also one made before a restart)."""

    async def connect(self, container_id: str, endpoint: EndpointRequest) -> Sandbox:
        """Add a network to a sandbox that is up."""

    async def disconnect(self, container_id: str, network: str) -> Sandbox:
        """Take a network from a sandbox that is up."""
