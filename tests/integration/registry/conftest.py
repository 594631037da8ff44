"""Registries in processes of their own."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

DEADLINE_S = 60


class Answer:
    def __init__(self, response, body):
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        """The code of the one error."""
        return self.json["errors"][0]["code"]


class Server:
    """One registry: ours, or Docker's. `call` sends one request on a connection of its own."""

    def __init__(self, port: int, process: subprocess.Popen[bytes] | None) -> None:
        self.port, self.process = port, process

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def call(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            response = connection.getresponse()
            return Answer(response, response.read())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def wait_for(condition, what="it"):
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about in {DEADLINE_S} s")


def answers(port, process):
    assert process.poll() is None, "the registry ended"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def starting() -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list of processes, which end with it."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield started
    finally:
        for each in started:
            if each.poll() is None:
                each.kill()
            each.wait(DEADLINE_S)


def ours(processes, root: Path, *options: str, before: tuple[str, ...] = ()) -> Server:
    """Our registry, on `root`; `before` is a command that starts it."""
    port = free_port()
    process = subprocess.Popen([*before, sys.executable, "-m", "shoal.cli.main", "registry", "serve",
                                "--root", str(root), "--listen", f"127.0.0.1:{port}", *options])
    processes.append(process)
    wait_for(lambda: answers(port, process), "our registry")
    return Server(port, process)


def dockers(processes, root: Path, config: Path) -> Server:
    """Docker's registry, on `root`."""
    port = free_port()
    config.write_text("version: 0.1\nlog: {level: error}\nstorage:\n  delete: {enabled: true}\n"
                      f"  filesystem: {{rootdirectory: {root}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    process = subprocess.Popen(["docker-registry", "serve", str(config)], env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    processes.append(process)
    wait_for(lambda: answers(port, process), "Docker's registry")
    return Server(port, process)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    with starting() as started:
        yield started


@pytest.fixture
def serve(processes):
    """serve(root, *options): our registry."""
    return functools.partial(ours, processes)


@pytest.fixture
def serve_docker(processes, tmp_path):
    """serve_docker(root): Docker's."""
    return lambda root: dockers(processes, root, tmp_path / f"docker-{len(processes)}.yml")


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "htpasswd"
    path.write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    return path
