"""Where the API is served: UNIX sockets, and TCP with or without TLS; what `hosts` says, and the sockets for it.

TCP without mutual TLS gives whoever reaches it root on this host. Hence the rule: on a loopback address it is
served with a warning; elsewhere it is refused, unless `tlsverify` (or `tls`) was set to false in so many words.
"""

from __future__ import annotations

import grp
import ipaddress
import logging
import os
import socket
import ssl
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shoal.api.errors import Conflict, InvalidArgument, Unavailable
from shoal.daemon.settings import Settings

log = logging.getLogger("shoal.daemon")

SOCKET_NAME = "shoal.sock"
SOCKET_MODE = 0o660
SOCKET_GROUP = "docker"
PORT, TLS_PORT = 2375, 2376


@dataclass(frozen=True)
class UnixAddress:
    path: Path

    def __str__(self) -> str:
        return f"unix://{self.path}"


@dataclass(frozen=True)
class TcpAddress:
    host: str  # an address; "" is all of this host's
    port: int

    def __str__(self) -> str:
        return f"tcp://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or (bool(self.host) and ipaddress.ip_address(self.host).is_loopback)


Address = UnixAddress | TcpAddress


def addresses(settings: Settings) -> list[Address]:
    """Where to serve. Raises InvalidArgument for what is no address, or would let everybody in."""
    if not settings.hosts:
        return [UnixAddress(Path(settings.run_root) / SOCKET_NAME)]
    found = [parse(host, tls=settings.serves_tls) for host in settings.hosts]
    for address in found:
        if isinstance(address, TcpAddress):
            _check(address, settings)
    return found


def parse(host: str, *, tls: bool) -> Address:
    """One of `hosts`. Raises InvalidArgument."""
    if host.startswith("unix:///"):
        return UnixAddress(Path(host.removeprefix("unix://")))
    if not host.startswith("tcp://"):
        raise InvalidArgument(f"cannot serve on {host!r}: write unix:///PATH or tcp://ADDRESS:PORT")
    rest = host.removeprefix("tcp://").rstrip("/")
    name, colon, port = rest.rpartition(":") if not rest.endswith("]") and ":" in rest else (rest, "", "")
    name = name.removeprefix("[").removesuffix("]")
    number = port if colon else str(TLS_PORT if tls else PORT)
    if not number.isascii() or not number.isdigit() or not 0 < int(number) < 1 << 16:
        raise InvalidArgument(f"cannot serve on {host!r}: {number!r} is no port")
    if name not in ("", "localhost"):
        try:
            ipaddress.ip_address(name)
        except ValueError as error:
            raise InvalidArgument(f"cannot serve on {host!r}: {name!r} is no address of a host") from error
    return TcpAddress(name, int(number))


def _check(address: TcpAddress, settings: Settings) -> None:
    if settings.tlsverify:
        return
    if not address.is_loopback and settings.tlsverify is None and settings.tls is not False:
        raise InvalidArgument(
            f"will not serve on {address} without tlsverify: whoever reaches it would be root here. Give tlsverify, "
            "tlscacert, tlscert and tlskey, or say tlsverify=false")
    log.warning("event=open-api address=%s effect=who reaches it is root on this host advice=use tlsverify", address)


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What TCP is served with; None: no TLS. Raises InvalidArgument naming the file that cannot be used."""
    if not settings.serves_tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(settings.tlscert, settings.tlskey)
    except (OSError, ssl.SSLError) as error:
        files = f"tlscert {settings.tlscert} with tlskey {settings.tlskey}"
        raise InvalidArgument(f"cannot use {files}: {error}") from error
    if settings.tlsverify:
        try:
            context.load_verify_locations(cafile=settings.tlscacert)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"cannot use tlscacert {settings.tlscacert}: {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def listen(address: Address) -> list[socket.socket]:
    """Listening sockets. Raises Conflict where another process serves there, Unavailable where it cannot be."""
    if isinstance(address, UnixAddress):
        return [_listen_unix(address.path)]
    try:
        return _listen_tcp(address)
    except OSError as error:
        raise Unavailable(f"cannot serve on {address}: {error.strerror or error}") from error


def _listen_tcp(address: TcpAddress) -> list[socket.socket]:
    """One socket for each address of the name; all of this host's where there is none."""
    listeners: list[socket.socket] = []
    found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, where in found:
        if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
            continue
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(where)
        listener.listen(128)
        listener.setblocking(False)
        listeners.append(listener)
    return listeners


def _listen_unix(path: Path) -> socket.socket:
    """A listening socket that root and the docker group may use. Raises Conflict where one is served."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise Conflict(f"{path} is in the way: it is no socket")
        if _answers(path):
            raise Conflict(f"{path} is served by another process")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    with suppress(KeyError):  # no such group here: root alone
        os.chown(path, 0, grp.getgrnam(SOCKET_GROUP).gr_gid)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
