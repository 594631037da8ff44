"""HTTP to the other managers and to the hosts of the swarm, over mutual TLS.

Addresses change and name nobody: who the other is stands in its certificate. A
connection that is meant for a manager is given up at the handshake where the
certificate is not a manager's, so that no worker in its place hears a request.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from shoal.api.errors import NoLeader, ShoalError, Unavailable
from shoal.api.states import Role
from shoal.manager.ca.identity import peer_identity
from shoal.manager.ca.tls import HostTLS
from shoal.manager.store.raft import TlsContexts

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 1.0
"""A host that lost its power answers no SYN: another try costs less than waiting."""

DEAD_AFTER_MS = 3000
MAX_ANSWER_BYTES = 1 << 20

RETRY = "X-Shoal-Retry"
"""Header of an answer: nothing is decided, ask the leader with the same request id. Its value is where, or empty."""


class ManagersOnly(ssl.SSLObject):
    """The client's side of a connection that only a manager may answer."""

    def do_handshake(self) -> None:
        super().do_handshake()
        peer = peer_identity(self)
        if peer is None or peer.role is not Role.MANAGER:
            raise ssl.SSLCertVerificationError("the certificate on the other side is not a manager's")


class ManagerTLS(HostTLS):
    """The contexts of one manager. Whoever is about to connect takes them from `fresh`: renewed files count at once."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError or ssl.SSLError where a file is missing or does not fit."""
        self.to_managers = self._context(ssl.PROTOCOL_TLS_CLIENT, ssl.CERT_REQUIRED)
        self.to_managers.sslobject_class = ManagersOnly
        super().__init__(folder)

    def refresh(self) -> bool:
        if not super().refresh():
            return False
        self.to_managers.load_verify_locations(cafile=str(self._folder / "ca.crt"))
        self.to_managers.load_cert_chain(str(self._folder / "node.crt"), str(self._folder / "node.key"))
        return True

    def fresh(self) -> Self:
        """With what the files hold now. Between a new key and its certificate they do not fit: the old ones hold."""
        try:
            if self.refresh():
                log.info("event=certificate-loaded")
        except (OSError, ssl.SSLError) as error:
            log.debug("event=certificate-not-loaded error=%s", error)
        return self

    def for_raft(self, cluster_id: str) -> TlsContexts:
        """How Raft's transport knows a manager of this cluster."""

        def peer_id(connection: ssl.SSLObject) -> str | None:
            peer = peer_identity(connection)
            if peer is None or peer.role is not Role.MANAGER or peer.cluster_id != cluster_id:
                return None
            return peer.node_id

        return TlsContexts(client=lambda: self.fresh().to_managers, server=lambda: self.fresh().strict_server,
                           peer_id=peer_id)


class Peers:
    """Connections are kept. `close` them."""

    def __init__(self, tls: ManagerTLS) -> None:
        self._tls = tls
        self._managers: aiohttp.ClientSession | None = None
        self._hosts: aiohttp.ClientSession | None = None

    def managers(self) -> aiohttp.ClientSession:
        """For requests to managers on their port."""
        tls = self._tls.fresh()  # the session keeps the context, which is loaded anew in place
        if self._managers is None:
            self._managers = _session(tls.to_managers)
        return self._managers

    def hosts(self) -> aiohttp.ClientSession:
        """For requests to any node, on port 7946."""
        tls = self._tls.fresh()
        if self._hosts is None:
            self._hosts = _session(tls.client)
        return self._hosts

    async def close(self) -> None:
        for session in (self._managers, self._hosts):
            if session is not None:
                await session.close()
        self._managers = self._hosts = None

    async def call(self, address: str, method: str, path: str, body: object = None, *, timeout_s: float = 5.0) -> bytes:
        """One short exchange with a manager, in msgpack. Raises NoLeader where another one leads (its address is
        the error's `address`), Unavailable where it does not answer, else a ShoalError with its message."""
        data = None if body is None else msgspec.msgpack.encode(body)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.managers().request(method, f"https://{address}{path}", data=data) as answer,
            ):
                found = await answer.content.read(MAX_ANSWER_BYTES)
                while not answer.content.at_eof() and len(found) < MAX_ANSWER_BYTES:
                    found += await answer.content.read(MAX_ANSWER_BYTES - len(found))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"manager {address} does not answer: {str(error) or type(error).__name__}") from error
        if answer.status < 400:
            return found
        if (leader := answer.headers.get(RETRY)) is not None:
            raise LedElsewhere(_message(found), leader)
        raise Refused(_message(found), answer.status)


class LedElsewhere(NoLeader):
    """The manager that was asked does not lead. `address` is whom it takes for the leader; "" for nobody."""

    def __init__(self, message: str, address: str) -> None:
        super().__init__(message)
        self.address = address


class Refused(ShoalError):
    """A manager refused, with `answered` for a status: asking again would not change it."""

    def __init__(self, message: str, answered: int) -> None:
        super().__init__(message)
        self.answered = answered


def watch_for_death(answer: aiohttp.ClientResponse) -> None:
    """Have the kernel notice a peer that vanished while it streams."""
    transport = answer.connection.transport if answer.connection is not None else None
    connection: Any = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3),
                          (socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=context, limit=0, keepalive_timeout=30, use_dns_cache=False)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False,
                                 cookie_jar=aiohttp.DummyCookieJar())


def _message(data: bytes) -> str:
    try:
        return msgspec.json.decode(data, type=dict[str, str]).get("message", "")
    except msgspec.MsgspecError:
        return data[:300].decode(errors="replace")
