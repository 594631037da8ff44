"""Requests made again where the network or the registry fails for the moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from shoal.api.errors import ShoalError
from shoal.engine.images.distribution.registry import FAILURES, Refused
from shoal.engine.images.distribution.retry import RetryPolicy, is_passing

MAX_CUTS = 100
"""Of one blob, that are mended although each brought something."""

P = ParamSpec("P")
T = TypeVar("T")


class Attempts:
    """Those of one request, or of one blob."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._cuts = 0
        self._failures = 0

    async def failed(self, error: Exception, *, brought_some: bool = False) -> None:
        """Wait before the next one. Raises the error, as one of ours, where the policy gives up.

        `brought_some`: the attempt got further than the one before.
        """
        self._cuts += 1
        self._failures = 1 if brought_some and self._cuts < MAX_CUTS else self._failures + 1
        delay_s = self._policy.delay_s(self._failures, random.random())  # noqa: S311 (spreads waits, keeps no secret)
        if delay_s is None:
            if isinstance(error, ShoalError):
                raise error
            raise ShoalError(f"the registry does not answer: {error or type(error).__name__}") from error
        await asyncio.sleep(delay_s)


def is_final(error: Exception) -> bool:
    """Whether it is the registry's word, which another attempt does not change."""
    return isinstance(error, Refused) and not is_passing(error.http_status)


async def retried(policy: RetryPolicy, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the call gives in the end. Raises Refused, or ShoalError when the policy gives up."""
    attempts = Attempts(policy)
    while True:
        try:
            return await call(*args, **kwargs)
        except (*FAILURES, Refused) as error:
            if is_final(error):
                raise
            await attempts.failed(error)
