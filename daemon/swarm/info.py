"""The `Swarm` part of /info and the `Swarm` header of /_ping."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec

from shoal.api.states import Role
from shoal.daemon.http.hooks import INACTIVE_SWARM
from shoal.daemon.swarm.host import SwarmHost

SUMMARY_TIMEOUT_S = 1.0


class SwarmInfo:
    def __init__(self, swarm: SwarmHost) -> None:
        self._swarm = swarm

    def ping(self) -> str:
        """inactive, pending, error, active/manager or active/worker."""
        swarm, identity = self._swarm, self._swarm.identity
        if swarm.state != "active" or identity is None:
            return swarm.state
        return "active/manager" if swarm.manages else "active/worker"

    async def info(self) -> dict[str, Any]:
        swarm, identity = self._swarm, self._swarm.identity
        shown = {**INACTIVE_SWARM, "LocalNodeState": swarm.state, "Error": swarm.error}
        if identity is None:
            return shown
        error = swarm.error or (swarm.agent.last_error if swarm.agent is not None else "")
        shown |= {
            "NodeID": identity.node_id,
            "NodeAddr": identity.advertise_addr,
            "ControlAvailable": False,
            "Error": error,
            "RemoteManagers": [{"NodeID": one.node_id, "Addr": one.addr} for one in identity.managers],
        }
        if swarm.manages and identity.role is Role.MANAGER:
            summary = await self._summary()
            shown |= {**summary, "ControlAvailable": bool(summary)}
        return shown

    async def _summary(self) -> dict[str, Any]:
        """Counts and the cluster, of the manager process; nothing where it does not answer."""
        try:
            async with (
                asyncio.timeout(SUMMARY_TIMEOUT_S),
                self._swarm.manager.client().get("http://manager/internal/swarm-summary") as answer,
            ):
                if answer.status != 200:
                    return {}
                return msgspec.json.decode(await answer.read(), type=dict[str, Any])
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
            return {}
