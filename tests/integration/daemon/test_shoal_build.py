"""`shoal build` against a daemon: its files, its secrets, its arguments, and how it fails."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine
from tests.integration.daemon.repository import REPOSITORY

pytestmark = pytest.mark.root

DOCKERFILE = """\
FROM busybox
ARG WHO=nobody
COPY . /in
RUN --mount=type=secret,id=key ls /in > /listed && cat /run/secrets/key > /length && echo $WHO > /who
"""


def shoal(host: Machine, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shoal.cli.main", "--host", f"unix://{host.socket}", "build", *words],
        input=stdin, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / ".dockerignore").write_text("left-out\n")
    for name in ("sent", "left-out"):
        (context / name).write_text(name)
    (tmp_path / "key").write_text("s3cret")
    return context


def test_an_image_is_built_of_a_folder(host: Machine, folder: Path) -> None:
    done = shoal(host, "--tag", "one", "--tag", "two:v1", "--build-arg", "WHO=me", "--label", "made=here",
                 "--secret", f"id=key,src={folder.parent}/key", str(folder))
    assert done.returncode == 0, done.stderr
    assert "Step 1/5 : FROM busybox" in done.stdout and "Successfully tagged two:v1" in done.stdout
    assert host.docker("run", "--rm", "one", "cat", "/listed", "/length", "/who").split() == [
        "Dockerfile", "sent", "s3cretme"]
    assert host.docker("run", "--rm", "two:v1", "ls", "/run/secrets", code=1)
    assert host.inspect("one")["Config"]["Labels"]["made"] == "here"
    quiet = shoal(host, "--quiet", "--build-arg", "WHO=me", "--label", "made=here",
                  "--secret", f"id=key,src={folder.parent}/key", str(folder))
    assert quiet.stdout.strip() == host.inspect("one")["Id"]  # all of it was in the cache
    host.docker("rmi", "one", "two:v1")


def test_limits_and_one_layer(host: Machine, folder: Path) -> None:
    (folder / "Dockerfile").write_text(
        "FROM busybox\nRUN ulimit -n > /files; df -k /dev/shm | tail -n1 | awk '{print $2}' > /shm\nRUN echo x > /x\n")
    done = shoal(host, "--tag", "one", "--squash", "--ulimit", "nofile=77:88", "--shm-size", "8m", "--memory", "100m",
                 str(folder))
    assert done.returncode == 0, done.stderr
    assert host.docker("run", "--rm", "one", "cat", "/files", "/shm").split() == ["77", "8192"]
    assert len(host.inspect("one")["RootFS"]["Layers"]) == len(host.inspect("busybox")["RootFS"]["Layers"]) + 1
    host.docker("rmi", "one")
    wrong = shoal(host, "--ulimit", "nofile=many", str(folder))
    assert wrong.returncode == 1 and "write NAME=SOFT" in wrong.stderr


def test_what_is_read(host: Machine, folder: Path) -> None:
    done = shoal(host, "--tag", "one", "-", stdin="FROM busybox\nRUN echo read > /who\n")
    assert done.returncode == 0, done.stderr
    assert host.docker("run", "--rm", "one", "cat", "/who") == "read"
    done = shoal(host, "--tag", "one", "--file", "-", str(folder), stdin="FROM busybox\nCOPY sent /who\n")
    assert done.returncode == 0, done.stderr
    assert host.docker("run", "--rm", "one", "cat", "/who") == "sent"
    host.docker("rmi", "one")
    both = shoal(host, "--file", "-", "-", stdin="FROM busybox\n")
    assert both.returncode == 1 and "cannot be both" in both.stderr


def test_failures_name_the_place(host: Machine, folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM busybox\nRUN exit 3\n")
    done = shoal(host, str(folder))
    assert done.returncode == 1
    assert "returned a non-zero code: 3" in done.stderr
    (folder / "Dockerfile").write_text("FROM busybox\nRAN true\n")
    done = shoal(host, str(folder))
    assert done.returncode == 1 and "RAN" in done.stderr


@pytest.fixture
def web(host: Machine, folder: Path) -> Iterator[str]:
    """Where a server of the machine's has a context as a tar, and a Dockerfile."""
    (folder / "other").write_text("FROM busybox\nCOPY sent /sent\n")
    with tarfile.open(folder.parent / "context.tar", "w") as archive:
        archive.add(folder, ".")
    (folder.parent / "alone").write_text("FROM busybox\nRUN echo alone > /it\n")
    with host.serving(folder.parent, 5010) as where:
        yield where


def test_the_daemon_fetches_a_url(host: Machine, web: str) -> None:
    done = shoal(host, "--tag", "one", f"{web}alone")
    assert done.returncode == 0, done.stderr
    assert host.docker("run", "--rm", "one", "cat", "/it") == "alone"
    done = shoal(host, "--tag", "one", "--file", "other", f"{web}context.tar")
    assert done.returncode == 0, done.stderr
    assert host.docker("run", "--rm", "one", "cat", "/sent") == "sent"
    done = shoal(host, f"{web}nothing")
    assert done.returncode == 1 and f"{web}nothing" in done.stderr
    host.docker("rmi", "--force", "one")


@pytest.mark.usefixtures("repository")
def test_the_daemon_clones_a_repository(host: Machine) -> None:
    for words, version in (([REPOSITORY], "v2"), ([f"{REPOSITORY}#v1:sub"], "sub-v1"),
                           (["--file", "sub/Dockerfile", f"{REPOSITORY}#v1"], "sub-v1")):
        done = shoal(host, "--tag", "one", *words)
        assert done.returncode == 0, done.stderr
        assert host.docker("run", "--rm", "one", "cat", "/version") == version
    done = shoal(host, f"{REPOSITORY}#nosuch")
    assert done.returncode == 1 and "nosuch" in done.stderr
    host.docker("rmi", "--force", "one")
    host.docker("builder", "prune", "--force", "--all")
