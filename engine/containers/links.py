"""Docker's old links on the default network: names in /etc/hosts, and the other's settings as variables.

A link is kept as "id:alias": the other container may get another name. On a
network of the user's, links are names that the network side answers.
Source: moby, daemon/links/links.go, daemon/container_operations_unix.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument, NotFound, ShoalError
from shoal.api.sandbox import Networking
from shoal.engine.containers.nouns import Container, HostConfig
from shoal.engine.containers.table import Table

NETWORK = "bridge"
_NOT_PASSED_ON = ("HOME", "PATH")
_PORT = re.compile(r"(\d+)/(\w+)", re.ASCII)


class Link(msgspec.Struct, frozen=True):
    """To a container that runs: at `address`, called `name`, by the alias `alias`."""

    alias: str
    name: str
    hostname: str
    address: str
    env: tuple[str, ...]
    ports: tuple[str, ...]  # "80/tcp"


# --- what it comes to (pure) ---


def hosts_lines(links: Sequence[Link]) -> str:
    """The lines of /etc/hosts."""
    return "".join(f"{link.address}\t{' '.join(dict.fromkeys((link.alias, link.hostname, link.name)))}\n"
                   for link in links)


def environment(links: Sequence[Link], parent: str) -> list[str]:
    """The variables in the container `parent`, which has the links."""
    return [entry for link in links for entry in _variables(link, parent)]


def _variables(link: Link, parent: str) -> Iterator[str]:
    alias = link.alias.upper().replace("-", "_")
    ports = sorted(((found[2], int(found[1])) for text in link.ports if (found := _PORT.fullmatch(text))),
                   key=lambda port: (port[0] != "tcp", *port))
    if ports:
        yield f"{alias}_PORT={ports[0][0]}://{link.address}:{ports[0][1]}"
    for run in _runs(ports):
        for protocol, number in run:
            prefix = f"{alias}_PORT_{number}_{protocol.upper()}"
            yield f"{prefix}={protocol}://{link.address}:{number}"
            yield f"{prefix}_ADDR={link.address}"
            yield f"{prefix}_PORT={number}"
            yield f"{prefix}_PROTO={protocol}"
        if len(run) > 1:
            protocol, (first, last) = run[0][0], (run[0][1], run[-1][1])
            prefix = f"{alias}_PORT_{first}_{protocol.upper()}"
            yield f"{prefix}_START={protocol}://{link.address}:{first}"
            yield f"{prefix}_PORT_START={first}"
            yield f"{prefix}_END={protocol}://{link.address}:{last}"
            yield f"{prefix}_PORT_END={last}"
    yield f"{alias}_NAME=/{parent}/{link.alias}"
    for name, separator, value in (entry.partition("=") for entry in link.env):
        if separator and name not in _NOT_PASSED_ON:
            yield f"{alias}_ENV_{name}={value}"


def _runs(ports: Sequence[tuple[str, int]]) -> list[list[tuple[str, int]]]:
    """Ports of one protocol that follow each other, together."""
    runs: list[list[tuple[str, int]]] = []
    for protocol, number in ports:
        if runs and runs[-1][-1] == (protocol, number - 1):
            runs[-1].append((protocol, number))
        else:
            runs.append([(protocol, number)])
    return runs


# --- who is linked ---


class Links:
    """The links between the containers of a table."""

    def __init__(self, table: Table, networking: Networking, hostname: Callable[[Container], str],
                 bundle: Callable[[str], Path]) -> None:
        self._table = table
        self._networking = networking
        self._hostname = hostname
        self._bundle = bundle

    def settled(self, host: HostConfig) -> tuple[str, ...]:
        """The links of a container about to be made, by id. Raises InvalidArgument."""
        return tuple(self._settled(link) for link in host.links)

    def _settled(self, link: str) -> str:
        name, _, alias = link.rpartition(":")
        try:
            child = self._table.find(name)
            while child.host.network_mode.startswith("container:"):
                child = self._table.find(child.host.network_mode.partition(":")[2])
        except NotFound as error:
            raise InvalidArgument(f"could not get container for {name}: {error}") from error
        if child.host.network_mode == "host":
            raise InvalidArgument("conflicting options: host type networking can't be used with links. This would "
                                  "result in undefined behavior")
        return f"{child.id}:{alias}"

    def of(self, container: Container) -> list[Link]:
        """To those that run; none where it is not on the default network. Raises ShoalError for one that does not."""
        if not container.host.links or container.host.network_mode not in ("", "default", NETWORK):
            return []
        return [self._link(container, *link.split(":")) for link in container.host.links]

    def _link(self, container: Container, child_id: str, alias: str) -> Link:
        child = self._table.get(child_id) if self._table.has(child_id) else None
        if child is None or not child.state.running:
            name = child.name if child else child_id[:12]
            raise ShoalError(f"Cannot link to a non running container: /{name} AS /{container.name}/{alias}")
        sandbox = self._networking.sandbox(child_id)
        address = next((end.address for end in sandbox.endpoints if end.network_name == NETWORK),
                       "") if sandbox else ""
        if not address:
            raise ShoalError(f"Cannot link to /{child.name}, as it does not belong to the default network")
        return Link(alias, child.name, self._hostname(child), address, child.config.env, child.config.exposed_ports)

    def known(self, container: Container) -> list[Link]:
        """As `of`, without those that do not run just now."""
        found = []
        for link in container.host.links:
            try:
                found += self.of(msgspec.structs.replace(container, host=msgspec.structs.replace(
                    container.host, links=(link,))))
            except ShoalError:
                continue
        return found

    def has_started(self, child: Container) -> None:
        """Tell those that are linked to it its address, which may be a new one."""
        for parent in self._table.all():
            if parent.state.running and any(link.startswith(f"{child.id}:") for link in parent.host.links):
                sandbox = self._networking.sandbox(parent.id)
                if sandbox is not None:
                    (self._bundle(parent.id) / "hosts").write_text(sandbox.hosts + hosts_lines(self.known(parent)))

    def remove(self, ref: str, alias: str) -> None:
        """Take the link `alias` from a container. Raises NotFound. What runs keeps what it was told."""
        container = self._table.find(ref)
        kept = tuple(link for link in container.host.links if link.partition(":")[2] != alias)
        if kept == container.host.links:
            raise NotFound(f"Cannot get parent {container.name} for link name /{container.name}/{alias}: "
                           "there is no such link")
        self._table.change(container.id, host=msgspec.structs.replace(container.host, links=kept))
