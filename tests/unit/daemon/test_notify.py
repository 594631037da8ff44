"""systemd is told that the daemon is ready, on whichever kind of address it listens."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from shoal.daemon.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_state_arrives(abstract: bool, tmp_path: Path) -> None:
    shown = f"@shoal-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(shown.replace("@", "\0", 1) if abstract else shown)
        end.settimeout(5)
        Notifier({"NOTIFY_SOCKET": shown}).notify("READY=1")
        assert end.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1", "/nowhere/at/all"])
def test_nobody_listens(address: str) -> None:
    Notifier({"NOTIFY_SOCKET": address}).notify("READY=1")  # raises nothing


def test_no_child_inherits_the_address() -> None:
    """runc and crun would wait for their container to send there."""
    environment = {"NOTIFY_SOCKET": "/run/systemd/notify", "PATH": "/bin"}
    Notifier(environment)
    assert environment == {"PATH": "/bin"}
