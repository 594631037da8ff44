"""Clients that have no more to send, and clients that are gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from shoal.daemon.http.serving import Serving

DEADLINE_S = 10.0
GET = b"GET /v1.50/slow HTTP/1.1\r\nHost: x\r\n\r\n"


class Slow:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.answer, self.given_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.set()
        try:
            body = await request.read()
            await self.answer.wait()
        except asyncio.CancelledError:
            self.given_up.set()
            raise
        except web.RequestPayloadError:
            self.given_up.set()
            raise
        return web.Response(body=b"done " + body)


@pytest.fixture
async def slow() -> Slow:
    return Slow()


@pytest.fixture
async def client(slow: Slow, tmp_path: Path) -> AsyncIterator[socket.socket]:
    """Connected."""
    app = web.Application()
    app.router.add_route("*", "/slow", slow.handle)
    serving = Serving(app, {"keepalive_timeout": 60.0})
    await serving.start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s.sock"))
    listener.listen()
    listener.setblocking(False)
    await serving.listen(listener)
    made = socket.socket(socket.AF_UNIX)
    made.setblocking(False)
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.get_running_loop().sock_connect(made, str(tmp_path / "s.sock"))
        yield made
        made.close()
        await serving.stop()


async def send(client: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(client, data)


async def rest(client: socket.socket) -> bytes:
    found = b""
    while piece := await asyncio.get_running_loop().sock_recv(client, 4096):
        found += piece
    return found


async def test_who_has_no_more_to_send_gets_the_answer(client: socket.socket, slow: Slow) -> None:
    await send(client, GET)
    client.shutdown(socket.SHUT_WR)
    await slow.asked.wait()
    slow.answer.set()
    assert (await rest(client)).endswith(b"\r\n\r\ndone ")


async def test_so_does_who_asked_twice_at_once(client: socket.socket, slow: Slow) -> None:
    await send(client, GET + GET)
    client.shutdown(socket.SHUT_WR)
    slow.answer.set()
    assert (await rest(client)).count(b"done ") == 2


async def test_who_asks_nothing_is_let_go(client: socket.socket, slow: Slow) -> None:
    client.shutdown(socket.SHUT_WR)
    assert await rest(client) == b""


async def test_who_is_gone_is_waited_for_no_longer(client: socket.socket, slow: Slow) -> None:
    await send(client, GET)
    await slow.asked.wait()
    client.close()
    await slow.given_up.wait()


async def test_also_who_goes_after_having_no_more_to_send(client: socket.socket, slow: Slow) -> None:
    await send(client, GET)
    client.shutdown(socket.SHUT_WR)
    await slow.asked.wait()
    client.close()
    await slow.given_up.wait()


async def test_half_a_body_is_no_request(client: socket.socket, slow: Slow) -> None:
    await send(client, b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
    await slow.asked.wait()
    client.shutdown(socket.SHUT_WR)
    await slow.given_up.wait()
    assert await rest(client) == b""
