"""Published ports of the whole cluster (publish mode ingress). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.api.specs import PortConfig

FIRST, LAST = 30000, 32767
"""The range of ports that are given to those who ask for any."""

Port = tuple[str, int]


class Ports:
    """Invariant: a (protocol, port) is held by one service at most."""

    def __init__(self) -> None:
        self._owners: dict[Port, str] = {}
        self._next = FIRST

    def claim(self, ports: Sequence[PortConfig], owner: str) -> Port | None:
        """Note the ingress ports of a service as its own; the first that another service holds, None if none is."""
        for port in ports:
            key = (port.protocol, port.published_port)
            if _ingress(port) and port.published_port and self._owners.setdefault(key, owner) != owner:
                return key
        return None

    def take(self, protocol: str, owner: str) -> int | None:
        """A free port of the dynamic range; None where every one is held."""
        for _ in range(LAST - FIRST + 1):
            number = self._next
            self._next = FIRST if number == LAST else number + 1
            if (protocol, number) not in self._owners:
                self._owners[(protocol, number)] = owner
                return number
        return None

    def release(self, ports: Sequence[PortConfig], owner: str) -> None:
        for port in ports:
            key = (port.protocol, port.published_port)
            if self._owners.get(key) == owner:
                del self._owners[key]


def _ingress(port: PortConfig) -> bool:
    return port.publish_mode == "ingress"
