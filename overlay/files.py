"""The texts of a container's /etc/hosts and /etc/resolv.conf. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import msgspec

RESOLVER = "127.0.0.11"
"""Where a sandbox with names of its own finds its resolver."""

PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")
"""Used where the host names no server that a container could reach."""

_LOCAL = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)


class Resolv(msgspec.Struct, frozen=True):
    """What a resolv.conf says."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse_resolv(text: str) -> Resolv:
    """Unknown lines are skipped; the last `search` or `domain` wins, `options` add up."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return Resolv(tuple(servers), search, tuple(options))


def reachable(servers: Iterable[str]) -> tuple[str, ...]:
    """The servers that another network namespace can reach: those not on a loopback address."""
    found = []
    for server in servers:
        try:
            address = ip_address(server.partition("%")[0])
        except ValueError:
            continue
        if not address.is_loopback:
            found.append(server)
    return tuple(found)


def resolv_conf(
    host: Resolv, *, embedded: bool, dns: Sequence[str] = (), search: Sequence[str] = (), options: Sequence[str] = (),
) -> str:
    """A container's resolv.conf: its own settings where given, else the host's.

    `embedded`: names are answered by the resolver in the sandbox, which forwards
    to the servers; else the servers stand there themselves.
    """
    servers = (RESOLVER,) if embedded else tuple(dns) or reachable(host.servers) or PUBLIC_SERVERS
    domains = tuple(search) or host.search
    if domains == (".",):
        domains = ()
    flags = tuple(options) or host.options
    if embedded and not any(flag.startswith("ndots:") for flag in flags):
        flags = (*flags, "ndots:0")
    lines = ["# Written by Shoal when the container started.", *(f"nameserver {server}" for server in servers)]
    if domains:
        lines.append("search " + " ".join(domains))
    if flags:
        lines.append("options " + " ".join(flags))
    return "\n".join(lines) + "\n"


def hosts(
    addresses: Sequence[str], names: Sequence[str], extra: Sequence[str] = (), *, gateway: str = "", base: str = "",
) -> str:
    """A container's hosts file: localhost (or the text `base`), `extra` ("name:address"), its own names.

    In `extra` the address `host-gateway` means `gateway`.
    """
    lines = [base or _LOCAL]
    for entry in extra:
        separator = "=" if "=" in entry and ":" not in entry.partition("=")[0] else ":"
        name, _, address = entry.partition(separator)
        address = address.strip("[]")
        if address == "host-gateway":
            address = gateway
        if name and address:
            lines.append(f"{address}\t{name}\n")
    own = " ".join(name for name in names if name)
    if own:
        lines += [f"{address}\t{own}\n" for address in addresses]
    return "".join(lines)
