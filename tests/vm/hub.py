"""The wire between the machines: a switch of datagram sockets, one frame each, in a thread of its own.

A port can be cut: what comes from it or is meant for it is dropped, as with a pulled cable.
"""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from pathlib import Path

FRAME_BYTES = 65536
QUEUED_BYTES = 1 << 20
_MULTICAST = 1


class Hub:
    """Ports are made before `start`. QEMU's end of port N is `machine-N`, the hub's is `hub-N`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[int, socket.socket] = {}
        self._cut: set[int] = set()
        self._homes: dict[bytes, int] = {}  # MAC address → the port that it was last seen at
        self._stopping, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)

    def port(self, number: int) -> str:
        """Make a port. Returns QEMU's words for a network device that is plugged into it (id `wire`)."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        end.bind(str(self._folder / f"hub-{number}"))
        end.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            end.setsockopt(socket.SOL_SOCKET, option, QUEUED_BYTES)
        self._ports[number] = end
        return (f"dgram,id=wire,local.type=unix,local.path={self._machine(number)},"
                f"remote.type=unix,remote.path={self._folder / f'hub-{number}'}")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.close()
        self._thread.join()
        for end in (self._stopping, *self._ports.values()):
            end.close()

    def cut(self, number: int) -> None:
        self._cut.add(number)

    def heal(self, number: int) -> None:
        self._cut.discard(number)

    def _machine(self, number: int) -> Path:
        return self._folder / f"machine-{number}"

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stopping, selectors.EVENT_READ, None)
            for number, end in self._ports.items():
                selector.register(end, selectors.EVENT_READ, number)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    self._forward(key.data)

    def _forward(self, number: int) -> None:
        """All frames that wait at a port. A machine that is off, or too slow, loses what is sent to it."""
        end = self._ports[number]
        while True:
            try:
                frame = end.recv(FRAME_BYTES)
            except BlockingIOError:
                return
            if number in self._cut:
                continue
            self._homes[frame[6:12]] = number
            home = None if frame[0] & _MULTICAST else self._homes.get(frame[:6])
            for other in self._ports if home is None else (home,):
                if other != number and other not in self._cut:
                    with suppress(OSError):
                        self._ports[other].sendto(frame, str(self._machine(other)))
