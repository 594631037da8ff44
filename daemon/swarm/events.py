"""The swarm's events among this host's: told by its manager process for as long as there is one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import aiohttp
import msgspec

from shoal.api.membership import SwarmEvent
from shoal.daemon.swarm.process import ManagerProcess

log = logging.getLogger(__name__)

AGAIN_S = 0.2

_decode = msgspec.json.Decoder(SwarmEvent).decode


async def follow(manager: ManagerProcess, publish: Callable[[SwarmEvent], None]) -> None:
    """Publish what it tells, until cancelled. One that does not serve yet is asked again."""
    timeout = aiohttp.ClientTimeout(total=None)
    while True:
        try:
            async with manager.client().get("http://manager/internal/events", timeout=timeout) as answer:
                if answer.status == 200:
                    async for line in answer.content:
                        publish(_decode(line))
        except (aiohttp.ClientError, OSError, ValueError, msgspec.MsgspecError) as error:
            log.debug("event=swarm-events-broken error=%s", error)
        await asyncio.sleep(AGAIN_S)  # another process: there is nothing to wait on
