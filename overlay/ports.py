"""Host ports that are taken for published ports.

Each is held by a socket of ours that listens on it, so that a program of the host
and a container never both believe to own it. No packet reaches the socket: the
address is translated before. Sockets are opened in the caller's namespace.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import chain

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.api.sandbox import PublishedPort
from shoal.overlay.hosttable import ANY

FIRST_DYNAMIC, LAST_DYNAMIC = 32768, 60999


class PortTaken(ShoalError):
    """A published port is in use on this host (500, as Docker answers it)."""


class HostPorts:
    """The sockets that hold the host ports of each container."""

    def __init__(self) -> None:
        self._held: dict[str, list[socket.socket]] = {}
        self._next = FIRST_DYNAMIC

    def take(self, container_id: str, name: str, ports: Sequence[PublishedPort]) -> tuple[PublishedPort, ...]:
        """Hold the ports, choosing one where `host_port` is 0. Raises PortTaken; then none of them is held."""
        held: list[socket.socket] = []
        bound = []
        try:
            for port in ports:
                handle, number = self._bind(port, name)
                held.append(handle)
                bound.append(PublishedPort(container_port=port.container_port, protocol=port.protocol,
                                           host_ip=port.host_ip, host_port=number))
        except BaseException:
            for handle in held:
                handle.close()
            raise
        if held:
            self._held.setdefault(container_id, []).extend(held)
        return tuple(bound)

    def free(self, container_id: str) -> None:
        for handle in self._held.pop(container_id, ()):
            handle.close()

    def close(self) -> None:
        for container_id in list(self._held):
            self.free(container_id)

    def _bind(self, port: PublishedPort, name: str) -> tuple[socket.socket, int]:
        if port.protocol not in ("tcp", "udp", "sctp"):
            raise InvalidArgument(f"invalid protocol {port.protocol} of a published port: use tcp, udp or sctp")
        address = "0.0.0.0" if port.host_ip in ANY else port.host_ip  # noqa: S104 - what the user asked for
        if port.host_port:
            try:
                return _listen(port.protocol, address, port.host_port), port.host_port
            except OSError as error:
                raise PortTaken(
                    f"driver failed programming external connectivity on endpoint {name}: "
                    f"Bind for {address}:{port.host_port} failed: {_reason(error)}") from error
        for number in chain(range(self._next, LAST_DYNAMIC + 1), range(FIRST_DYNAMIC, self._next)):
            try:
                handle = _listen(port.protocol, address, number)
            except OSError:
                continue
            self._next = number + 1 if number < LAST_DYNAMIC else FIRST_DYNAMIC
            return handle, number
        raise PortTaken(f"driver failed programming external connectivity on endpoint {name}: "
                        f"no port of {FIRST_DYNAMIC}-{LAST_DYNAMIC} is free on {address}")


def _reason(error: OSError) -> str:
    return "port is already allocated" if error.errno == 98 else str(error.strerror)


def _listen(protocol: str, address: str, port: int) -> socket.socket:
    kinds = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, 132)}
    kind, number = kinds[protocol]
    handle = socket.socket(socket.AF_INET, kind, number)
    try:
        if protocol != "udp":
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.bind((address, port))
        if protocol != "udp":
            handle.listen(1)
    except BaseException:
        handle.close()
        raise
    return handle
