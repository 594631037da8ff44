"""A host whose storage is the fallback: each container's root is a copy. Driven by the docker command."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine


class VfsMachine(Machine):
    def _config(self) -> Path:
        path = self.root / "shoald.json"
        path.write_text(json.dumps({"storage-driver": "vfs"}))
        return path


@pytest.fixture(scope="module")
def host(machine: Machine) -> Iterator[VfsMachine]:
    with VfsMachine(Path(tempfile.mkdtemp(prefix="shoal-vfs-"))) as made:
        yield made


def test_life_on_copies(host: VfsMachine) -> None:
    info = json.loads(host.docker("info", "--format", "json"))
    assert info["Driver"] == "vfs"
    script = "echo 12345 > /new; rm -f /etc/group; echo x >> /etc/passwd"
    host.docker("run", "--name", "one", "busybox", "sh", "-c", script)
    assert host.docker("diff", "one").splitlines() == ["C /etc", "D /etc/group", "C /etc/passwd", "A /new"]
    assert host.docker("run", "--rm", "busybox", "ls", "/etc/group") == "/etc/group"
    host.docker("cp", "one:/new", str(host.root / "copied"))
    assert (host.root / "copied").read_text() == "12345\n"
    assert json.loads(host.docker("inspect", "--size", "one"))[0]["SizeRw"] >= 6
    host.docker("start", "--attach", "one")
    host.docker("rm", "one")
    host.docker("run", "--rm", "--read-only", "--volume", "data:/data", "busybox", "touch", "/data/x")
    host.docker("volume", "rm", "data")
    assert list((host.root / "data/vfs/containers").iterdir()) == []


def test_found_again_after_a_kill(host: VfsMachine) -> None:
    host.docker("run", "--detach", "--name", "lives", "busybox", "sleep", "1000")
    host.docker("exec", "lives", "touch", "/before")
    host.kill()
    host.start()
    assert host.docker("exec", "lives", "ls", "/before") == "/before"
    host.docker("rm", "--force", "lives")
    assert list((host.root / "data/vfs/containers").iterdir()) == []
