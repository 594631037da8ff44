"""What the shoald of the commit before this one started is taken over by this one's, and goes on."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

REPOSITORY = Path(__file__).parents[3]
TICKS = "n=0; while true; do n=$((n+1)); echo tick $n; sleep 0.1; done"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the commit before; this one's where there is no history (a shallow clone, an archive)."""
    place = tmp_path_factory.mktemp("before")
    for commit in ("HEAD~1", "HEAD"):
        packed = subprocess.run(["git", "-C", str(REPOSITORY), "archive", commit], capture_output=True, check=False)
        if packed.returncode == 0:
            subprocess.run(["tar", "--extract", "--directory", str(place)], input=packed.stdout, check=True)
            return place
    return REPOSITORY


@pytest.fixture
def upgraded(machine: Machine, before: Path) -> Iterator[Machine]:
    """On, with the older shoald. (Once the package's machine has shown that there can be one.)"""
    made = Machine(Path(tempfile.mkdtemp(prefix="shoal-daemon-")))
    made.tree = before
    with made:
        assert str(before) in Path(f"/proc/{made.daemon_pid()}/environ").read_text()
        yield made


def upgrade(host: Machine) -> None:
    host.daemon_signal(signal.SIGTERM)
    assert host.shoald is not None
    host.shoald.wait(30)
    host.tree = None
    host.start()


def test_containers_live_on_under_the_next_shoald(upgraded: Machine) -> None:
    host = upgraded
    host.docker("network", "create", "app")
    host.docker("run", "--detach", "--name", "ticker", "--network", "app", "--volume", "kept:/data", "busybox", "sh",
                "-c", f"echo written > /data/file; {TICKS}")
    host.docker("run", "--detach", "--name", "caller", "--network", "app", "--restart", "always", "busybox", "sh", "-c",
                "trap 'exit 9' TERM; echo ready; while true; do sleep 0.1; done")
    until(lambda: host.docker("logs", "caller") == "ready", "it heeds its signal")
    host.docker("run", "--name", "ended", "busybox", "sh", "-c", "echo last words; exit 5", code=5)
    host.docker("create", "--name", "made", "busybox", "echo", "made before")
    host.docker("tag", "busybox", "mine:v1")
    pids = {name: host.inspect(name)["State"]["Pid"] for name in ("ticker", "caller")}
    lines = len(host.docker("logs", "ticker").splitlines())

    upgrade(host)
    assert {name: host.inspect(name)["State"]["Pid"] for name in pids} == pids
    until(lambda: len(host.docker("logs", "ticker").splitlines()) > lines + 10, "its log goes on")
    said = host.docker("logs", "ticker").splitlines()
    assert said == [f"tick {number}" for number in range(1, len(said) + 1)]
    assert host.docker("exec", "ticker", "cat", "/data/file") == "written"
    assert "1 packets received" in host.docker("exec", "caller", "ping", "-c", "1", "ticker")
    assert (host.inspect("ended")["State"]["ExitCode"], host.docker("logs", "ended")) == (5, "last words")
    assert host.docker("start", "--attach", "made") == "made before"
    assert host.docker("run", "--rm", "mine:v1", "echo", "its image") == "its image"

    host.docker("exec", "caller", "kill", "-TERM", "1")
    until(lambda: host.docker("logs", "caller").split() == ["ready", "ready"], "its policy starts it again")
    assert host.inspect("caller")["RestartCount"] == 1
    host.docker("stop", "--time", "20", "caller")
    assert host.inspect("caller")["State"]["ExitCode"] == 9
    host.docker("rm", "--force", "ticker", "caller", "ended", "made")
    host.docker("network", "rm", "app")
    host.docker("volume", "rm", "kept")
    assert not [line for line in host.inside("ip", "-o", "link").stdout.splitlines() if " veth" in line]
