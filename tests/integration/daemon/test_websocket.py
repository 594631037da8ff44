"""Attaching over a WebSocket, with aiohttp as the browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.integration.daemon.host import DEADLINE_S, Machine

pytestmark = [pytest.mark.root, pytest.mark.clients]


@asynccontextmanager
async def attached(host: Machine, name: str, query: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (asyncio.timeout(DEADLINE_S),
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(host.socket))) as session,
                session.ws_connect(f"http://docker/v1.50/containers/{name}/attach/ws?{query}") as socket):
        yield socket


async def rest(socket: aiohttp.ClientWebSocketResponse) -> bytes:
    """All that comes, until the daemon closes."""
    return b"".join([message.data async for message in socket])


def begin(host: Machine, *command: str, **more: Any) -> None:
    body = {"Image": "busybox", "Cmd": list(command), "OpenStdin": True, **more}
    assert host.call("POST", "/containers/create?name=box", body)[0] == 201
    assert host.call("POST", "/containers/box/start")[0] == 204


async def test_input_goes_in_and_output_comes_out(host: Machine) -> None:
    begin(host, "sh", "-c", "read line; echo out $line; echo err >&2; exit 4")
    async with attached(host, "box", "stream=1&stdin=1&stdout=1&stderr=1") as socket:
        await socket.send_str("hello\n")
        assert sorted((await rest(socket)).splitlines()) == [b"err", b"out hello"]
    assert host.call("POST", "/containers/box/wait")[1]["StatusCode"] == 4


async def test_only_the_streams_that_were_asked_for(host: Machine) -> None:
    begin(host, "sh", "-c", "read line; echo out; echo err >&2")
    async with attached(host, "box", "stream=1&stdin=1&stderr=1") as socket:
        await socket.send_bytes(b"\n")
        assert await rest(socket) == b"err\n"


async def test_what_was_said_before_comes_from_the_log(host: Machine) -> None:
    begin(host, "sh", "-c", "echo early; exit 0")
    host.call("POST", "/containers/box/wait")
    async with attached(host, "box", "logs=1&stdout=1") as socket:
        assert await rest(socket) == b"early\n"


async def test_the_client_leaves_and_the_program_goes_on(host: Machine) -> None:
    begin(host, "sh", "-c", "read line; echo got $line; sleep 1000")
    async with attached(host, "box", "stream=1&stdin=1&stdout=1") as socket:
        await socket.send_str("one\n")
        assert (await socket.receive()).data == b"got one\n"
    assert host.inspect("box")["State"]["Running"] is True


async def test_its_close_is_the_end_of_input_that_comes_once(host: Machine) -> None:
    begin(host, "cat", StdinOnce=True)
    async with attached(host, "box", "stream=1&stdin=1&stdout=1") as socket:
        await socket.send_str("last words\n")
        assert (await socket.receive()).data == b"last words\n"
    assert host.call("POST", "/containers/box/wait")[1]["StatusCode"] == 0


def test_what_cannot_be_attached_to(host: Machine) -> None:
    begin(host, "sleep", "1000")
    assert host.call("GET", "/containers/nobody/attach/ws")[0] == 404
    assert host.call("GET", "/containers/box/attach/ws")[0] == 400
