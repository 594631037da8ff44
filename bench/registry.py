"""Shoal's registry beside Docker's: the same blobs, pushed and pulled by the same clients over loopback.

`python -m bench` takes these rows with the others; `python -m bench.registry` takes only them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.row import Goal

BLOBS = 8
BLOB_BYTES = 64 << 20
PIECE = 1 << 20


ALONE = 1
TOGETHER = BLOBS
PUSH = {TOGETHER: Goal("registry: 8 pushes of 64 MiB at once", "MB/s", None),
        ALONE: Goal("registry: 8 pushes of 64 MiB one after another", "MB/s", None)}
PULL = {TOGETHER: Goal("registry: 8 pulls of 64 MiB at once", "MB/s", None),
        ALONE: Goal("registry: 8 pulls of 64 MiB one after another", "MB/s", None)}
MEMORY = Goal("registry: peak memory of 8 at once", "MiB", 1.0)
ROWS = [*PUSH.values(), *PULL.values(), MEMORY]


def shoal(root: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "shoal.cli.main", "registry", "serve", "--root", str(root),
            "--listen", f"127.0.0.1:{port}"]


def docker(root: Path, port: int) -> list[str]:
    config = root / "config.yml"
    config.write_text("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n"
                      f"  filesystem: {{rootdirectory: {root}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    return ["docker-registry", "serve", str(config)]


SYSTEMS: dict[str, Callable[[Path, int], list[str]]] = {"shoal": shoal, "dockerd": docker}
"""By the names of the columns."""


@contextlib.contextmanager
def _running(name: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
        found.close()
        process = subprocess.Popen(SYSTEMS[name](Path(folder), port), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 30
            while not _answers(port):
                assert process.poll() is None and time.monotonic() < end, f"the registry of {name} does not start"
                time.sleep(0.02)
            yield port, process
        finally:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _request(port: int, head: str, body: bytes = b"") -> tuple[int, dict[str, str], int]:
    """One request by hand, so that the client costs little: status, headers, length of the body."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        lines = f"{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(lines.encode())
        connection.sendall(body)
        with connection.makefile("rb", buffering=0) as answer:
            buffer, data = bytearray(PIECE), b""
            while b"\r\n\r\n" not in data:
                piece = answer.read(4096)
                assert piece, "the registry closed the connection"
                data += piece
            top, _, rest = data.partition(b"\r\n\r\n")
            status, *fields = top.decode().split("\r\n")
            length = len(rest)
            while count := answer.readinto(buffer):
                length += count
    headers = dict(line.split(": ", 1) for line in fields)
    return int(status.split()[1]), headers, length


def _push(port: int, content: bytes, digest: str) -> None:
    _, headers, _ = _request(port, "POST /v2/bench/blobs/uploads/")
    where = headers["Location"].removeprefix("http://localhost")
    mark = "&" if "?" in where else "?"
    status, _, _ = _request(port, f"PUT {where}{mark}digest={digest}", content)
    assert status == 201, status


def _pull(port: int, digest: str) -> None:
    status, _, length = _request(port, f"GET /v2/bench/blobs/{digest}")
    assert (status, length) == (200, BLOB_BYTES)


def _peak_mib(process: subprocess.Popen[bytes]) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(names: list[str], only: str = "", repeat: int = 11) -> dict[str, dict[str, list[float]]]:
    """Every figure of the systems named, in turn; who is first changes from turn to turn.

    One turn of the same registry differs from the next by a half: it takes some to tell the two apart.
    """
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    if not any(only in row.title for row in ROWS):
        return figures
    contents = [os.urandom(PIECE) * (BLOB_BYTES // PIECE) for _ in range(BLOBS)]
    digests = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in contents]
    for turn in range(repeat):
        for at_once in (TOGETHER, ALONE):
            for name in names if turn % 2 else reversed(names):
                for row, value in _take(name, at_once, contents, digests).items():
                    figures[name].setdefault(row.title, []).append(value)
    return figures


def _take(name: str, at_once: int, contents: list[bytes], digests: list[str]) -> dict[Goal, float]:
    """The figures of one registry that holds nothing yet."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as clients, _running(name) as (port, process):
        os.sync()  # what the one before left to write is not this one's
        begin = time.monotonic()
        list(clients.map(lambda content, digest: _push(port, content, digest), contents, digests))
        pushed = time.monotonic()
        list(clients.map(lambda digest: _pull(port, digest), digests))
        pulled = time.monotonic()
        taken = {PUSH[at_once]: BLOBS * BLOB_BYTES / 1e6 / (pushed - begin),
                 PULL[at_once]: BLOBS * BLOB_BYTES / 1e6 / (pulled - pushed)}
        return taken | ({MEMORY: _peak_mib(process)} if at_once == TOGETHER else {})


def main() -> None:
    figures = measure(list(SYSTEMS))
    for row in ROWS:
        mine, other = (statistics.median(figures[name][row.title]) for name in SYSTEMS)
        print(f"{row.title}: Shoal {mine:.4g} {row.unit}, docker-registry {other:.4g} {row.unit}, "
              f"ratio {mine / other:.2f}{'' if row.met(mine / other) else ' NOT MET'}")


if __name__ == "__main__":
    main()
