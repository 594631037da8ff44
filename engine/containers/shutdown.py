"""The host goes down: what runs is stopped as `stop` does it, and starts again with the host as its policy says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from shoal.api.errors import ShoalError
from shoal.engine.containers.life import DEFAULT_STOP_TIMEOUT_S, KILL_TIMEOUT_S, Life
from shoal.engine.containers.nouns import Container

log = logging.getLogger(__name__)


def patience_s(container: Container) -> int:
    """How long it has between its stop signal and a kill. One that has for ever has no longer than others here."""
    asked = container.config.stop_timeout_s
    return DEFAULT_STOP_TIMEOUT_S if asked is None or asked < 0 else asked


def longest_s(containers: Iterable[Container]) -> float:
    """How long the stop of all of them at once may take."""
    return max(map(patience_s, containers), default=0) + KILL_TIMEOUT_S


async def shut_down(life: Life, containers: Iterable[Container]) -> None:
    """Stop these. Whatever ends from now on stays down until the engine starts the next time."""
    life.restarts.going_down = True
    await asyncio.gather(*(_stop(life, container) for container in containers))


async def _stop(life: Life, container: Container) -> None:
    try:
        await life.stop(container.id, patience_s(container), "")
    except ShoalError as error:
        log.warning("event=not-stopped container=%s error=%s", container.id, error)
