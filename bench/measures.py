"""What is measured. Each takes a peer that is up and gives one figure; lower is better unless it says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.dockerhost import pss_kib
from bench.peers.hosts import Json, Peer, try_call, wait_until
from shoal.cli.client import Client
from shoal.lab import lab as labs

NETWORK = "bench"


def _spec(image: str, name: str, replicas: int, *, network: bool = True, constraints: tuple[str, ...] = ()) -> Json:
    return {
        "Name": name,
        "Mode": {"Replicated": {"Replicas": replicas}},
        "TaskTemplate": {
            "ContainerSpec": {"Image": image, "Args": ["sleep", "100000"], "StopGracePeriod": 0},
            "Networks": [{"Target": NETWORK}] if network else [],
            "Placement": {"Constraints": list(constraints)},
        },
    }


def make_network(client: Client) -> None:
    body = {"Name": NETWORK, "Driver": "overlay", "Attachable": True, "CheckDuplicate": True}
    client.call("POST", "/networks/create", body=body)


def running(client: Client, service: str, not_on: str = "") -> int:
    """Tasks of a service that run and should, but for those on one node."""
    query = {"filters": {"service": [service], "desired-state": ["running"]}}
    tasks = try_call(client, "GET", "/tasks", query) or []
    return sum(task["Status"]["State"] == "running" and task.get("NodeID") != not_on for task in tasks)


def remove_service(client: Client, service: str, peer: Peer) -> None:
    """Remove a service, and wait until no host has a container left."""
    client.call("DELETE", f"/services/{service}")
    filters = {"filters": {"label": [f"com.docker.swarm.service.name={service}"]}, "all": True}
    clients = [peer.client(host) for host in peer.hosts()]
    wait_until(lambda: not any(try_call(each, "GET", "/containers/json", filters) for each in clients))


def run_true(peer: Peer, image: str) -> float:
    """`docker run --rm IMAGE true`, the command included."""
    environment = {**os.environ, "DOCKER_HOST": peer.client(peer.hosts()[0]).host}
    begin = time.monotonic()
    subprocess.run(["docker", "run", "--rm", image, "true"], env=environment, check=True, capture_output=True)
    return time.monotonic() - begin


def shoal_ps(runs: int = 15) -> list[float]:
    """`shoal ps` of a host without containers, the command included."""
    lab = labs.up("bench-ps", managers=1, workers=0)
    command = [str(Path(sys.executable).with_name("shoal")), "--host", f"unix://{lab.socket(lab.hosts[0])}", "ps"]
    try:
        return [_timed(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(runs)]
    finally:
        labs.down(lab.name)


def lab_up(runs: int = 3) -> list[float]:
    """Five hosts from nothing to a swarm of which all have joined."""
    taken = []
    for _ in range(runs):
        taken.append(_timed(lambda: labs.up("bench-up", managers=3, workers=2)))
        labs.down("bench-up")
    return taken


def _timed(work: Callable[[], Any]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def create_replicas(peer: Peer, image: str, count: int = 20) -> float:
    """A new service on an overlay until all of its replicas run."""
    client = peer.client(peer.hosts()[0])
    begin = time.monotonic()
    client.call("POST", "/services/create", body=_spec(image, "create", count))
    wait_until(lambda: running(client, "create") == count)
    taken = time.monotonic() - begin
    remove_service(client, "create", peer)
    return taken


def scale_up(peer: Peer, image: str, count: int = 50) -> float:
    """A service of 0 replicas on an overlay scaled until all run."""
    client = peer.client(peer.hosts()[0])
    client.call("POST", "/services/create", body=_spec(image, "scale", 0))

    def scale() -> bool:  # refused while the managers still change the service themselves
        found = client.call("GET", "/services/scale")
        found["Spec"]["Mode"]["Replicated"]["Replicas"] = count
        query = {"version": found["Version"]["Index"]}
        return try_call(client, "POST", f"/services/{found['ID']}/update", query, found["Spec"]) is not None

    begin = time.monotonic()
    wait_until(scale)
    wait_until(lambda: running(client, "scale") == count)
    taken = time.monotonic() - begin
    remove_service(client, "scale", peer)
    return taken


def worker_crash(peer: Peer, image: str, count: int = 10) -> float:
    """Power-off of a worker until all replicas run elsewhere."""
    client, victim = peer.client(peer.hosts()[0]), peer.hosts()[-1]
    node = peer.client(victim).call("GET", "/info")["Swarm"]["NodeID"]
    client.call("POST", "/services/create", body=_spec(image, "heal", count))
    wait_until(lambda: running(client, "heal") == count)
    begin = time.monotonic()
    peer.crash(victim)
    wait_until(lambda: running(client, "heal", not_on=node) == count)
    return time.monotonic() - begin


def leader_crash(peer: Peer, image: str) -> float:
    """Power-off of the leader until the next write succeeds."""
    managers = {node["Description"]["Hostname"]: node for node in peer.client(peer.hosts()[0]).call("GET", "/nodes")
                if node.get("ManagerStatus")}
    leader = next(name for name, node in managers.items() if node["ManagerStatus"].get("Leader"))
    other = next(name for name in managers if name != leader)
    client = peer.client(other)
    number = iter(range(1000))
    body: dict[str, Any] = {"Driver": "overlay"}
    begin = time.monotonic()
    peer.crash(leader)

    def write() -> bool:
        return try_call(client, "POST", "/networks/create", None, {**body, "Name": f"n{next(number)}"}) is not None

    wait_until(write)
    return time.monotonic() - begin


def overlay_throughput(peer: Peer, image: str) -> float:
    """One TCP stream between containers on two hosts of an overlay, in Gbit/s: higher is better."""
    first, second = peer.hosts()[:2]
    server, client = peer.client(first), peer.client(second)
    config = {"Image": image, "HostConfig": {"NetworkMode": NETWORK}}
    made = server.call("POST", "/containers/create", {"name": "iperf"}, {**config, "Cmd": ["iperf3", "-s"]})
    server.call("POST", f"/containers/{made['Id']}/start")
    address = server.call("GET", f"/containers/{made['Id']}/json")["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
    command = f"until timeout 20 iperf3 -J -t 5 -c {address} > /tmp/out; do sleep 0.1; done; cat /tmp/out"
    caller = client.call("POST", "/containers/create", {"name": "call"}, {**config, "Cmd": ["sh", "-c", command]})
    client.call("POST", f"/containers/{caller['Id']}/start")
    client.call("POST", f"/containers/{caller['Id']}/wait", {"condition": "not-running"})
    output = b"".join(
        data for stream, data in client.frames(f"/containers/{caller['Id']}/logs", {"stdout": True}) if stream == 1
    )
    for side, container in ((server, made), (client, caller)):
        side.call("DELETE", f"/containers/{container['Id']}", {"force": True})
    return float(json.loads(output)["end"]["sum_received"]["bits_per_second"]) / 1e9


def idle_memory(peer: Peer, image: str) -> float:
    """MiB of summed PSS of the processes that are the system, on an idle manager."""
    return sum(map(pss_kib, peer.daemon_pids(peer.hosts()[0]))) / 1024
