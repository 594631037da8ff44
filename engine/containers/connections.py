"""Networks that a container joins and leaves after it was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from shoal.api.errors import Conflict, InvalidArgument
from shoal.api.sandbox import EndpointRequest, Networking, Sandbox
from shoal.engine.containers.launcher import hostname, network_of, write_network_files
from shoal.engine.containers.links import Links, hosts_lines
from shoal.engine.containers.nouns import Container
from shoal.engine.containers.table import Table

DEFAULT_ENDPOINTS = (EndpointRequest(network="bridge"),)


class Connections:
    """At once where the container has a sandbox, else at its next start. `bundle`: where its network files are."""

    def __init__(self, table: Table, networking: Networking, bundle: Callable[[str], Path], links: Links) -> None:
        self._table = table
        self._networking = networking
        self._bundle = bundle
        self._links = links

    async def connect(self, container: Container, endpoint: EndpointRequest) -> None:
        mode, endpoints = network_of(container)
        alone = mode == "none" and not container.config.network_disabled  # the last network was taken from it
        if mode != "networks" and not alone:
            raise InvalidArgument(f"container sharing network namespace with another container or host cannot be "
                                  f"connected to any other network: {container.id}")
        if any(one.network == endpoint.network for one in endpoints):
            raise Conflict(f"endpoint with name {container.name} already exists in network {endpoint.network}")
        if self._networking.sandbox(container.id) is not None:
            self._show(container, await self._networking.connect(container.id, endpoint))
        if alone:
            self._change(container, (endpoint,), endpoint.network)
        else:
            self._change(container, (*(endpoints or DEFAULT_ENDPOINTS), endpoint), container.host.network_mode)

    async def disconnect(self, container: Container, network: str) -> None:
        _, endpoints = network_of(container)
        if self._networking.sandbox(container.id) is not None:
            self._show(container, await self._networking.disconnect(container.id, network))
        kept = tuple(one for one in endpoints or DEFAULT_ENDPOINTS if one.network != network)
        self._change(container, kept, container.host.network_mode if kept else "none")

    def _change(self, container: Container, endpoints: tuple[EndpointRequest, ...], mode: str) -> None:
        host = msgspec.structs.replace(self._table.get(container.id).host, endpoints=endpoints, network_mode=mode)
        self._table.change(container.id, host=host)

    def _show(self, container: Container, sandbox: Sandbox) -> None:
        """Let the container see its new names and resolvers."""
        if container.state.running:
            write_network_files(self._bundle(container.id), sandbox, hostname(container),
                                hosts_lines(self._links.known(container)))
