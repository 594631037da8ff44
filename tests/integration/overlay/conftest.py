"""Hosts as namespaces on a hub, each with a `Networks` in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shoal.api.messages import NetworkEndpoint, NetworkInfo, NetworkService
from shoal.api.sandbox import EndpointRequest, Sandbox, SandboxRequest
from shoal.overlay import kernel

DEADLINE_S = 20


class Refused(Exception):
    """The host answered with an error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Host:
    """A host of a test. `call` runs one method of its `Networks`."""

    def __init__(self, root: Path, netns: Path, address: str) -> None:
        self.root, self.netns, self.address = root, netns, address
        self.process: subprocess.Popen[bytes] | None = None
        root.mkdir()
        (root / "resolv.conf").write_text("nameserver 192.0.2.53\nsearch lan\n")

    def start(self) -> None:
        script = Path(__file__).with_name("host.py")
        self.process = subprocess.Popen(
            ["nsenter", f"--net={self.netns}", sys.executable, str(script), str(self.root / "data"),
             str(self.root / "run"), self.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._line() == b'"ready"\n'

    def _line(self) -> bytes:
        assert self.process and self.process.stdout
        timer = threading.Timer(DEADLINE_S, self.process.kill)
        timer.start()
        try:
            return self.process.stdout.readline()
        finally:
            timer.cancel()

    def call(self, do: str, **args: Any) -> Any:
        assert self.process and self.process.stdin
        self.process.stdin.write(msgspec.json.encode({"do": do, "args": args}) + b"\n")
        self.process.stdin.flush()
        answer = msgspec.json.decode(self._line())
        if "error" in answer:
            raise Refused(answer["error"], answer["status"])
        return answer["ok"]

    def up(self, name: str, *endpoints: EndpointRequest, **more: Any) -> Sandbox:
        request = SandboxRequest(container_id=cid(name), name=name, endpoints=endpoints, **more)
        return msgspec.convert(self.call("up", request=request), Sandbox)

    def down(self, name: str) -> None:
        self.call("down", container_id=cid(name))

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def links(self) -> set[str]:
        with kernel.inside(self.netns):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
        return {line.partition(":")[0].strip() for line in lines}


def cid(name: str) -> str:
    return name.encode().hex().ljust(64, "0")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Callable[[int], list[Host]]]:
    """Make `n` hosts, joined by a hub; whatever happens, nothing of them is left."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made: list[Host] = []
    hub = tmp_path / "hub"

    def make(count: int) -> list[Host]:
        kernel.create_namespace(hub)
        with kernel.Links(hub) as links:
            links.add_bridge("hub")
            for number in range(1, count + 1):
                netns = tmp_path / f"h{number}"
                kernel.create_namespace(netns)
                links.add_veth(f"h{number}", "up0", peer_namespace=netns, master="hub")
                host = Host(tmp_path / f"host{number}", netns, f"10.99.0.{number}")
                made.append(host)
                with kernel.Links(netns) as own:
                    own.add_address("up0", f"10.99.0.{number}/24")
        for host in made:
            host.start()
        return made

    try:
        yield make
    finally:
        for host in made:
            host.kill()
            for path in (host.root / "run/netns").glob("*"):
                kernel.delete_namespace(path)
            kernel.delete_namespace(host.netns)
        kernel.delete_namespace(hub)


# --- inside sandboxes: a socket made there stays there ---


def socket_in(netns: str | Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    with kernel.inside(netns):
        made = socket.socket(socket.AF_INET, kind)
    made.settimeout(5)
    return made


class Echo:
    """A TCP server in a sandbox that greets each client with `text` and the client's address."""

    def __init__(self, netns: str | Path, port: int, text: str) -> None:
        self._socket = socket_in(netns)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("0.0.0.0", port))
        self._socket.listen(64)
        self._socket.settimeout(None)
        self._text = text
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, (address, _) = self._socket.accept()
            except OSError:
                return
            with client:
                client.sendall(f"{self._text} {address}".encode())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def greet(netns: str | Path, address: str, port: int) -> str:
    """What the server at `address` says to a client in `netns`."""
    with socket_in(netns) as client:
        client.connect((address, port))
        parts = []
        while data := client.recv(1000):
            parts.append(data)
        return b"".join(parts).decode()


def until(check: Callable[[], bool], what: str, timeout_s: float = 10) -> None:
    """Wait until `check` holds."""
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.02)


class Swarm:
    """What managers would tell, kept by hand: one network, endpoints, services."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.network = NetworkInfo(id="net1", name="app", driver="overlay", vni=4097, subnet="10.0.1.0/24",
                                   gateway="10.0.1.1", attachable=True)
        self.endpoints: dict[str, NetworkEndpoint] = {}
        self.tell(complete=True)

    def tell(self, **what: Any) -> None:
        for host in self.hosts:
            host.call("apply_cluster", **({"networks": (self.network,)} if what.get("complete") else {}), **what)

    def run(self, host: Host, name: str, last: int, **more: Any) -> Sandbox:
        address = f"10.0.1.{last}"
        mac = f"02:42:0a:00:01:{last:02x}"
        endpoint = NetworkEndpoint(id=f"task-{name}", network_id="net1", address=address, mac=mac, node_id=host.address,
                                   node_addr=host.address, names=(name,), service_name=more.pop("service", ""),
                                   healthy=True)
        self.endpoints[name] = endpoint
        self.tell(endpoints=(endpoint,))
        return host.up(name, EndpointRequest(network="net1", address=f"{address}/24", mac=mac), **more)

    def serve(self, *backends: str, vip: str = "10.0.1.200", name: str = "web") -> None:
        self.tell(services=(NetworkService(id=f"svc-{name}", network_id="net1", name=name, vip=vip,
                                           backends=backends),))
