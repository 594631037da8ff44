"""The stdio of one exec: pipes, or the terminal that the runtime made."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.engine.containers.stdio.client import MAX_BUFFERED_BYTES, STDERR, STDOUT, Client

_READ_BYTES = 32 * 1024
CONSOLE_TIMEOUT_S = 30


class ExecStdio:
    """This daemon's ends; `theirs` are the program's, to be closed once it has them. Implements `client.Source`."""

    def __init__(self, *, tty: bool, stdin: bool, streams: frozenset[int]) -> None:
        self._tty = tty
        self._wants_stdin = stdin
        self._streams = streams
        self._stdin = -1
        self._outputs: dict[int, int] = {}  # descriptor → stream
        self._paused: set[int] = set()
        self._client: Client | None = None
        self._drained = asyncio.Event()
        self._writable = asyncio.Event()
        self._sending = asyncio.Lock()
        self.theirs: list[int] = []

    # --- making ---

    def open_pipes(self) -> tuple[int, int, int]:
        """stdin, stdout and stderr for the program."""
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.theirs = [null]
        stdin = null
        if self._wants_stdin:
            stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._stdin, False)
            self.theirs.append(stdin)
        ends = []
        for stream in (STDOUT, STDERR):
            if stream not in self._streams:
                ends.append(null)
                continue
            ours, its = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(ours, False)
            self._outputs[ours] = stream
            self.theirs.append(its)
            ends.append(its)
        return stdin, ends[0], ends[1]

    def listen(self, path: Path) -> socket.socket:
        """Where the runtime sends the terminal; `path` may be long."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
        listener.listen(1)
        return listener

    async def accept_terminal(self, listener: socket.socket) -> None:
        """Take the terminal that the runtime sends. Raises ShoalError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONSOLE_TIMEOUT_S):
            connection, _ = await loop.sock_accept(listener)
            with connection:
                await _readable(connection)  # it stands in the container's cgroup: throttled, or paused just then
                descriptors = array.array("i")
                _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(descriptors.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: descriptors.itemsize])
        if not descriptors:
            raise ShoalError("the runtime sent no terminal")
        os.set_inheritable(descriptors[0], False)
        self.take_terminal(descriptors[0])

    def take_terminal(self, terminal: int) -> None:
        """This daemon's end of it."""
        os.set_blocking(terminal, False)
        self._outputs[terminal] = STDOUT
        self._stdin = terminal

    def close_theirs(self) -> None:
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = []

    def begin(self) -> Client:
        """The client that reads it from now on."""
        self._client = Client(self, tty=self._tty, stdin=self._wants_stdin, streams=self._streams)
        for descriptor in self._outputs:
            self._read_on(descriptor)
        if not self._outputs:
            self._drained.set()
        return self._client

    # --- output ---

    def _read_on(self, descriptor: int) -> None:
        asyncio.get_running_loop().add_reader(descriptor, self._readable, descriptor)

    def _readable(self, descriptor: int) -> None:
        client = self._client
        if client is not None and client.buffered_bytes >= MAX_BUFFERED_BYTES:
            asyncio.get_running_loop().remove_reader(descriptor)
            self._paused.add(descriptor)
            return
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # a terminal that nobody holds any more
            data = b""
        if not data:
            self._close_output(descriptor)
        elif client is not None:
            client.offer(self._outputs[descriptor], data)

    def drained(self) -> None:
        if self._client is None or self._client.buffered_bytes < MAX_BUFFERED_BYTES:
            for descriptor in list(self._paused):
                self._paused.discard(descriptor)
                self._read_on(descriptor)

    def leave(self, client: Client, *, had_stdin: bool) -> None:
        """The client has gone: its input ends, the output is read and thrown away."""
        self._client = None
        if not self._tty:
            self._close_stdin()
        self.drained()

    async def finish_output(self, timeout_s: float) -> None:
        """The program has ended: wait for the rest of its output, but not for those that it left behind."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._drained.wait()
        except TimeoutError:
            pass
        self.close()

    def _close_output(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        del self._outputs[descriptor]
        self._paused.discard(descriptor)
        if descriptor == self._stdin:
            self._close_stdin()
        else:
            os.close(descriptor)
        if not self._outputs:
            self._drained.set()

    # --- input ---

    async def send(self, data: bytes) -> None:
        async with self._sending:
            view = memoryview(data)
            while view and self._stdin >= 0:
                try:
                    view = view[os.write(self._stdin, view) :]
                except BlockingIOError:
                    await self._wait_writable(self._stdin)
                except OSError:
                    return  # nobody reads it any more

    async def _wait_writable(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        self._writable.clear()
        loop.add_writer(descriptor, self._writable.set)
        try:
            await self._writable.wait()
        finally:
            if descriptor == self._stdin:
                loop.remove_writer(descriptor)

    async def finish_stdin(self) -> None:
        if not self._tty:
            async with self._sending:
                self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            asyncio.get_running_loop().remove_writer(self._stdin)
            if self._stdin not in self._outputs:
                os.close(self._stdin)
            self._stdin = -1
            self._writable.set()

    # --- ---

    def resize(self, height: int, width: int) -> None:
        if self._tty and self._stdin >= 0:
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close(self) -> None:
        self.close_theirs()
        for descriptor in list(self._outputs):
            self._close_output(descriptor)
        self._close_stdin()
        if self._client is not None:
            self._client.end()


async def _readable(connection: socket.socket) -> None:
    """Until there is something to read, or its end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())
