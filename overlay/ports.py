"""Host ports that are taken for published ports.

Each is held by a socket of ours that listens on it, so that a program of the host
and a container never both believe to own it. Once the rule that leads the port to
its container stands, no packet reaches the socket. A connection that is there
before is reset: its packets would come here for as long as it lived, and nobody
reads them. Sockets are opened in the caller's namespace.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from itertools import chain

import msgspec

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.api.sandbox import PublishedPort
from shoal.overlay.hosttable import ANY

FIRST_DYNAMIC, LAST_DYNAMIC = 32768, 60999


class PortTaken(ShoalError):
    """A published port is in use on this host (500, as Docker answers it)."""


class HostPorts:
    """The sockets that hold the host ports of each container. Within one event loop."""

    def __init__(self) -> None:
        self._held: dict[str, list[socket.socket]] = {}
        self._next = FIRST_DYNAMIC

    def take(
        self, container_id: str, name: str, ports: Sequence[PublishedPort], *, ipv6: bool = False,
        again: bool = False,
    ) -> tuple[PublishedPort, ...]:
        """Hold the ports, choosing one where it is ours to choose. Raises PortTaken; then none of them is held.

        With `ipv6`, one that names no address is held, and returned, for each family; `again`: those were returned
        by an earlier run.
        """
        held: list[socket.socket] = []
        bound = []
        try:
            for port in ports:
                host_ips = ("", "::") if ipv6 and not port.host_ip and not again else (port.host_ip,)
                handles, number = self._bind(port, [_address(host_ip, ipv6) for host_ip in host_ips], name)
                held += handles
                bound += [msgspec.structs.replace(port, host_ip=host_ip, host_port=number, last_host_port=0)
                          for host_ip in host_ips]
        except BaseException:
            for handle in held:
                handle.close()
            raise
        if held:
            self._held.setdefault(container_id, []).extend(held)
        loop = asyncio.get_running_loop()
        for handle in filter(_listens, held):
            loop.add_reader(handle, _turn_away, loop, handle)
        return tuple(bound)

    def free(self, container_id: str) -> None:
        loop = asyncio.get_running_loop()
        for handle in self._held.pop(container_id, ()):
            if _listens(handle):
                loop.remove_reader(handle)
            handle.close()

    def close(self) -> None:
        for container_id in list(self._held):
            self.free(container_id)

    def _bind(self, port: PublishedPort, addresses: Sequence[str], name: str) -> tuple[list[socket.socket], int]:
        """Sockets on one number at all of `addresses`, and that number."""
        if port.protocol not in ("tcp", "udp", "sctp"):
            raise InvalidArgument(f"invalid protocol {port.protocol} of a published port: use tcp, udp or sctp")
        failed = f"driver failed programming external connectivity on endpoint {name}: "
        if port.host_port and port.last_host_port <= port.host_port:
            try:
                return _listen_at(port.protocol, addresses, port.host_port), port.host_port
            except OSError as error:
                raise PortTaken(f"{failed}Bind for {addresses[0]}:{port.host_port} failed: {_reason(error)}") from error
        first, last = (port.host_port, port.last_host_port) if port.host_port else (FIRST_DYNAMIC, LAST_DYNAMIC)
        start = first if port.host_port else self._next
        for number in chain(range(start, last + 1), range(first, start)):
            try:
                handles = _listen_at(port.protocol, addresses, number)
            except OSError:
                continue
            if not port.host_port:
                self._next = number + 1 if number < LAST_DYNAMIC else FIRST_DYNAMIC
            return handles, number
        raise PortTaken(f"{failed}no port of {first}-{last} is free on {addresses[0]}: all ports are allocated")


def _address(host_ip: str, ipv6: bool) -> str:
    """Where to listen. Without IPv6 in the container, every address means every one of IPv4."""
    if host_ip in ANY:
        return "::" if ipv6 and host_ip == "::" else "0.0.0.0"  # noqa: S104 - what the user asked for
    if ":" in host_ip and not ipv6:
        raise InvalidArgument(f"a port cannot be published on {host_ip}: the container has no IPv6 address on the "
                              "network that leads outside")
    return host_ip


def _listen_at(protocol: str, addresses: Sequence[str], port: int) -> list[socket.socket]:
    """A socket at each of `addresses`. Raises OSError; then none is left."""
    handles: list[socket.socket] = []
    try:
        for address in addresses:
            handles.append(_listen(protocol, address, port))
    except BaseException:
        for handle in handles:
            handle.close()
        raise
    return handles


def _reason(error: OSError) -> str:
    return "port is already allocated" if error.errno == 98 else str(error.strerror)


def _listen(protocol: str, address: str, port: int) -> socket.socket:
    kinds = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, 132)}
    kind, number = kinds[protocol]
    handle = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind, number)
    try:
        if ":" in address:
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol != "udp":
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.bind((address, port))
        if protocol != "udp":
            handle.listen(1)
            handle.setblocking(False)
    except BaseException:
        handle.close()
        raise
    return handle


def _listens(handle: socket.socket) -> bool:
    return handle.type == socket.SOCK_STREAM


def _turn_away(loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
    """Reset a connection, so that its client tries anew."""
    try:
        caller, _ = listener.accept()
    except (BlockingIOError, ConnectionError):
        return
    except OSError:  # no descriptor left for it: asked again at once, it would fail again
        loop.remove_reader(listener)
        return
    with caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
