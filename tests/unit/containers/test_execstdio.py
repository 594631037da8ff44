"""The terminal of an exec, as the runtime sends it."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import threading

import pytest

from shoal.api.errors import ShoalError
from shoal.engine.containers.stdio.execstdio import ExecStdio

PATIENCE_S = 5.0


@pytest.fixture
def stdio():
    return ExecStdio(tty=True, stdin=True, streams=frozenset({1}))


async def test_a_runtime_that_stands_still_holds_nobody_up(stdio, tmp_path):
    """Between its connecting and its sending it may be throttled or paused with its container."""
    near, far = pty.openpty()
    lives = threading.Event()
    runtime = socket.socket(socket.AF_UNIX)

    def send():
        lives.wait(PATIENCE_S)
        socket.send_fds(runtime, [b"console"], [near])

    with stdio.listen(tmp_path / "console") as listener, runtime:
        runtime.connect(str(tmp_path / "console"))
        sender = threading.Thread(target=send)
        sender.start()
        accepting = asyncio.create_task(stdio.accept_terminal(listener))
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for _ in range(50):
            await asyncio.sleep(0)
        held_s = loop.time() - begin
        lives.set()
        await accepting
        sender.join()
    assert held_s < PATIENCE_S / 2
    client = stdio.begin()
    os.write(far, b"hello")
    assert await client.read() == (1, b"hello")
    stdio.close()
    os.close(near)
    os.close(far)


async def test_a_runtime_that_sends_nothing_is_named(stdio, tmp_path):
    with stdio.listen(tmp_path / "console") as listener:
        with socket.socket(socket.AF_UNIX) as runtime:
            runtime.connect(str(tmp_path / "console"))
        with pytest.raises(ShoalError, match="the runtime sent no terminal"):
            await stdio.accept_terminal(listener)
    stdio.close()
