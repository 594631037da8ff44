"""What is measured of one Docker host that is in no swarm. Lower is better everywhere.

What a measurement needs stands after its first turn (its container, its file) and is not part of its time.
"""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.peers.hosts import Json, Peer, try_call
from bench.row import Row
from shoal.cli.client import Client

OBEYS = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]
SLEEPS = ["sleep", "100000"]
LOG_BYTES = 100_000_000
FILE_BYTES = 1_000_000_000
RUNNING, CREATED = 100, 400
CLIENTS = 20
IDLE_S = 5.0


def _client(peer: Peer) -> Client:
    return peer.client(peer.hosts()[0])


def _docker(peer: Peer, *words: str) -> float:
    """Seconds that a `docker` command takes, its own start included."""
    environment = {**os.environ, "DOCKER_HOST": _client(peer).host}
    begin = time.monotonic()
    subprocess.run(["docker", *words], env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.monotonic() - begin


def _start(client: Client, name: str, image: str, command: list[str]) -> None:
    """A container that runs this command, where there is none of that name."""
    if try_call(client, "GET", f"/containers/{name}/json") is None:
        client.call("POST", "/containers/create", {"name": name}, _config(image, command))
        client.call("POST", f"/containers/{name}/start")


def _config(image: str, command: list[str]) -> Json:
    return {"Image": image, "Cmd": command}


def start_detached(peer: Peer, image: str) -> float:
    taken = _docker(peer, "run", "--detach", "--name", "started", image, *SLEEPS)
    _client(peer).call("DELETE", "/containers/started", {"force": True})
    return taken


def execute(peer: Peer, image: str) -> float:
    _start(_client(peer), "target", image, SLEEPS)
    return _docker(peer, "exec", "target", "true")


def stop(peer: Peer, image: str) -> float:
    client = _client(peer)
    _start(client, "stopped", image, OBEYS)
    _docker(peer, "exec", "stopped", "true")  # by then its shell has set the trap
    taken = _docker(peer, "stop", "stopped")
    client.call("DELETE", "/containers/stopped")
    return taken


def logs(peer: Peer, image: str) -> float:
    line = "x" * 79
    _start(_client(peer), "talker", image, ["sh", "-c", f"yes {line} | head -c {LOG_BYTES}"])
    _client(peer).call("POST", "/containers/talker/wait")
    return _docker(peer, "logs", "talker")


def copy_in(peer: Peer, image: str) -> float:
    _start(_client(peer), "target", image, SLEEPS)
    source = _file(peer)
    try:
        return _docker(peer, "cp", str(source), "target:/big")
    finally:
        source.unlink()


def copy_out(peer: Peer, image: str) -> float:
    """What `copy_in` put there."""
    target = peer.scratch() / "big"
    try:
        return _docker(peer, "cp", "target:/big", str(target))
    finally:
        target.unlink(missing_ok=True)


def _file(peer: Peer) -> Path:
    place = peer.scratch() / "big"
    piece = os.urandom(1_000_000)
    with place.open("wb") as file:
        for _ in range(FILE_BYTES // len(piece)):
            file.write(piece)
    os.sync()  # what is still to be written would slow down one side or the other
    return place


def parallel(peer: Peer, image: str) -> float:
    """Seconds until each of the clients has created, started and removed a container three times."""

    def work(number: int) -> None:
        client = _client(peer)
        for turn in range(3):
            name = f"parallel-{number}-{turn}"
            client.call("POST", "/containers/create", {"name": name}, _config(image, SLEEPS))
            client.call("POST", f"/containers/{name}/start")
            client.call("DELETE", f"/containers/{name}", {"force": True})

    begin = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))
    return time.monotonic() - begin


def _populate(peer: Peer, image: str) -> None:
    """The containers of a busy host, made once."""
    if try_call(_client(peer), "GET", "/containers/many-0/json") is not None:
        return

    def make(number: int) -> None:
        client = _client(peer)
        client.call("POST", "/containers/create", {"name": f"many-{number}"}, _config(image, SLEEPS))
        if number < RUNNING:
            client.call("POST", f"/containers/many-{number}/start")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(RUNNING + CREATED)))


def list_all(peer: Peer, image: str) -> float:
    _populate(peer, image)
    return _docker(peer, "ps", "--all")


def idle_cpu(peer: Peer, image: str) -> float:
    """Milliseconds of processor time in a second, of all processes of the host that are no containers'."""
    _populate(peer, image)
    pids = peer.system_pids(peer.hosts()[0])
    before, begin = sum(map(_ran_ns, pids)), time.monotonic()
    time.sleep(IDLE_S)
    return (sum(map(_ran_ns, pids)) - before) / 1e6 / (time.monotonic() - begin)


def _ran_ns(pid: int) -> int:
    """Of those of its threads that live."""
    return sum(int(place.read_text().split()[0]) for place in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def memory(peer: Peer, image: str) -> float:
    """MiB of PSS, of all processes of the host that are no containers'."""
    _populate(peer, image)
    return sum(map(pss_kib, peer.system_pids(peer.hosts()[0]))) / 1024


def pss_kib(pid: int) -> int:
    """The memory of a process; what it shares with others is divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


ROWS = [  # the crowd of containers comes last
    Row("docker run --detach", "s", start_detached, 0.5, 15),
    Row("docker exec c true", "s", execute, 0.5, 15),
    Row("docker stop of a container that obeys", "s", stop, 1.0, 9),
    Row("docker logs of 100 MB", "s", logs, 1.0, 3),
    Row("docker cp of 1 GB into a container", "s", copy_in, 1.0, 5),
    Row("docker cp of 1 GB out of a container", "s", copy_out, 1.0, 3),
    Row(f"{CLIENTS} clients: create, start and remove 3 times each", "s", parallel, 1.0, 2),
    Row(f"docker ps --all, {RUNNING + CREATED} containers of which {RUNNING} run", "s", list_all, 1.0, 7),
    Row(f"memory with {RUNNING} containers running, monitors included (PSS)", "MiB", memory, 1.0, 1),
    Row(f"processor time with {RUNNING} idle containers running", "ms/s", idle_cpu, 1.0, 2),
]
