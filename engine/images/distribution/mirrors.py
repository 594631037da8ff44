"""Reading from a registry that has mirrors: one that fails gives way to the next, at last to the registry itself."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shoal.api.errors import ShoalError
from shoal.engine.images.distribution.registry import Registry

log = logging.getLogger(__name__)

T = TypeVar("T")


async def first_that_gives(opened: Callable[[int], Registry], read: Callable[[Registry], Awaitable[T]]) -> T:
    """What `read` gives at the first address where it succeeds: a mirror need not have all that its registry has.

    `opened(n)`: the registry without the first n of its addresses. Raises what `read` raised at the registry
    itself, and Unreachable. Source: moby, distribution/errors.go, continueOnError.
    """
    passed = 0
    while True:
        async with opened(passed) as registry:
            try:
                return await read(registry)
            except ShoalError as error:
                if not registry.address.mirror:
                    raise
                log.warning("event=mirror-failed mirror=%s error=%s", registry.address.url, error)
            passed += registry.unreached + 1
