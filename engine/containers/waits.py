"""Those who wait for a container to end or to be removed."""

from __future__ import annotations

import asyncio

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.nouns import Container, WaitResult

CONDITIONS = ("", "not-running", "next-exit", "removed")


class Waits:
    """Futures by container. A cancelled one is forgotten."""

    def __init__(self) -> None:
        self._exits: dict[str, list[asyncio.Future[WaitResult]]] = {}
        self._removals: dict[str, list[asyncio.Future[WaitResult]]] = {}

    def wait(self, container: Container, condition: str) -> asyncio.Future[WaitResult]:
        """Raises InvalidArgument for a condition that is not known."""
        if condition not in CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        future: asyncio.Future[WaitResult] = asyncio.get_running_loop().create_future()
        if condition in ("", "not-running") and not container.state.running:
            future.set_result(result_of(container))
            return future
        waiting = (self._removals if condition == "removed" else self._exits).setdefault(container.id, [])
        waiting.append(future)
        future.add_done_callback(lambda done: waiting.remove(done) if done in waiting else None)
        return future

    def ended(self, container: Container) -> None:
        _resolve(self._exits.pop(container.id, []), result_of(container))

    def removed(self, container: Container) -> None:
        """An error at its start is not one of its removal."""
        futures = self._exits.pop(container.id, []) + self._removals.pop(container.id, [])
        _resolve(futures, WaitResult(exit_code=container.state.exit_code))


def result_of(container: Container) -> WaitResult:
    return WaitResult(exit_code=container.state.exit_code, error=container.state.error)


def _resolve(futures: list[asyncio.Future[WaitResult]], result: WaitResult) -> None:
    for future in futures:
        if not future.done():
            future.set_result(result)
