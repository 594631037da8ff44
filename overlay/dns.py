"""The resolver of every sandbox, at 127.0.0.11.

Its sockets were opened inside the sandbox (`sandboxes.open_dns`); queries are
answered on the event loop from the tables of the sandbox's networks, and what
nobody there knows goes on to the host's servers, from the host's namespace.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import socket
import struct
from collections.abc import Coroutine, Sequence
from typing import Any

from shoal.overlay import dnswire
from shoal.overlay.names import Linked, NetworkNames, lookup
from shoal.overlay.sandboxes import DnsSockets

log = logging.getLogger(__name__)

MAX_FORWARDED = 512
"""Queries under way to other servers; beyond it the answer is SERVFAIL at once."""

MAX_CONNECTIONS = 256
"""TCP connections of clients, over all sandboxes."""

UPSTREAM_TIMEOUT_S = 2.5
"""What each server has to answer in."""

_BURST = 16
"""Datagrams taken from one socket before others have their turn."""


class Desk:
    """One sandbox's resolver: its sockets, the names it knows, where it asks on."""

    def __init__(self, sockets: DnsSockets, networks: Sequence[NetworkNames | Linked], servers: Sequence[str]) -> None:
        self.sockets, self.networks, self.servers = sockets, networks, servers


class Resolver:
    """Answers for all sandboxes of this host, on the running event loop."""

    def __init__(self) -> None:
        self._desks: dict[str, Desk] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwarded = 0
        self._connections = 0
        self._chance = random.Random()  # noqa: S311 - order of addresses, no secret

    def open(self, key: str, desk: Desk) -> None:
        """Serve a sandbox; the sockets are ours from now on."""
        loop = asyncio.get_running_loop()
        self.shut(key)
        self._desks[key] = desk
        loop.add_reader(desk.sockets.udp.fileno(), self._readable, desk)
        loop.add_reader(desk.sockets.tcp.fileno(), self._connected, desk)

    def change(self, key: str, networks: Sequence[NetworkNames | Linked], servers: Sequence[str]) -> None:
        if desk := self._desks.get(key):
            desk.networks, desk.servers = networks, servers

    def shut(self, key: str) -> None:
        desk = self._desks.pop(key, None)
        if desk is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(desk.sockets.udp.fileno())
            loop.remove_reader(desk.sockets.tcp.fileno())
            desk.sockets.close()

    async def stop(self) -> None:
        for key in list(self._desks):
            self.shut(key)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def answer(self, desk: Desk, data: bytes, *, tcp: bool = False) -> bytes | None:
        """Our own answer to a query; None where it must be asked elsewhere."""
        query = dnswire.parse(data)
        if query is None:
            return None
        if query.type == dnswire.PTR:
            address = dnswire.reversed_address(query.name)
            for network in desk.networks if address else ():
                if address and (name := network.name_of(address)):
                    return dnswire.pointer(query, name)
            return None
        found = lookup(desk.networks, query.name, ipv6=query.type == dnswire.AAAA)
        if found is None:
            return None
        if query.type not in (dnswire.A, dnswire.AAAA, dnswire.ANY) or not found:
            return dnswire.empty(query)
        shuffled = list(found)
        if len(shuffled) > 1:
            self._chance.shuffle(shuffled)
        return dnswire.addresses(query, shuffled, 65535 if tcp else 0)

    def _readable(self, desk: Desk) -> None:
        for _ in range(_BURST):
            try:
                data, client = desk.sockets.udp.recvfrom(4096)
            except OSError:  # nothing more to read, or an ICMP error of an earlier answer
                return
            if len(data) < 12:
                continue
            reply = self.answer(desk, data)
            if reply is None and self._forwarded >= MAX_FORWARDED:
                reply = dnswire.failure(data, dnswire.SERVFAIL)
            if reply is not None:
                self._send(desk, reply, client)
            else:
                self._start(self._forward_udp(desk, data, client))

    @staticmethod
    def _send(desk: Desk, reply: bytes, client: tuple[str, int]) -> None:
        try:
            desk.sockets.udp.sendto(reply, client)
        except OSError as error:  # the client is gone, or the sandbox
            log.debug("a resolver's answer was not sent: %s", error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("the resolver failed at a query", exc_info=error)

    # --- what others must answer ---

    async def _forward_udp(self, desk: Desk, data: bytes, client: tuple[str, int]) -> None:
        reply = await self._ask(desk, data)
        if desk.sockets.udp.fileno() >= 0:
            self._send(desk, reply, client)

    async def _ask(self, desk: Desk, data: bytes, *, tcp: bool = False) -> bytes:
        """The first server's answer that comes. An error if none does, or too many are waiting already."""
        if self._forwarded >= MAX_FORWARDED:
            return dnswire.failure(data, dnswire.SERVFAIL)
        self._forwarded += 1
        reached = False
        try:
            for server in desk.servers:
                try:
                    async with asyncio.timeout(UPSTREAM_TIMEOUT_S):
                        return await (_exchange_tcp if tcp else _exchange)(server, data)
                except TimeoutError:
                    reached = True
                except OSError as error:
                    reached = reached or error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EPERM)
        finally:
            self._forwarded -= 1
        # With no way to any server, a bare name can only have been one of ours: it does not exist.
        query = dnswire.parse(data)
        bare = query is not None and "." not in query.name
        code = dnswire.NXDOMAIN if bare and not reached else dnswire.SERVFAIL
        return dnswire.empty(query, code) if query else dnswire.failure(data, code)

    # --- TCP ---

    def _connected(self, desk: Desk) -> None:
        try:
            client, _ = desk.sockets.tcp.accept()
        except OSError:
            return
        if self._connections >= MAX_CONNECTIONS:
            client.close()
            return
        client.setblocking(False)
        self._start(self._serve(desk, client))

    async def _serve(self, desk: Desk, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._connections += 1
        try:
            async with asyncio.timeout(30):
                while head := await _exactly(client, 2):
                    data = await _exactly(client, struct.unpack(">H", head)[0])
                    if len(data) < 12:
                        return
                    reply = self.answer(desk, data, tcp=True)
                    if reply is None:
                        reply = await self._ask(desk, data, tcp=True)
                    await loop.sock_sendall(client, struct.pack(">H", len(reply)) + reply)
        except (OSError, TimeoutError):
            return
        finally:
            self._connections -= 1
            client.close()


async def _exactly(client: socket.socket, count: int) -> bytes:
    """`count` bytes, or none at the end of the stream."""
    data = b""
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(client, count - len(data))
        if not more:
            return b""
        data += more
    return data


async def _exchange(server: str, data: bytes) -> bytes:
    """One query over UDP, from a port of its own. Raises OSError."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as query:
        query.connect((server, 53))
        query.send(data)
        while True:
            reply = await loop.sock_recv(query, 65535)
            if reply[:2] == data[:2] and len(reply) >= 12:
                return reply


async def _exchange_tcp(server: str, data: bytes) -> bytes:
    """One query over TCP, for a client that came over TCP. Raises OSError."""
    reader, writer = await asyncio.open_connection(server, 53)
    try:
        writer.write(struct.pack(">H", len(data)) + data)
        head = await reader.readexactly(2)
        return await reader.readexactly(struct.unpack(">H", head)[0])
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError(errno.ECONNRESET, f"{server} ended its answer early") from error
    finally:
        writer.close()
