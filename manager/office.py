"""A leader's term of office: its loops, all of them or none.

When this manager has become the leader and has everything that was ever acknowledged,
it makes commands of earlier terms void and starts the loops; when it loses the office
it stops them. One failing stops all: they are started again, a bounded number of times,
and another manager is asked to take over meanwhile. Nothing half works.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from shoal.api.errors import NoLeader, ShoalError, Unavailable
from shoal.manager.store.raft import RaftNode
from shoal.manager.store.replicated import OfficeStore, ReplicatedStore

log = logging.getLogger(__name__)

MAX_FAILURES = 5
WITHIN_S = 60.0
"""More failures than that within this time end the process: its supervisor begins afresh."""

PAUSE_S = 0.5

Loops = Callable[[OfficeStore], Sequence[Coroutine[Any, Any, None]]]


class Office:
    """`serve` one term after the other. `loops` makes the loops of a term."""

    def __init__(self, node: RaftNode, store: ReplicatedStore, loops: Loops, pause_s: float = PAUSE_S) -> None:
        """`pause_s`: before failed loops are started again."""
        self._node, self._store, self._loops, self._pause_s = node, store, loops, pause_s
        self._failures: deque[float] = deque()

    async def serve(self) -> None:
        """Until cancelled. Raises ShoalError where the loops fail again and again."""
        while True:
            await self._node.wait_for(lambda: self._node.is_ready)
            term = self._node.term
            log.info("event=office-taken term=%d", term)
            try:
                await self._hold(term)
            except Exception as error:
                await self._failed(term, error)
            log.info("event=office-left term=%d", term)

    def _holds(self, term: int) -> bool:
        return self._node.is_ready and self._node.term == term

    async def _hold(self, term: int) -> None:
        """The loops, until the office is lost. Raises what ended one of them."""
        loops = asyncio.ensure_future(self._run(self._store.in_office(term)))
        lost = asyncio.ensure_future(self._node.wait_for(lambda: not self._holds(term)))
        try:
            await asyncio.wait({loops, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in (loops, lost):
                future.cancel()
            await asyncio.gather(loops, lost, return_exceptions=True)
        if loops.cancelled() or (error := loops.exception()) is None:
            return
        if self._holds(term):
            raise error
        for one in _leaves(error):
            log.log(logging.DEBUG if isinstance(one, Unavailable) else logging.ERROR,
                    "event=loop-ended term=%d error=%s", term, one, exc_info=one)

    async def _run(self, store: OfficeStore) -> None:
        await store.take()
        async with asyncio.TaskGroup() as group:
            for loop in self._loops(store):
                group.create_task(loop, name=getattr(loop, "__qualname__", "loop"))

    async def _failed(self, term: int, error: Exception) -> None:
        """Report it, let another manager lead if there is one, and count."""
        for one in _leaves(error):
            log.error("event=loop-failed term=%d error=%s", term, str(one) or type(one).__name__, exc_info=one)
        now = time.monotonic()
        self._failures.append(now)
        while self._failures[0] < now - WITHIN_S:
            self._failures.popleft()
        if len(self._failures) > MAX_FAILURES:
            raise ShoalError(f"the manager's loops failed {len(self._failures)} times in {WITHIN_S:g} s, the last "
                             f"time with: {_leaves(error)[-1]}") from error
        try:
            if len(self._node.members) > 1 and self._holds(term):
                await self._node.transfer_leadership()
        except ShoalError as refused:
            log.warning("event=office-kept term=%d why=%s", term, refused)
        await asyncio.sleep(self._pause_s)


def _leaves(error: BaseException) -> list[BaseException]:
    """The single errors of a group; NoLeader only where there is nothing else."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    found = [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [leaf for leaf in found if not isinstance(leaf, NoLeader)] or found[:1]
