"""Tells the world which containers join and leave networks: between the engine and the network side."""

from __future__ import annotations

from collections.abc import Callable

from shoal.api.sandbox import EndpointInfo, EndpointRequest, Networking, Sandbox, SandboxRequest

Publish = Callable[[str, str, str, dict[str, str]], None]
"""(type, action, id, attributes), as `engine.containers.events.Events.publish`."""


class Announced:
    """Implements `api.sandbox.Networking` over another one. `driver_of` gives the driver of a network by its id."""

    def __init__(self, networking: Networking, publish: Publish, driver_of: Callable[[str], str]) -> None:
        self._networking = networking
        self._publish = publish
        self._driver_of = driver_of

    async def up(self, request: SandboxRequest) -> Sandbox:
        before = self.sandbox(request.container_id)
        after = await self._networking.up(request)
        self._tell(request.container_id, before, after)
        return after

    async def down(self, container_id: str) -> None:
        before = self.sandbox(container_id)
        await self._networking.down(container_id)
        self._tell(container_id, before, None)

    def sandbox(self, container_id: str) -> Sandbox | None:
        return self._networking.sandbox(container_id)

    async def connect(self, container_id: str, endpoint: EndpointRequest) -> Sandbox:
        before = self.sandbox(container_id)
        after = await self._networking.connect(container_id, endpoint)
        self._tell(container_id, before, after)
        return after

    async def disconnect(self, container_id: str, network: str) -> Sandbox:
        before = self.sandbox(container_id)
        after = await self._networking.disconnect(container_id, network)
        self._tell(container_id, before, after)
        return after

    def _tell(self, container_id: str, before: Sandbox | None, after: Sandbox | None) -> None:
        left, joined = _ends(before), _ends(after)
        for action, ends, others in (("disconnect", left, joined), ("connect", joined, left)):
            for endpoint_id, end in ends.items():
                if endpoint_id not in others:
                    self._publish("network", action, end.network_id, {
                        "container": container_id, "name": end.network_name, "type": self._driver_of(end.network_id)})


def _ends(sandbox: Sandbox | None) -> dict[str, EndpointInfo]:
    return {end.endpoint_id: end for end in sandbox.endpoints} if sandbox is not None else {}
