"""Telling systemd how the daemon is doing, where systemd started it. Source: sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress


class Notifier:
    """Takes the address out of the environment.

    A runtime that inherits it takes it for its container's: it waits for a READY=1 that nobody in there sends.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")

    def notify(self, state: str) -> None:
        """Send `READY=1`, `STOPPING=1` or the like. Does nothing where nobody asked to be told."""
        address = self._address
        if not address.startswith(("/", "@")):
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.setblocking(False)
            end.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
