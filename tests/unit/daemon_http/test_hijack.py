"""What comes after the head of a connection that was taken over."""

from __future__ import annotations

import asyncio
import socket

from shoal.daemon.http.hijack import Hijacked, unread


async def test_output_does_not_come_with_the_head() -> None:
    """docker-py loses what it reads together with the head."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    transport, before = await loop.create_connection(asyncio.Protocol, sock=ours)
    connection = Hijacked(transport, before)
    transport.set_protocol(connection)
    try:
        connection.write_now(b"head")
        assert unread(transport)
        writing = loop.create_task(connection.write(b"output"))
        await asyncio.sleep(0)
        assert await loop.sock_recv(theirs, 100) == b"head"
        async with asyncio.timeout(30):
            await writing
            assert await loop.sock_recv(theirs, 100) == b"output"
            await connection.write(b"more")  # it waits once
            await connection.write(b"still")
            assert await loop.sock_recv(theirs, 100) == b"morestill"
    finally:
        transport.abort()
        theirs.close()
