"""`shoal`, for who has no docker, against the same swarm."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cluster import DEADLINE_S, eventually

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.clients]


@pytest.fixture
def shoal(cluster):
    def run(*words, host="m1", fails=False, stdin=""):
        done = subprocess.run(
            [sys.executable, "-m", "shoal.cli.main", "--host", cluster.client(host).host, *words],
            capture_output=True, text=True, check=False, timeout=DEADLINE_S, input=stdin)
        assert bool(done.returncode) == fails, (words, done.stdout, done.stderr)
        return (done.stderr if fails else done.stdout).strip()

    return run


def test_containers(shoal):
    assert shoal("run", "--rm", "busybox", "echo", "hello") == "hello"
    assert shoal("run", "--rm", "-i", "busybox", "cat", stdin="through") == "through"
    shoal("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo said; exec sleep 1000")
    assert "box" in shoal("ps")
    assert eventually(lambda: shoal("logs", "box")) == "said"
    assert shoal("exec", "box", "echo", "in") == "in"
    shoal("rm", "-f", "box")
    assert "No such container: box" in shoal("logs", "box", fails=True)


def test_services(shoal, cluster):
    shoal("network", "create", "-d", "overlay", "--attachable", "shop")
    shoal("service", "create", "--name", "web", "--replicas", "2", "--network", "shop", "busybox",
          "sh", "-c", "echo up; exec sleep 100000")
    assert "2/2" in shoal("service", "ls")
    shoal("service", "scale", "web=3")
    cluster.runs("web", 3)
    assert shoal("service", "ps", "web").count("running") >= 3
    assert eventually(lambda: shoal("service", "logs", "web").count("up"), lambda count: count == 3)
    shoal("service", "rm", "web")
    assert "web" not in shoal("service", "ls")


def test_nodes_images_and_the_swarm(shoal):
    listed = shoal("node", "ls")
    assert all(name in listed for name in ("m1", "m2", "m3", "w1", "w2"))
    assert "busybox" in shoal("image", "ls")
    assert "SWMTKN-1-" in shoal("swarm", "join-token", "-q", "worker")
    assert "not a swarm manager" in shoal("node", "ls", host="w1", fails=True)
