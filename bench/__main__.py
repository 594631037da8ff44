"""Run every measurement on both systems in turn and write the table."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from bench import dockerhost, image, images, measures, peering, registry
from bench.peers.dockerd import Dockerd
from bench.peers.hosts import Peer, wait_until
from bench.peers.shoal import Shoal
from bench.row import Row

RESULTS = Path(__file__).parent / "results"


ONE_MANAGER = [Row("memory of a one-manager swarm, idle (PSS)", "MiB", measures.idle_memory, 1.0, 1)]
STEADY = [
    Row("docker run --rm busybox true", "s", measures.run_true, 0.5, 15),
    Row("create 20 replicas on an overlay, until all run", "s", measures.create_replicas, 0.4, 3),
    Row("scale 0 to 50 on an overlay, until all run", "s", measures.scale_up, 0.4, 3),
    Row("container to container across hosts, one TCP stream", "Gbit/s", measures.overlay_throughput, None, 3),
]
CRASHES = [
    Row("worker crash, until all replicas run elsewhere", "s", measures.worker_crash, 0.4, 1),
    Row("leader crash, until the next write succeeds", "s", measures.leader_crash, 0.25, 1),
]
SHAPES = [((1, 0), ONE_MANAGER), ((3, 2), STEADY + CRASHES)]
ROWS = [*dockerhost.ROWS, *(row for _, rows in SHAPES for row in rows), *images.ROWS, *registry.ROWS]
BOUNDS = [  # what Shoal alone has to keep: (what, its unit, measured how, at most so much)
    ("shoal ps, the command's start included", "s", measures.shoal_ps, 0.12),
    ("shoal lab up, 3 managers and 2 workers", "s", measures.lab_up, 10.0),
    ("ten hosts take a 1 GB image that one host has: what that one sends", "GB", peering.sent, 2.0),
]


def measure(peer: Peer, archive: Path, image_id: str, only: str) -> dict[str, list[float]]:
    """Every figure of one system, each of its measurements in a list."""
    figures: dict[str, list[float]] = {}
    for (managers, workers), rows in SHAPES:
        wanted = [row for row in rows if only in row.title]
        if not wanted:
            continue
        try:
            peer.up(managers, workers, archive)
            measures.make_network(peer.client(peer.hosts()[0]))
            wait_until(lambda: peer.client(peer.hosts()[0]).call("GET", "/nodes") is not None)
            for row in wanted:
                figures[row.title] = [row.measure(peer, image_id) for _ in range(row.repeat)]
                print(f"{peer.name}: {row.title}: {_show(figures[row.title])} {row.unit}", file=sys.stderr, flush=True)
        finally:
            peer.down()
    return figures


def measure_host(peers: list[Peer], archive: Path, image_id: str, only: str) -> dict[str, dict[str, list[float]]]:
    """Every figure of the Docker hosts: all are up at once, and each measurement is taken of them in turn."""
    figures: dict[str, dict[str, list[float]]] = {peer.name: {} for peer in peers}
    wanted = [row for row in dockerhost.ROWS if only in row.title]
    with contextlib.ExitStack() as stack:
        for peer in peers if wanted else []:
            stack.callback(peer.down)
            peer.up(1, 0, archive)
            peer.client(peer.hosts()[0]).call("POST", "/swarm/leave", {"force": True})
        for row in wanted:
            for _ in range(row.repeat):
                for peer in peers:
                    figures[peer.name].setdefault(row.title, []).append(row.measure(peer, image_id))
            for peer in peers:
                shown = _show(figures[peer.name][row.title])
                print(f"{peer.name}: {row.title}: {shown} {row.unit}", file=sys.stderr, flush=True)
    return figures


def _show(values: list[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", default="", help="measurements whose title contains this")
    parser.add_argument("--peers", default="dockerd,shoal")
    parser.add_argument("--rounds", type=int, default=1, help="how often both are measured, in turn")
    options = parser.parse_args()
    known: dict[str, type[Dockerd] | type[Shoal]] = {"dockerd": Dockerd, "shoal": Shoal}
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in options.peers.split(",")}
    with tempfile.TemporaryDirectory() as folder:
        archive, image_id = image.build(Path(folder))
        for name, taken in measure_host([known[name]() for name in figures], archive, image_id, options.only).items():
            figures[name].update(taken)
        for _ in range(options.rounds):
            for name in figures:
                for title, values in measure(known[name](), archive, image_id, options.only).items():
                    figures[name].setdefault(title, []).extend(values)
    for name, taken in images.measure([known[name]() for name in figures], options.only).items():
        figures[name].update(taken)
    for name, taken in registry.measure(list(figures), options.only).items():
        figures[name].update(taken)
    bounds = {title: take() for title, _, take, _ in BOUNDS if options.only in title and "shoal" in figures}
    report(figures, bounds)


def report(figures: dict[str, dict[str, list[float]]], bounds: dict[str, list[float]]) -> None:
    """Print the tables; write them where both systems were measured whole."""
    lines = ["| what | Shoal | peer | ratio | at most | met |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        ours, theirs = (figures.get(name, {}).get(row.title) for name in ("shoal", "dockerd"))
        if not ours or not theirs:
            continue
        mine, peer = statistics.median(ours), statistics.median(theirs)
        ratio = mine / peer
        bound = "at least 1" if row.limit is None else f"{row.limit}"
        lines.append(
            f"| {row.title} | {mine:.3g} {row.unit} | {peer:.3g} {row.unit} | {ratio:.2f} | {bound} |"
            f" {'yes' if row.met(ratio) else 'NO'} |"
        )
    lines += ["", "| what | Shoal | at most | met |", "|---|---|---|---|"]
    for title, unit, _, limit in BOUNDS:
        if title in bounds:
            mine = statistics.median(bounds[title])
            lines.append(f"| {title} | {mine:.3g} {unit} | {limit:.3g} {unit} | {'yes' if mine <= limit else 'NO'} |")
    print("\n".join(lines))
    if all(row.title in figures.get(name, {}) for name in ("shoal", "dockerd") for row in ROWS):
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        RESULTS.mkdir(exist_ok=True)
        head = (f"# {stamp}: {os.cpu_count()} cores, kernel {platform.release()}, medians; peers are Debian's dockerd "
                "20.10 and, of the registry, its docker-registry 2.8\n\n")
        (RESULTS / f"{stamp}.md").write_text(head + "\n".join(lines) + "\n")
        (RESULTS / f"{stamp}.json").write_text(json.dumps({**figures, "bounds": bounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
