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
from shoal.lab.plan import LabPlan
from shoal.lab.processes import LabError

TIMEOUT_S = 60.0


def call(path: Path, method: str, target: str, body: object = None) -> Any:
    """One call to a daemon; the decoded answer. Raises LabError with the daemon's message."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(TIMEOUT_S)
    try:
        connection.sock.connect(str(path))
        headers = {"Content-Type": "application/json"}
        connection.request(method, target, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        decoded = json.loads(text) if text.strip() else {}
        if answer.status >= 400:
            raise LabError(f"{method} {target} on {path.parent.name}: {decoded.get('message', answer.status)}")
        return decoded
    except OSError as error:
        raise LabError(f"{method} {target} on {path.parent.name}: {error}") from error
    finally:
        connection.close()


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
