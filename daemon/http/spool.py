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
    """The path of a file that holds the whole body."""
    with tempfile.NamedTemporaryFile(dir=folder) as target:
        pending = bytearray()
        async for chunk in request.content.iter_any():
            pending += chunk
            if len(pending) >= CHUNK_BYTES:
                await asyncio.to_thread(target.write, bytes(pending))
                pending.clear()
        if pending:
            await asyncio.to_thread(target.write, bytes(pending))
        target.flush()
        yield Path(target.name)
