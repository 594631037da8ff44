"""The stdio of one container in the hands of any number of clients, over one connection to conmon.

conmon ends the container's stdin when a connection is shut down for writing, and
does so for whichever connection it is. Hence there is one, shared: clients come
and go on this side of it. Frames from conmon carry the stream in their first byte.

Backpressure: while one client does not read, nothing is read from conmon, and the
container waits, as it does on Docker.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.engine.containers.stdio.client import MAX_BUFFERED_BYTES, STDERR, STDOUT, Client

_STREAMS = {2: STDOUT, 3: STDERR}  # conmon's numbers
_FRAME_BYTES = 8192 + 16
_SEND_BYTES = 16 * 1024  # conmon takes at most 32 KiB at once

class Console:
    """See the module. Made with the first client or with the start, and gone with the container's end."""

    def __init__(self, *, tty: bool, stdin_once: bool) -> None:
        self._tty = tty
        self._stdin_once = stdin_once
        self._clients: set[Client] = set()
        self._socket: socket.socket | None = None
        self._reading = False
        self._sending = asyncio.Lock()
        self._writable = asyncio.Event()
        self._connected = asyncio.Event()
        self._stdin_finished = False
        self._flushing = False
        self.ended = False

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for the container to start."""
        return bool(self._clients)

    def join(self, *, stdin: bool, streams: frozenset[int]) -> Client:
        client = Client(self, tty=self._tty, stdin=stdin, streams=streams)
        self._clients.add(client)
        if self.ended:
            client.end()
        return client

    def leave(self, client: Client, *, had_stdin: bool) -> None:
        self._clients.discard(client)
        if had_stdin and self._stdin_once:
            self._stdin_finished = True
            self._shut_down()
        if not self._clients and not self._stdin_once:
            self._disconnect()  # the container's stdin stays open: conmon was told so
        else:
            self.drained()

    async def connect(self, bundle: Path) -> None:
        """Connect to conmon. Nothing where that is done."""
        if self._socket is not None or self.ended:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{folder}/attach")  # a path of any length fits so
        except OSError as error:
            connection.close()
            raise ShoalError(f"cannot attach: {error.strerror}") from error
        finally:
            os.close(folder)
        self._socket = connection
        self._read_on()
        self._connected.set()
        if self._stdin_finished:
            self._shut_down()

    def flush(self) -> None:
        """The program has ended: take what is left of its output, so that a client that stands still delays no end."""
        self._flushing = True
        self.drained()

    def end(self) -> None:
        """The container has ended, and its output has been read. Clients see the end."""
        self.ended = True
        self._disconnect()
        self._connected.set()
        for client in self._clients:
            client.end()

    # --- output ---

    def drained(self) -> None:
        """A client has read: go on reading, if all have room."""
        if self._socket is not None and not self._reading and self._has_room():
            self._read_on()

    def _has_room(self) -> bool:
        return self._flushing or all(client.buffered_bytes < MAX_BUFFERED_BYTES for client in self._clients)

    def _read_on(self) -> None:
        assert self._socket is not None
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)
        self._reading = True

    def _readable(self) -> None:
        for _ in range(16):
            if self._socket is None:
                return
            if not self._has_room():
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
                self._reading = False
                return
            try:
                frame = self._socket.recv(_FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError:
                frame = b""
            if not frame:
                self._disconnect()
                self.end()
                return
            stream = STDOUT if self._tty else _STREAMS.get(frame[0], STDOUT)
            for client in self._clients:
                client.offer(stream, frame[1:])

    # --- input ---

    async def send(self, data: bytes) -> None:
        async with self._sending:
            await self._connected.wait()
            for start in range(0, len(data), _SEND_BYTES):
                await self._send(data[start : start + _SEND_BYTES])

    async def _send(self, data: bytes) -> None:
        while self._socket is not None and not self._stdin_finished:
            try:
                self._socket.send(data)
                return
            except BlockingIOError:
                await self._wait_writable(self._socket)
            except OSError:
                return  # nobody reads it any more

    async def _wait_writable(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._writable.clear()
        loop.add_writer(connection.fileno(), self._writable.set)
        try:
            await self._writable.wait()
        finally:
            if connection is self._socket:
                loop.remove_writer(connection.fileno())

    async def finish_stdin(self) -> None:
        """The client's input has ended: so does the container's, if it was made so (`stdin_once`)."""
        if not self._stdin_once:
            return
        async with self._sending:
            await self._connected.wait()
            self._stdin_finished = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                return

    def _disconnect(self) -> None:
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._socket = None
        self._reading = False
        self._writable.set()  # wakes a sender, which sees that nobody reads any more
        if not self.ended:
            self._connected.clear()
