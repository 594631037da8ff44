"""Where the cluster's part plugs into the engine's half of the API.

A host that is in no swarm has the defaults below. The cluster's part fills the
hooks in when the host joins, and empties them when it leaves; routes read them at
each request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from shoal.api.reference import Reference
from shoal.engine.images.distribution.lookup import Described

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
    "to swarm and try again."
)
WORKER_NOT_MANAGER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run "
    "this command on a manager node or promote the current node to a manager."
)

INACTIVE_SWARM: dict[str, Any] = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}


class ClusterNetworks(Protocol):
    """The swarm's networks, in the API's form (`Scope` "swarm")."""

    async def list(self) -> list[dict[str, Any]]:
        """Every network of the swarm, or those that this worker knows of."""

    async def inspect(self, reference: str, *, verbose: bool = False) -> dict[str, Any] | None:
        """A network by id, name or unambiguous prefix of its id; None where the swarm has none such.

        `verbose`: with its services and their tasks.
        """

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create it; the answer of POST /networks/create. Raises ShoalError."""

    async def remove(self, reference: str) -> None:
        """Raises NotFound, and Conflict while tasks use it."""


class ClusterImages(Protocol):
    """The images of the swarm's hosts. Nothing, for a host that is in no swarm."""

    async def made_here(self, wanted: Reference) -> Described | None:
        """An image of this host that came from no registry of that name."""

    async def found(self, wanted: Reference) -> Described | None:
        """An image of this host, or of another one."""


async def _not_in_a_swarm() -> dict[str, Any]:
    return INACTIVE_SWARM


class Hooks:
    """What the cluster's part provides. Each is None or its default until then."""

    def __init__(self) -> None:
        self.networks: ClusterNetworks | None = None
        self.images: ClusterImages | None = None
        self.swarm_info: Callable[[], Awaitable[dict[str, Any]]] = _not_in_a_swarm
        self.ping_swarm: Callable[[], str] = lambda: "inactive"
        """The `Swarm` header: inactive, pending, error, locked, active/manager, active/worker."""


HOOKS = web.AppKey("hooks", Hooks)
