"""An attachment that begins with the container's log: `attach` with `logs`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from shoal.engine.containers.stdio.client import STDOUT, Client


class LoggedClient:
    """Implements `Attachment`: the log first, then the live stdio (without a client: that is all)."""

    def __init__(self, lines: AsyncIterator[tuple[int, bytes]] | None, client: Client | None, *, tty: bool) -> None:
        self.tty = tty
        self._lines = lines
        self._client = client

    async def read(self) -> tuple[int, bytes] | None:
        if self._lines is not None:
            async for stream, line in self._lines:
                return (STDOUT if self.tty else stream), line
            self._lines = None
        return None if self._client is None else await self._client.read()

    async def write(self, data: bytes) -> None:
        if self._client is not None:
            await self._client.write(data)

    async def close_stdin(self) -> None:
        if self._client is not None:
            await self._client.close_stdin()

    async def detach(self) -> None:
        if self._client is not None:
            await self._client.detach()
