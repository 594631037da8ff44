"""What a measured system offers to the measurements, and what both have in common."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from shoal.cli.client import Client, ClientError
from shoal.lab import lab as labs
from shoal.lab import processes
from shoal.lab.plan import HostPlan, LabPlan

Json = dict[str, Any]

API_VERSION = "1.41"
"""The newest that both sides speak."""


class Peer(Protocol):
    """One system under measurement."""

    name: str
    data: Path  # all that it writes and keeps

    def up(self, managers: int, workers: int, image: Path) -> None:
        """Start the hosts, form the swarm, load the image archive on each host."""

    def down(self) -> None:
        """Leave nothing."""

    def hosts(self) -> list[str]: ...

    def client(self, host: str) -> Client: ...

    def crash(self, host: str) -> None:
        """Power off: the link first, then every process."""

    def daemon_pids(self, host: str) -> list[int]:
        """The processes that are the system itself: no containers, no monitors of containers."""

    def system_pids(self, host: str) -> list[int]:
        """Every process of the host that is no container's: the monitors of containers too."""

    def start(self, host: str, command: list[str]) -> None:
        """Have a program run on a host until `down`."""

    def succeeds(self, host: str, command: list[str]) -> bool:
        """Whether a command does, that is run on a host."""

    def scratch(self) -> Path:
        """A folder for files, gone with `down`."""


def wait_until(condition: Callable[[], bool], timeout_s: float = 120.0, every_s: float = 0.02) -> float:
    """Seconds until the condition holds. Raises TimeoutError."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > timeout_s:
            raise TimeoutError("the condition did not come true")
        time.sleep(every_s)
    return time.monotonic() - begin


class Namespaced:
    """The part of a peer that does not depend on whose daemon runs on the hosts."""

    lab: LabPlan

    def hosts(self) -> list[str]:
        return [host.name for host in self.lab.hosts]

    def socket(self, host: HostPlan) -> Path:
        return self.lab.socket(host)

    def client(self, host: str) -> Client:
        return Client(f"unix://{self.socket(self.lab.host(host))}", version=API_VERSION)

    def crash(self, host: str) -> None:
        labs.crash(self.lab, self.lab.host(host))

    def start(self, host: str, command: list[str]) -> None:
        subprocess.Popen(
            [*self._entering(host), *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
            env={**os.environ, processes.MARK: self.lab.mark(self.lab.host(host))},
        )

    def succeeds(self, host: str, command: list[str]) -> bool:
        return subprocess.run([*self._entering(host), *command], check=False, capture_output=True,
                              stdin=subprocess.DEVNULL).returncode == 0

    def _entering(self, host: str) -> list[str]:
        """What runs a command in a host's namespaces."""
        init_pid = processes.init_of(self.lab.mark(self.lab.host(host)))
        assert init_pid is not None
        return processes.entering(init_pid)

    def load(self, image: Path) -> None:
        for host in self.hosts():
            with image.open("rb") as archive:
                list(self.client(host).upload("/images/load", {"quiet": True}, archive))

    def system_pids(self, host: str) -> list[int]:
        init_pid = processes.init_of(self.lab.mark(self.lab.host(host)))
        namespace = Path(f"/proc/{init_pid}/ns/pid").stat().st_ino  # a container has one of its own
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "ns/pid").stat().st_ino == namespace:
                    found.append(int(entry.name))
        return [pid for pid in found if processes.command_line(pid)[:1] not in ([], ["catatonit"], ["sleep"])]

    def scratch(self) -> Path:
        return Path(self.lab.data)

    def processes_named(self, host: str, *names: str) -> list[int]:
        """Pids of a host whose command line begins with one of these programs or modules."""
        found = []
        for pid in processes.marked(self.lab.mark(self.lab.host(host))):
            words = processes.command_line(pid)[:4]
            if any(Path(word).name in names or word in names for word in words):
                found.append(pid)
        return found


def try_call(client: Client, method: str, path: str, query: Json | None = None, body: Any = None) -> Any:
    """A call that may fail while the swarm has no leader: None then."""
    try:
        return client.call(method, path, query, body)
    except (ClientError, OSError):
        return None
