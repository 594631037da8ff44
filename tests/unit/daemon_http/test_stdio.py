"""Raw connections: half-closes, slow and vanished clients, keys that let go.

The process is a fake, the sockets are real.
"""

import asyncio
import socket

import pytest
from aiohttp import web

from shoal.daemon.http.app import serve
from shoal.daemon.http.containers.detachkeys import DetachKeys
from shoal.daemon.http.containers.stdio import carry, frame
from shoal.daemon.http.hijack import MULTIPLEXED_STREAM, HijackedResponse, hijack

DEADLINE_S = 10


class Process:
    """An `Attachment`: tells the length of its input once that has ended, or says `chatter` for ever."""

    def __init__(self, *, tty=False, chatter=b"") -> None:
        self.tty = tty
        self.given = b""
        self.detached = asyncio.Event()
        self._chatter = chatter
        self._no_more = asyncio.Event()
        self._said = False

    async def read(self):
        if self._chatter:
            await asyncio.sleep(0)
            return 1, self._chatter
        await self._no_more.wait()
        if self._said:
            return None
        self._said = True
        return 1, str(len(self.given)).encode()

    async def write(self, data):
        self.given += data

    async def close_stdin(self):
        self._no_more.set()

    async def detach(self):
        self.detached.set()


@pytest.fixture
async def attach(tmp_path):
    """`await attach(process, stdin=…)` → a connected socket that has read the answer's head."""
    served = []

    async def connect(process, **how):
        async def handler(request):
            await request.read()
            await carry(hijack(request, MULTIPLEXED_STREAM), process, **how)
            return HijackedResponse()

        app = web.Application()
        app.router.add_post("/", handler)
        serving = serve(app)
        await serving.start()
        served.append(serving)
        path = str(tmp_path / f"{len(served)}.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        await serving.listen(listener)
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, path)
        await loop.sock_sendall(client, b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
                                        b"Content-Length: 0\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await loop.sock_recv(client, 1)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        return client

    async with asyncio.timeout(DEADLINE_S):
        yield connect
        for serving in served:
            await serving.stop()


async def rest_of(client):
    received = b""
    while data := await asyncio.get_running_loop().sock_recv(client, 65536):
        received += data
    return received


async def test_output_goes_on_after_the_input_has_ended(attach):
    process = Process()
    client = await attach(process, stdin=True)
    await asyncio.get_running_loop().sock_sendall(client, b"x" * 1_000_000)
    client.shutdown(socket.SHUT_WR)
    assert await rest_of(client) == frame(1, b"1000000")
    assert process.detached.is_set()
    client.close()


async def test_a_terminal_is_raw(attach):
    client = await attach(Process(tty=True), stdin=True)
    client.shutdown(socket.SHUT_WR)
    assert await rest_of(client) == b"0"
    client.close()


async def test_input_of_one_who_gives_none_is_dropped(attach):
    process = Process(chatter=b"x")
    client = await attach(process, stdin=False)
    client.shutdown(socket.SHUT_WR)
    assert await asyncio.get_running_loop().sock_recv(client, 9) == frame(1, b"x")  # it is not let go
    assert process.given == b""
    client.close()
    await process.detached.wait()


@pytest.mark.parametrize("stdin", [True, False])
async def test_a_client_that_vanishes_is_let_go(attach, stdin):
    process = Process(chatter=b"y" * 1000)
    client = await attach(process, stdin=stdin)
    client.close()
    await process.detached.wait()


async def test_keys_let_go(attach):
    process = Process(tty=True)
    client = await attach(process, stdin=True, keys=DetachKeys(b"\x10\x11"))
    await asyncio.get_running_loop().sock_sendall(client, b"typed\x10\x11lost")
    assert await rest_of(client) == b""
    assert process.given == b"typed"
    client.close()


async def test_a_slow_client_holds_the_process_up(attach):
    process = Process(chatter=b"z" * 65536)
    reads = 0
    real = process.read

    async def counted():
        nonlocal reads
        reads += 1
        return await real()

    process.read = counted
    client = await attach(process, stdin=False)
    before = -1
    while reads != before:  # until it stands still
        before = reads
        await asyncio.sleep(0.1)
    assert reads < 64
    client.close()
    await process.detached.wait()
