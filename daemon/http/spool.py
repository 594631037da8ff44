"""A request's body on disk, for what is too large for memory; removed when the handler is done."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

CHUNK_BYTES = 1 << 20


@asynccontextmanager
async def spooled(request: web.Request, folder: Path) -> AsyncIterator[Path]:
    """The path of a file that holds the whole body. While one piece is written the next one comes."""
    with tempfile.NamedTemporaryFile(dir=folder) as target:
        writing = asyncio.ensure_future(asyncio.sleep(0))
        try:
            async for pieces in _gathered(request):
                await writing
                writing = asyncio.ensure_future(asyncio.to_thread(target.writelines, pieces))
            await writing
        finally:
            await asyncio.wait([writing])  # also where it is cancelled: the file is closed then
        await asyncio.to_thread(target.flush)
        yield Path(target.name)


async def _gathered(request: web.Request) -> AsyncIterator[list[bytes]]:
    """The body in pieces of `CHUNK_BYTES`, each as it came."""
    pieces, size = [], 0
    async for chunk in request.content.iter_any():
        pieces.append(chunk)
        size += len(chunk)
        if size >= CHUNK_BYTES:
            yield pieces
            pieces, size = [], 0
    yield pieces
