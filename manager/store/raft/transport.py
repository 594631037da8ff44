"""Raft's messages between managers: msgpack frames over mutual TLS, on asyncio.

Each member dials every other one and says in its first frame who it is and whom
it wants; the certificate must agree. Both directions of a link carry messages, so
a manager that is not (yet) in our configuration gets its answers on the link that
it dialled. What is malformed, too large or not from a manager closes that one link.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

from shoal.manager.store.raft import codec
from shoal.manager.store.raft.nouns import Member, Members, TlsContexts

log = logging.getLogger(__name__)

MAX_FRAME_BYTES = 64 << 20
HELLO_BYTES = 4096
MAX_UNSENT_BYTES = 32 << 20
"""Past this a link takes no more messages: the peer does not read."""
MAX_ACCEPTED = 64
HANDSHAKE_S = 5.0
DEAD_AFTER_MS = 3000
"""Unacknowledged data this old means that the peer lost its power."""
REDIAL_S = (0.1, 0.2, 0.5, 1.0)
WIRE_VERSION = 1
_LENGTH = struct.Struct(">I")


class BadPeer(Exception):
    """The other side is not whom we talk to, or does not speak our language."""


class Link:
    """One open connection to one verified peer."""

    def __init__(self, peer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer, self.reader, self.writer = peer, reader, writer

    def send(self, frame: bytes) -> None:
        self.writer.write(frame)

    @property
    def unsent(self) -> int:
        return self.writer.transport.get_write_buffer_size()


class Transport:
    """All links of one member. The callbacks run on the event loop."""

    def __init__(
        self,
        me: Member,
        tls: TlsContexts | None,
        *,
        on_message: Callable[[str, dict[str, Any]], None],
        on_link: Callable[[str, bool], None],
        listen: str | None = None,
    ) -> None:
        """`listen` defaults to our address. KeyError, TypeError or ValueError of `on_message` closes the link."""
        self._me, self._tls, self._listen = me, tls, listen or me.address
        self._on_message, self._on_link = on_message, on_link
        self._links: dict[str, list[Link]] = {}  # those that we dialled first
        self._dialling: dict[Member, asyncio.Task[None]] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None
        self._book: Members = ()

    async def start(self) -> None:
        """Listen and dial. Raises OSError where the address is taken."""
        host, port = _split(self._listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=64, reuse_port=False)
        self._socket.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._socket), name="raft-accept")
        self._dial_all()

    async def stop(self) -> None:
        tasks = [*self._dialling.values(), *self._serving, *([self._accepting] if self._accepting else [])]
        self._accepting, self._book = None, ()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._dialling.clear()
        if self._socket is not None:
            self._socket.close()

    # --- the network of `Consensus` ---

    def send(self, to: str, message: dict[str, Any]) -> bool:
        links = self._links.get(to)
        if not links or links[0].unsent > MAX_UNSENT_BYTES:
            return False
        links[0].send(_frame(message))
        return True

    def backlog(self, to: str) -> int:
        links = self._links.get(to)
        return links[0].unsent if links else 0

    def adopt(self, members: Members) -> None:
        self._book = tuple(m for m in members if m.id != self._me.id)
        if self._accepting is not None:
            self._dial_all()

    # --- dialling ---

    def _dial_all(self) -> None:
        for member in set(self._dialling) - set(self._book):
            self._dialling.pop(member).cancel()
        for member in self._book:
            if member not in self._dialling:
                self._dialling[member] = asyncio.create_task(self._dial(member), name=f"raft-dial-{member.id}")

    async def _dial(self, member: Member) -> None:
        """Keep a link to this member until cancelled."""
        failures = 0
        while True:
            try:
                async with asyncio.timeout(HANDSHAKE_S):
                    link = await self._connect(member)
                failures = 0
                await self._talk(link, dialled=True)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, BadPeer) as error:
                if failures == 0 or isinstance(error, BadPeer):
                    log.warning("raft link failed member=%s address=%s error=%r", member.id, member.address, error)
                failures += 1
            await asyncio.sleep(REDIAL_S[min(failures, len(REDIAL_S) - 1)])

    async def _connect(self, member: Member) -> Link:
        host, port = _split(member.address)
        context = self._tls.client() if self._tls else None
        reader, writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname=host if context else None, limit=1 << 20
        )
        try:
            _watch_for_death(writer)
            self._check(member.id, writer)
            writer.write(_frame({"version": WIRE_VERSION, "from": self._me.id, "to": member.id}))
            answer = await _hello(reader)
            if answer.get("from") != member.id:
                raise BadPeer(f"{member.address} is {answer.get('from')!r}, wanted {member.id}")
        except BaseException:
            writer.transport.abort()
            raise
        return Link(member.id, reader, writer)

    def _check(self, claimed: str, writer: asyncio.StreamWriter) -> None:
        """The certificate is of a manager, and of the node whose member this claims to be."""
        if self._tls is None:
            return
        node = self._tls.peer_id(writer.get_extra_info("ssl_object"))
        if node is None:
            raise BadPeer("the certificate is not a manager's of this cluster")
        if claimed != node and claimed.partition(".")[0] != node:
            raise BadPeer(f"the certificate of {node} cannot speak for {claimed}")

    # --- serving ---

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:  # no descriptors left, or the peer is gone already
                log.warning("raft cannot accept error=%s", error)
                await asyncio.sleep(0.1)
                continue
            if len(self._serving) >= MAX_ACCEPTED:
                log.warning("raft has too many links, dropped peer=%s", address)
                connection.close()
                continue
            task = asyncio.create_task(self._serve(connection, address), name="raft-serve")
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, connection: socket.socket, address: object) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                link = await self._welcome(connection)
            await self._talk(link, dialled=False)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, BadPeer) as error:
            log.warning("raft link dropped peer=%s error=%r", address, error)

    async def _welcome(self, connection: socket.socket) -> Link:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        protocol = asyncio.StreamReaderProtocol(reader)
        connection.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, connection, ssl=self._tls.server() if self._tls else None
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            _watch_for_death(writer)
            hello = await _hello(reader)
            peer = hello.get("from")
            if hello.get("version") != WIRE_VERSION or not isinstance(peer, str) or peer == self._me.id:
                raise BadPeer(f"not a greeting that we know: {hello!r:.200}")
            self._check(peer, writer)
            writer.write(_frame({"version": WIRE_VERSION, "from": self._me.id}))
            if hello.get("to") != self._me.id:
                raise BadPeer(f"{peer} wants {hello.get('to')!r:.100}, this is {self._me.id}")
        except BaseException:
            writer.transport.abort()
            raise
        return Link(peer, reader, writer)

    # --- talking ---

    async def _talk(self, link: Link, *, dialled: bool) -> None:
        """Hand on what comes until the link breaks."""
        links = self._links.setdefault(link.peer, [])
        links.insert(0 if dialled else len(links), link)
        if len(links) == 1:
            self._on_link(link.peer, True)
        try:
            while True:
                message = await _read(link.reader, MAX_FRAME_BYTES)
                try:
                    self._on_message(link.peer, message)
                except (KeyError, TypeError) as error:
                    raise ValueError(f"malformed message {message.get('type')!r:.50}: {error!r}") from error
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
        finally:
            links.remove(link)
            if not links:
                del self._links[link.peer]
                self._on_link(link.peer, False)
            link.writer.transport.abort()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _frame(message: dict[str, Any]) -> bytes:
    body = codec.dumps(message)
    return _LENGTH.pack(len(body)) + body


async def _read(reader: asyncio.StreamReader, limit: int) -> dict[str, Any]:
    """One message. Raises ValueError (too large, garbage) and IncompleteReadError."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > limit:
        raise ValueError(f"a frame of {length} bytes, {limit} are allowed")
    message = codec.loads(await reader.readexactly(length))
    if not isinstance(message, dict):
        raise ValueError(f"a frame holds {type(message).__name__}, not a message")
    return message


async def _hello(reader: asyncio.StreamReader) -> dict[str, Any]:
    return await _read(reader, HELLO_BYTES)


def _watch_for_death(writer: asyncio.StreamWriter) -> None:
    """Have the kernel notice a peer that vanished without a word."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3),
                          (socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
