"""How fast images come, go and are made: Shoal beside dockerd, both with Docker's own registry on their loopback.

`python -m bench` takes these rows with the others; `python -m bench.images` takes only them. Both daemons
are up at once, and each measurement is taken of them in turn. Nothing of an image is left from the turn before.
With the image of many files, what the daemons keep is in memory: for a minute after so many were removed, ext4 takes
a millisecond for each new one, and that is what would be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import image, registry
from bench.content import KINDS, Kind, Made, make
from bench.peers.dockerd import Dockerd
from bench.peers.hosts import Peer, try_call, wait_until
from bench.peers.shoal import Shoal
from bench.row import Goal

SOURCE, TARGET = 5001, 5002
"""The ports of the registry that is pulled from, and of the one that is pushed to."""


class Bench:
    """One system, its registries, and the image that its builds start from."""

    def __init__(self, peer: Peer, source: Path, target: Path) -> None:
        self.peer = peer
        self._source, self._target = source, target
        self._client = peer.client(peer.hosts()[0])
        self._kept: set[str] = set()

    def start(self) -> None:
        self._kept = {one["Id"] for one in self._client.call("GET", "/images/json")}
        for root, port in ((self._source, SOURCE), (self._target, TARGET)):
            root.mkdir(exist_ok=True)
            self.peer.start(self.peer.hosts()[0], registry.docker(root, port))
            probe = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
            wait_until(lambda: self.peer.succeeds(self.peer.hosts()[0], [sys.executable, "-c", probe]), 30)  # noqa: B023

    def docker(self, *words: str) -> float:
        """Seconds that a `docker` command takes."""
        environment = {**os.environ, "DOCKER_HOST": self._client.host, "DOCKER_BUILDKIT": "0"}
        os.sync()  # what the one before left to write is not this one's
        begin = time.monotonic()
        subprocess.run(["docker", *words], env=environment, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.PIPE)
        return time.monotonic() - begin

    def tag(self, name: str, repository: str) -> None:
        self._client.call("POST", f"/images/{name}/tag", {"repo": repository, "tag": "latest"})

    def id_of(self, name: str) -> str:
        return str(self._client.call("GET", f"/images/{name}/json")["Id"])

    def empty(self) -> None:
        """Of images, and of what was pushed."""
        def left() -> list[str]:
            found = self._client.call("GET", "/images/json", {"all": True})
            return [one["Id"] for one in found if one["Id"] not in self._kept]

        end = time.monotonic() + 60
        while ids := left():
            assert time.monotonic() < end, f"{self.peer.name} keeps images"
            for one in ids:  # those that others were built on go with them
                try_call(self._client, "DELETE", f"/images/{one}", {"force": True})
        shutil.rmtree(self._target / "docker", ignore_errors=True)


# --- what is measured, in this order: a push and a save are of what was loaded, a cached build of what was built ---


def load(bench: Bench, made: Made) -> float:
    bench.empty()
    return bench.docker("load", "--quiet", "--input", str(made.archive))


def push(bench: Bench, made: Made) -> float:
    target = f"127.0.0.1:{TARGET}/{made.kind.repository}"
    bench.tag(f"{made.kind.repository}:loaded", target)
    return bench.docker("push", "--quiet", target)


def save(bench: Bench, made: Made) -> float:
    target = bench.peer.scratch() / "saved.tar"
    try:
        return bench.docker("save", "--output", str(target), f"{made.kind.repository}:loaded")
    finally:
        target.unlink(missing_ok=True)


def pull(bench: Bench, made: Made) -> float:
    bench.empty()
    return bench.docker("pull", "--quiet", f"127.0.0.1:{SOURCE}/{made.kind.repository}")


def import_root(bench: Bench, made: Made) -> float:
    bench.empty()
    return bench.docker("import", str(made.root), "bench:imported")


def build(bench: Bench, made: Made) -> float:
    bench.empty()
    return bench.docker("build", "--tag", "bench:built", str(made.context))


def build_cached(bench: Bench, made: Made) -> float:
    taken = bench.docker("build", "--tag", "bench:again", str(made.context))
    assert bench.id_of("bench:built") == bench.id_of("bench:again"), f"{bench.peer.name} did not take its cache"
    return taken


class Operation:
    def __init__(self, title: str, limit: float, measure: Callable[[Bench, Made], float], after: str = "") -> None:
        """`after`: the one whose result it needs."""
        self.title, self.limit, self.measure, self.after = title, limit, measure, after

    def goal(self, kind: Kind) -> Goal:
        return Goal(f"{self.title}, {kind.title}", "s", self.limit)


OPERATIONS = [
    Operation("docker load", 1.0, load),
    Operation("docker push", 1.0, push, "docker load"),
    Operation("docker save", 1.0, save, "docker load"),
    Operation("docker pull", 0.67, pull),
    Operation("docker import", 1.0, import_root),
    Operation("docker build", 1.0, build),
    Operation("docker build, all cached", 0.67, build_cached, "docker build"),
]
ROWS = [operation.goal(kind) for kind in KINDS for operation in OPERATIONS]


def wanted(kind: Kind, only: str) -> list[Operation]:
    """Those that are asked for, and what they need."""
    chosen = [one for one in OPERATIONS if only in one.goal(kind).title]
    needed = {one.title for one in chosen} | {one.after for one in chosen}
    return [one for one in OPERATIONS if one.title in needed]


def measure(peers: list[Peer], only: str = "") -> dict[str, dict[str, list[float]]]:
    """Every figure of these systems."""
    figures: dict[str, dict[str, list[float]]] = {peer.name: {} for peer in peers}
    for many_files in (False, True):
        if kinds := [kind for kind in KINDS if kind.many_files == many_files and wanted(kind, only)]:
            with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
                benches = _up(peers, Path(folder), stack, on_disk=not many_files)
                for kind in kinds:
                    made = make(kind, image.NAME, Path(folder, "content"), Path(folder, "source"))
                    _measure(benches, made, wanted(kind, only), figures)
                    shutil.rmtree(Path(folder, "content"))
    return figures


def _up(peers: list[Peer], folder: Path, stack: contextlib.ExitStack, *, on_disk: bool) -> list[Bench]:
    """Down again at the end of the `stack`."""
    archive, _ = image.build(folder)
    benches = []
    for peer in peers:
        if not on_disk:
            stack.enter_context(in_memory(peer.data))
        stack.callback(peer.down)
        peer.up(1, 0, archive)
        benches.append(Bench(peer, folder / "source", folder / peer.name))
        benches[-1].start()
    return benches


@contextlib.contextmanager
def in_memory(place: Path) -> Iterator[None]:
    """What is written there goes to no disk."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()
        for parent in place.parents[:2]:
            with contextlib.suppress(OSError):
                parent.rmdir()  # only where it is empty


def _measure(benches: list[Bench], made: Made, operations: list[Operation],
             figures: dict[str, dict[str, list[float]]]) -> None:
    for _ in range(made.kind.repeat):
        for operation in operations:
            title = operation.goal(made.kind).title
            for bench in benches:
                taken = operation.measure(bench, made)
                figures[bench.peer.name].setdefault(title, []).append(taken)
                print(f"{bench.peer.name}: {title}: {taken:.3g} s", file=sys.stderr, flush=True)
    for bench in benches:
        bench.empty()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.images", description=__doc__)
    parser.add_argument("--only", default="", help="measurements whose title contains this")
    figures = measure([Dockerd(), Shoal()], parser.parse_args().only)
    for row in ROWS:
        if row.title in figures["shoal"]:
            mine, peer = (statistics.median(figures[name][row.title]) for name in ("shoal", "dockerd"))
            print(f"{row.title}: Shoal {mine:.3g} s, dockerd {peer:.3g} s, "
                  f"ratio {mine / peer:.2f}{'' if row.met(mine / peer) else ' NOT MET'}")


if __name__ == "__main__":
    main()
