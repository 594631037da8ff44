"""Where a registry is: from the domain of a name to the addresses to try, in order. Pure.

Source: Docker's registry configuration: Docker Hub's host, insecure-registries, registry-mirrors.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.reference import DEFAULT_DOMAIN

DOCKER_HUB = "registry-1.docker.io"
HUB_NAMES = frozenset({"", "docker.io", "index.docker.io", "registry-1.docker.io"})


class Endpoint(msgspec.Struct, frozen=True):
    """One address of a registry. `url` ends before /v2/."""

    url: str
    verify: bool = True  # its certificate
    mirror: bool = False

    @property
    def host(self) -> str:
        return self.url.partition("://")[2].partition("/")[0]


class RegistryRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say of registries."""

    insecure: tuple[str, ...] = ()  # HOST[:PORT] or a network, 10.0.0.0/8
    mirrors: tuple[str, ...] = ()  # URLs, of Docker Hub only


NO_RULES = RegistryRules()
"""Only what is on this host's loopback may do without a certificate."""

LOOPBACK = (ipaddress.ip_network("::1/128"), ipaddress.ip_network("127.0.0.0/8"))

Known = Mapping[str, Sequence[str]]
"""Name of a host → its addresses."""

NOTHING: Known = MappingProxyType({})


def endpoints(domain: str, rules: RegistryRules, *, mirrors: bool = False, known: Known = NOTHING) -> list[Endpoint]:
    """The addresses of the registry that names of `domain` are at; `mirrors`: to read, where a copy will do."""
    hub = domain in HUB_NAMES
    found = [Endpoint(url.rstrip("/"), verify=not is_insecure(_host_of(url), rules, known), mirror=True)
             for url in rules.mirrors if mirrors and hub]
    host = DOCKER_HUB if hub else domain
    if is_insecure(host, rules, known):
        return [*found, Endpoint(f"https://{host}", verify=False), Endpoint(f"http://{host}", verify=False)]
    return [*found, Endpoint(f"https://{host}")]


def names_to_look_up(domain: str, rules: RegistryRules, *, mirrors: bool = False) -> list[str]:
    """Those of hosts whose addresses decide whether they may be insecure. Docker Hub's never do."""
    hub = domain in HUB_NAMES
    hosts = [_without_port(_host_of(url)) for url in rules.mirrors if mirrors] if hub else [_without_port(domain)]
    return [host for host in hosts if _address(host) is None]


def is_insecure(host: str, rules: RegistryRules, known: Known = NOTHING) -> bool:
    """Whether a registry may do without a certificate that is trusted: loopback, and what the settings name."""
    bare = _without_port(host)
    if host in rules.insecure or bare in rules.insecure or bare == "localhost":
        return True
    networks = [*LOOPBACK, *_networks(rules.insecure)]
    return any(address is not None and any(address in network for network in networks)
               for address in map(_address, (bare, *known.get(bare, ()))))


def check_rules(rules: RegistryRules) -> None:
    """Raises InvalidArgument for an entry that means nothing."""
    for entry in rules.insecure:
        if "://" in entry or not entry or ("/" in entry and not _networks([entry])):
            raise InvalidArgument(f"insecure registry {entry!r} is not valid: write HOST, HOST:PORT or a network")
    for mirror in rules.mirrors:
        if not mirror.startswith(("http://", "https://")) or not _host_of(mirror) or "?" in mirror or "@" in mirror:
            raise InvalidArgument(f"invalid mirror {mirror!r}: write http(s)://HOST[:PORT]")


def is_hub(domain: str) -> bool:
    return domain == DEFAULT_DOMAIN


def _networks(entries: Sequence[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = []
    for entry in entries:
        if "/" in entry:
            try:
                found.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                continue
    return found


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _host_of(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
