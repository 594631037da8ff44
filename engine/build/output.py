"""What a build tells its client: messages in Docker's form, and the order of those of stages that go on at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from shoal.api.errors import ShoalError

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]

MAX_HELD_MESSAGES = 1000
"""Of a stage whose turn has not come: it goes on when what was said before is out."""


class StepFailed(ShoalError):
    """A command ended with a code that is not 0."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def failure(error: ShoalError) -> Message:
    detail: Message = {"message": error.message}
    if isinstance(error, StepFailed):
        detail = {"code": error.code, "message": error.message}
    return {"errorDetail": detail, "error": error.message}


def stream(text: str) -> Message:
    return {"stream": text}


def stderr(text: str) -> Message:
    """In red, as dockerd has it."""
    return {"stream": f"\x1b[91m{text}\x1b[0m"}


def image_id(identifier: str) -> Message:
    return {"aux": {"ID": identifier}}


def short(identifier: str) -> str:
    return identifier.removeprefix("sha256:")[:12]


class Turns:
    """The output of stages, each whole and in their order, whatever the order in which they come about."""

    def __init__(self, stages: Iterable[int], send: Send) -> None:
        self._waiting = list(stages)
        self._held: dict[int, list[Message]] = {stage: [] for stage in self._waiting}
        self._ended: set[int] = set()
        self._send = send
        self._advanced = asyncio.Condition()

    def of(self, stage: int) -> Send:
        """Where a stage's messages go."""
        async def send(message: Message) -> None:
            async with self._advanced:
                await self._advanced.wait_for(
                    lambda: self._waiting[:1] == [stage] or len(self._held[stage]) < MAX_HELD_MESSAGES)
                if self._waiting[:1] != [stage]:
                    self._held[stage].append(message)
                    return
                await self._flush(stage)
                await self._send(message)

        return send

    async def end(self, stage: int) -> None:
        """The stage has said everything. Those that follow are told, as far as their turn has come."""
        async with self._advanced:
            self._ended.add(stage)
            while self._waiting:
                await self._flush(self._waiting[0])
                if self._waiting[0] not in self._ended:
                    break
                self._waiting.pop(0)
            self._advanced.notify_all()

    async def fail(self, stage: int) -> None:
        """What the stage said, before what it failed with."""
        async with self._advanced:
            await self._flush(stage)

    async def _flush(self, stage: int) -> None:
        held, self._held[stage] = self._held[stage], []
        for message in held:
            await self._send(message)
