"""`docker run --network` on a swarm's network: the managers give the address, this host makes the endpoint.

`Attaching` stands between the engine and the network side. What the engine asks for
by a name that only the swarm knows is first asked of the managers; a sandbox that
goes down gives its places back, as soon as a manager can be told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from shoal.api.errors import NotFound, PermissionDenied, ShoalError
from shoal.api.messages import NetworkInfo
from shoal.api.sandbox import EndpointRequest, Networking, Sandbox, SandboxRequest

log = logging.getLogger(__name__)

RETRY_S = 2.0
"""Between two attempts to give places back while no manager answers."""


class Attacher(Protocol):
    """What is needed of the agent."""

    async def find_network(self, reference: str) -> NetworkInfo | None: ...

    async def attach(
        self, network: str, container_id: str, name: str, aliases: tuple[str, ...] = (), address: str = ""
    ) -> EndpointRequest: ...

    async def detach(self, container_id: str, network_id: str = "") -> None: ...

    def attachments(self) -> dict[str, dict[str, str]]: ...


class Attaching:
    """Implements `api.sandbox.Networking` over another one. `is_local`: whether this host has a network of that name.

    `agent` gives the agent, or None outside a swarm.
    """

    def __init__(
        self, networks: Networking, is_local: Callable[[str], bool], agent: Callable[[], Attacher | None]
    ) -> None:
        self._networks = networks
        self._is_local = is_local
        self._agent = agent
        self._returns: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop giving back; a later run does it (see `reconcile`)."""
        for task in self._returns:
            task.cancel()
        await asyncio.gather(*self._returns, return_exceptions=True)

    async def up(self, request: SandboxRequest) -> Sandbox:
        if request.mode != "networks" or self._networks.sandbox(request.container_id) is not None:
            return await self._networks.up(request)
        try:
            endpoints = tuple([
                await self._placed(each, request.container_id, request.name) for each in request.endpoints])
            return await self._networks.up(msgspec.structs.replace(request, endpoints=endpoints))
        except BaseException:
            self._give_back(request.container_id)
            raise

    async def down(self, container_id: str) -> None:
        await self._networks.down(container_id)
        self._give_back(container_id)

    def sandbox(self, container_id: str) -> Sandbox | None:
        return self._networks.sandbox(container_id)

    async def connect(self, container_id: str, endpoint: EndpointRequest) -> Sandbox:
        placed = await self._placed(endpoint, container_id, container_id[:12])
        try:
            return await self._networks.connect(container_id, placed)
        except BaseException:
            if placed is not endpoint:
                self._give_back(container_id, placed.network)
            raise

    async def disconnect(self, container_id: str, network: str) -> Sandbox:
        before = self._networks.sandbox(container_id)
        after = await self._networks.disconnect(container_id, network)
        kept = {each.network_id for each in after.endpoints}
        for each in before.endpoints if before is not None else ():
            if each.network_id not in kept:
                self._give_back(container_id, each.network_id)
        return after

    def reconcile(self) -> None:
        """Give back the places of containers whose sandbox is no more. Call it once what ran is found again."""
        agent = self._agent()
        for container_id in agent.attachments() if agent is not None else ():
            if self._networks.sandbox(container_id) is None:
                self._give_back(container_id)

    async def _placed(self, endpoint: EndpointRequest, container_id: str, name: str) -> EndpointRequest:
        """`endpoint` with an address of the managers, where its network is the swarm's. Raises ShoalError."""
        agent = self._agent()
        if agent is None or endpoint.mac or self._is_local(endpoint.network):
            return endpoint
        info = await agent.find_network(endpoint.network)
        if info is None:
            raise NotFound(f"network {endpoint.network} not found")
        if not info.attachable:
            raise PermissionDenied(f"Could not attach to network {endpoint.network}: rpc error: "
                                   f"code = PermissionDenied desc = network {info.name} not manually attachable")
        placed = await agent.attach(info.id, container_id, name, endpoint.aliases, endpoint.address)
        return msgspec.structs.replace(placed, links=endpoint.links, driver_opts=endpoint.driver_opts,
                                       gw_priority=endpoint.gw_priority)

    def _give_back(self, container_id: str, network_id: str = "") -> None:
        agent = self._agent()
        if agent is None or container_id not in agent.attachments():
            return
        task = asyncio.get_running_loop().create_task(self._return(agent, container_id, network_id))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    async def _return(self, agent: Attacher, container_id: str, network_id: str) -> None:
        while True:
            try:
                await agent.detach(container_id, network_id)
            except NotFound:
                return  # the managers have let go of it already
            except ShoalError as error:
                log.warning("event=detach-failed container=%s error=%s", container_id, error)
            else:
                return
            await asyncio.sleep(RETRY_S)
