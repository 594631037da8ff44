"""The swarm's networks for this host's /networks routes (`hooks.ClusterNetworks`)."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from shoal.api import errors
from shoal.api.errors import NotFound, NotManager, ShoalError, Unavailable
from shoal.api.messages import NetworkInfo
from shoal.daemon.http.hooks import NOT_A_MANAGER, WORKER_NOT_MANAGER
from shoal.daemon.swarm.host import SwarmHost

log = logging.getLogger(__name__)

_KINDS = {kind.status: kind for kind in (
    errors.InvalidArgument, errors.PermissionDenied, errors.NotFound, errors.Conflict, errors.Unprocessable,
    errors.NotImplementedHere, errors.Unavailable)}
"""What the manager answers with is answered by this host too."""


class SwarmNetworks:
    """On a manager all of them, asked of the manager process; on a worker those that it was told of."""

    def __init__(self, swarm: SwarmHost) -> None:
        self._swarm = swarm

    async def list(self) -> list[dict[str, Any]]:
        if self._swarm.manages:
            try:
                found: list[dict[str, Any]] = await self._call("GET", "/networks")
                return found
            except Unavailable as error:
                log.warning("event=swarm-networks-unavailable error=%s", error)
        return [network_json(info) for info in self._swarm.networks.cluster_networks()]

    async def inspect(self, reference: str, *, verbose: bool = False) -> dict[str, Any] | None:
        if self._swarm.manages:
            try:
                shown: dict[str, Any] = await self._call(
                    "GET", f"/networks/{quote(reference, safe='')}{'?verbose=1' if verbose else ''}")
                return shown
            except NotFound:
                return None
            except Unavailable as error:
                log.warning("event=swarm-networks-unavailable error=%s", error)
        known = self._swarm.networks.cluster_networks()
        named = [info for info in known if reference in (info.id, info.name)]
        matching = named or [info for info in known if reference and info.id.startswith(reference)]
        return network_json(matching[0]) if len(matching) == 1 else None

    async def create(self, body: dict[str, Any]) -> dict[str, Any]:
        self._must_manage()
        created: dict[str, Any] = await self._call("POST", "/networks/create", body)
        return created

    async def remove(self, reference: str) -> None:
        self._must_manage()
        await self._call("DELETE", f"/networks/{quote(reference, safe='')}")

    def _must_manage(self) -> None:
        if not self._swarm.manages:
            raise NotManager(NOT_A_MANAGER if self._swarm.identity is None else WORKER_NOT_MANAGER)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Raises ShoalError with the manager's message."""
        try:
            async with self._swarm.manager.client().request(method, f"http://manager{path}", json=body) as answer:
                data = await answer.read()
                if answer.status < 400:
                    return msgspec.json.decode(data) if data else None
                message = msgspec.json.decode(data, type=dict[str, Any]).get("message", "")
                raise _KINDS.get(answer.status, ShoalError)(message)
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            raise Unavailable(f"the manager of this host does not answer: {error}") from error


def network_json(info: NetworkInfo) -> dict[str, Any]:
    """A network as a worker knows it, in the API's form."""
    return {
        "Name": info.name,
        "Id": info.id,
        "Created": "0001-01-01T00:00:00Z",
        "Scope": "swarm",
        "Driver": info.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": info.subnet, "Gateway": info.gateway}]},
        "Internal": info.internal,
        "Attachable": info.attachable,
        "Ingress": info.name == "ingress",
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": str(info.vni), **info.options},
        "Labels": info.labels,
    }
