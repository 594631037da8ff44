"""The lab itself: several at once, what its commands print, and that nothing is left of it, whatever happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.api.errors import Conflict, InvalidArgument, NotFound
from shoal.lab import lab as labs
from shoal.lab import processes
from shoal.lab.plan import plan
from tests.cluster import eventually

pytestmark = [pytest.mark.root, pytest.mark.lab]

SHOAL = [sys.executable, "-m", "shoal.cli.main"]


def shoal(*words):
    return subprocess.run([*SHOAL, *words], capture_output=True, text=True, check=False, timeout=120)


def left_of(name):
    """What can still be found of a lab: processes, mounts, cgroups, folders, links of this machine."""
    found = [f"process {pid}" for pid in processes.marked(f"{labs.RUN / name}/")]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines()
              if f"{labs.RUN / name}/" in line or f"{labs.DATA / name}/" in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/shoal-lab/{name}")]
    found += [str(path) for path in (labs.RUN / name, labs.DATA / name) if path.exists()]
    return found


@pytest.fixture
def fresh():
    """Names of labs that a test may use; taken down afterwards."""
    names = [f"tests-{each}-{os.getpid()}" for each in "ab"]  # a later run takes down what a killed one leaves
    for name in names:
        labs.down(name)
    yield names
    for name in names:
        labs.down(name)


def test_two_labs_at_once_and_nothing_left_of_either(fresh, shared_lab):
    links = subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True).stdout
    first, second = fresh
    done = shoal("lab", "up", "--managers", "1", "--workers", "1", "--name", first)
    assert done.returncode == 0, done.stderr
    labs.up(second, managers=1, workers=0)
    assert {first, second, shared_lab.lab.name} <= set(labs.names())
    hosts = json.loads(shoal("lab", "status", "--json", "--name", first).stdout)
    assert [(host["name"], host["role"], host["leader"], host["on"], host["daemon"]) for host in hosts] == [
        ("m1", "manager", True, True, True), ("w1", "worker", False, True, True)]
    assert len(labs.status(labs.load(second))) == 1
    environment = shoal("lab", "env", "w1", "--name", first).stdout.strip()
    assert environment == f"export DOCKER_HOST=unix://{labs.RUN}/{first}/w1/shoal.sock"
    assert shoal("lab", "exec", "w1", "--name", first, "--", "hostname").stdout == "w1\n"
    assert shoal("lab", "exec", "w1", "--name", first, "--", "sh", "-c", "exit 5").returncode == 5

    client = labs.load(first)
    shoal("--host", f"unix://{client.socket(client.host('w1'))}", "run", "-d", "busybox", "sleep", "1000")
    assert shoal("lab", "down", "--name", first).returncode == 0
    labs.down(second)
    assert left_of(first) == left_of(second) == []
    assert subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True).stdout == links


def test_what_a_killed_up_has_begun_is_taken_down(fresh):
    name = fresh[0]
    started = subprocess.Popen([*SHOAL, "lab", "up", "--managers", "1", "--workers", "1", "--name", name],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: processes.marked(f"{labs.RUN / name}/"))
    finally:
        started.send_signal(signal.SIGKILL)
        started.wait()
    labs.down(name)
    assert left_of(name) == []


def test_a_crashed_host_leaves_no_process_and_comes_back(cluster):
    host = cluster.lab.host("w2")
    cluster.happen("crash", "w2")
    assert processes.marked(cluster.lab.mark(host)) == []
    assert shoal("lab", "exec", "w2", "--name", cluster.lab.name, "--", "true").returncode == 1
    cluster.happen("start", "w2")
    eventually(lambda: cluster.nodes()["w2"][1], lambda state: state == "ready")


def test_what_cannot_be_asked_for_is_refused_by_name(shared_lab):
    with pytest.raises(Conflict, match="take it down first"):
        labs.up(shared_lab.lab.name, managers=1, workers=0)
    with pytest.raises(NotFound, match="no lab nowhere is up"):
        labs.load("nowhere")
    with pytest.raises(InvalidArgument, match="it has m1, m2, m3, w1, w2"):
        shared_lab.lab.host("w9")
    for name, managers in (("Bad Name", 1), ("ok", 0), ("ok", 101)):
        with pytest.raises(InvalidArgument):
            plan(name, managers, 0, run=labs.RUN, data=labs.DATA)


def test_the_command_starts_fast_by_importing_little():
    """`shoal ps` may import neither aiohttp nor pyroute2, asyncio, rich nor msgspec's big neighbours."""
    script = "import sys; from shoal.cli.commands import container; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}).stdout.split()
    assert {"aiohttp", "pyroute2", "asyncio", "rich", "cryptography", "uvloop"}.isdisjoint(loaded)
