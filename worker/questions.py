"""What this host asks its managers, in whichever session is open: each question until it has its answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from shoal.api.errors import ShoalError, Unavailable
from shoal.api.messages import Reply, Request
from shoal.worker.session import Session, SessionLost

ANSWER_TIMEOUT_S = 20.0
"""A question is given up after this."""


class Questions:
    """One for an agent. `opened` and `lost` tell it of sessions, `hear` of answers."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.open = asyncio.Event()  # there is one
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Reply]] = {}

    def opened(self, session: Session) -> None:
        self.session = session
        self.open.set()

    def lost(self, why: str) -> None:
        self.session = None
        self.open.clear()
        for answer in self._replies.values():
            if not answer.done():
                answer.set_exception(SessionLost(why))

    def hear(self, reply: Reply) -> None:
        if (answer := self._replies.get(reply.id)) is not None and not answer.done():
            answer.set_result(reply)

    async def ask(self, make: Callable[[int], Request]) -> Reply:
        """Ask, and ask again after a reconnect. `make` is given the question's number. Raises ShoalError."""
        number = next(self._numbers)
        message = make(number)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reply = await self._answer(number, message)
        except TimeoutError:
            raise Unavailable("the swarm's managers did not answer in time") from None
        finally:
            self._replies.pop(number, None)
        if reply.error:
            raise error_of(reply)
        return reply

    async def _answer(self, number: int, message: Request) -> Reply:
        while True:
            await self.open.wait()
            if self.session is None:
                continue
            answer = self._replies[number] = asyncio.get_running_loop().create_future()
            try:
                await self.session.send(message)
                reply: Reply = await answer
                return reply
            except SessionLost:
                continue


def error_of(reply: Reply) -> ShoalError:
    """A manager's refusal as the error that it was there."""
    kinds: dict[int, type[ShoalError]] = {kind.status: kind for kind in _kinds()}
    return kinds.get(reply.status, ShoalError)(reply.error)


def _kinds() -> list[Any]:
    from shoal.api import errors

    return [errors.InvalidArgument, errors.PermissionDenied, errors.NotFound, errors.Conflict, errors.Unavailable,
            errors.NotImplementedHere]
