"""Forming a swarm of a lab's hosts, over the API that everybody uses."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shoal.api.membership import MANAGER_PORT
from shoal.lab.plan import HostPlan, LabPlan
from shoal.lab.processes import LabError

TIMEOUT_S = 60.0


def call(path: Path, method: str, target: str, body: object = None) -> Any:
    """One call to a daemon; the decoded answer. Raises LabError with the daemon's message."""
    text = send(path, method, target, b"" if body is None else json.dumps(body).encode(), "application/json")
    return json.loads(text) if text.strip() else {}


def load(lab: LabPlan, host: HostPlan, archive: bytes) -> None:
    """Give a host the image of an archive. Raises LabError."""
    send(lab.socket(host), "POST", "/images/load?quiet=1", archive, "application/x-tar")


def send(path: Path, method: str, target: str, body: bytes, content_type: str) -> bytes:
    """One call to a daemon; the answer as it is. Raises LabError with the daemon's message."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(TIMEOUT_S)
    try:
        connection.sock.connect(str(path))
        connection.request(method, target, body or None, {"Content-Type": content_type})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise LabError(f"{method} {target} on {path.parent.name}: {_message(text) or answer.status}")
        return text
    except OSError as error:
        raise LabError(f"{method} {target} on {path.parent.name}: {error}") from error
    finally:
        connection.close()


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace").strip()


def form(lab: LabPlan, progress: Callable[[str], None]) -> None:
    """Make the first host a swarm and join the others: managers one by one, workers at once."""
    first, *others = lab.hosts
    listen = {"ListenAddr": f"0.0.0.0:{MANAGER_PORT}"}
    call(lab.socket(first), "POST", "/swarm/init", {**listen, "AdvertiseAddr": first.address})
    tokens = call(lab.socket(first), "GET", "/swarm")["JoinTokens"]
    remote = [f"{first.address}:{MANAGER_PORT}"]

    def join(number: int) -> None:
        host = others[number]
        token = tokens["Manager" if host.manager else "Worker"]
        body = {**listen, "AdvertiseAddr": host.address, "RemoteAddrs": remote, "JoinToken": token}
        call(lab.socket(host), "POST", "/swarm/join", body)

    managers = [number for number, host in enumerate(others) if host.manager]
    workers = [number for number, host in enumerate(others) if not host.manager]
    with ThreadPoolExecutor(len(lab.hosts)) as pool:
        joined = [pool.submit(join, number) for number in workers]
        for number in managers:
            join(number)
        for worker in joined:
            worker.result()
    progress(f"{1 + len(managers)} managers and {len(workers)} workers form a swarm")
