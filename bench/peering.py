"""What a host sends when others take an image of it.

`python -m bench` takes this with the others; `python -m bench.peering` takes only this.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.content import LARGE, make_context
from bench.measures import running
from bench.peers.hosts import API_VERSION, wait_until
from shoal.cli.client import Client
from shoal.lab import lab as labs
from shoal.lab import processes
from shoal.lab.plan import HostPlan, LabPlan

LAB, SERVICE = "bench-peers", "taken"
MANAGERS, WORKERS = 3, 8


def sent() -> list[float]:
    """GB through the link of the host that built the image, until a service of it runs on all eleven."""
    lab = labs.up(LAB, MANAGERS, WORKERS)
    try:
        _build(lab)
        client = _client(lab)
        before, begin = _sent_bytes(lab, lab.hosts[0]), time.monotonic()
        client.call("POST", "/services/create", body={
            "Name": SERVICE, "Mode": {"Global": {}},
            "TaskTemplate": {"ContainerSpec": {"Image": "bench:built", "Args": ["sleep", "100000"]}},
        })
        wait_until(lambda: running(client, SERVICE) == len(lab.hosts), 600)
        print(f"after {time.monotonic() - begin:.3g} s it runs on {len(lab.hosts)} hosts", flush=True)
        return [(_sent_bytes(lab, lab.hosts[0]) - before) / 1e9]
    finally:
        labs.down(LAB)


def _client(lab: LabPlan) -> Client:
    return Client(f"unix://{lab.socket(lab.hosts[0])}", version=API_VERSION)


def _build(lab: LabPlan) -> None:
    environment = {**os.environ, "DOCKER_HOST": _client(lab).host, "DOCKER_BUILDKIT": "0"}
    with tempfile.TemporaryDirectory() as context:
        make_context(LARGE, "busybox", Path(context))
        subprocess.run(["docker", "build", "--tag", "bench:built", context], env=environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _sent_bytes(lab: LabPlan, host: HostPlan) -> int:
    """By its link, since it is up."""
    init_pid = processes.init_of(lab.mark(host))
    for line in Path(f"/proc/{init_pid}/net/dev").read_text().splitlines():
        name, _, counts = line.strip().partition(":")
        if name == "eth0":
            return int(counts.split()[8])
    raise LookupError(f"{host.name} has no link")


if __name__ == "__main__":
    print(f"{sent()[0]:.4g} GB")
