"""A body that is read in a thread while it comes."""

import asyncio
import threading

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from shoal.daemon.http.inflow import Inflow

PIECE_BYTES = 1 << 18


def stream() -> StreamReader:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.transport = asyncio.Transport()  # it is connected
    return StreamReader(protocol, 1 << 22, loop=loop)  # nothing of these tests makes it pause


async def test_it_is_read_as_it_comes_and_to_its_end() -> None:
    content = stream()
    first = threading.Event()

    def work(body: Inflow) -> list[bytes]:
        got = [body.read(3)]
        first.set()
        return [*got, body.read(3), body.read(), body.read(1)]

    reading = asyncio.ensure_future(Inflow(content).into(work))
    content.feed_data(b"abcd")
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(first.wait, 30)  # before the rest has come
        content.feed_data(b"e" * (2 * PIECE_BYTES))
        content.feed_eof()
        assert await reading == [b"abc", b"d", b"e" * (2 * PIECE_BYTES), b""]


async def test_what_follows_the_archive_is_taken_off() -> None:
    content = stream()
    content.feed_data(b"abc" + bytes(3 * PIECE_BYTES))
    content.feed_eof()
    assert await Inflow(content).into(lambda body: body.read(3)) == b"abc"
    assert content.at_eof()


async def test_cut_off_the_thread_ends_first() -> None:
    content = stream()
    waits, ended = threading.Event(), threading.Event()

    def work(body: Inflow) -> None:
        waits.set()
        try:
            body.read(1)
        finally:
            ended.set()

    reading = asyncio.ensure_future(Inflow(content).into(work))
    async with asyncio.timeout(60):
        assert await asyncio.to_thread(waits.wait, 30)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert ended.is_set()


async def test_what_the_work_raises_is_raised() -> None:
    content = stream()
    content.feed_data(b"abc")
    with pytest.raises(ZeroDivisionError):
        await Inflow(content).into(lambda body: len(body.read(1)) / 0)
    content.set_exception(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        await Inflow(content).into(lambda body: body.read(1))
