"""The docker command against our registry, through shoald; with WITH_DOCKERD=1 through Debian's dockerd too."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import bcrypt
import pytest

from shoal.lab.processes import entering
from tests.build.record import Dockerd
from tests.integration.daemon.host import Machine, end, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

ADDRESS = "127.0.0.1:5000"
DAEMONS = [Machine, Dockerd] if os.environ.get("WITH_DOCKERD") else [Machine]


@pytest.fixture(params=DAEMONS, ids=lambda daemon: daemon.__name__.lower())
def host(request):
    with request.param(Path(tempfile.mkdtemp(prefix="shoal-registry-"))) as machine:
        yield machine


@pytest.fixture
def registry(host):
    """With a user, on the machine's own loopback."""
    users = host.root / "users"
    users.write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    server = subprocess.Popen([*entering(host.init_pid), sys.executable, "-m", "shoal.cli.main", "registry", "serve",
                               "--root", str(host.root / "store"), "--listen", ADDRESS, "--htpasswd", str(users)],
                              stdout=subprocess.DEVNULL)
    look = f"import socket; socket.create_connection(('127.0.0.1', {ADDRESS.rpartition(':')[2]}), 5)"
    until(lambda: host.inside(sys.executable, "-c", look).returncode == 0, "the registry answers")
    yield ADDRESS
    end(server)


def test_login_push_and_pull(host, registry):
    docker, name = host.docker, f"{registry}/tools/box:v1"
    docker("tag", "busybox", name)
    assert "no basic auth credentials" in docker("push", name, code=1)
    docker("login", "--username", "ann", "--password-stdin", registry, stdin="secret")
    digest = docker("push", name).rpartition("digest: ")[2].split()[0]
    assert "Layer already exists" in docker("push", name)
    docker("tag", "busybox", f"{registry}/other/box:v1")
    assert digest in docker("push", f"{registry}/other/box:v1")  # dockerd mounts the layer, shoald sends it again
    docker("rmi", name, f"{registry}/other/box:v1", "busybox")
    assert digest in docker("pull", name)
    assert docker("run", "--rm", "--network", "none", name, "echo", "from afar") == "from afar"
    assert docker("pull", "--quiet", f"{registry}/tools/box@{digest}").endswith(digest)
    assert "manifest unknown" in docker("pull", f"{registry}/tools/box:none", code=1)
