"""Builds that the corpus cannot show: they are cut off, come from a network, or are made twice."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.cli.client import Client
from shoal.engine.storage.trees import remove_tree
from tests.integration.daemon.host import Machine, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

PORT = 5007
LASTING = "FROM busybox\nRUN echo first > /first\nRUN echo begun; sleep 1000\n"


@pytest.fixture
def files(host: Machine, tmp_path: Path) -> Iterator[Path]:
    """A folder that is served on the machine's loopback."""
    with host.serving(tmp_path, PORT):
        yield tmp_path


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path
    for _ in range(1050):
        place = place / "d"
        place.mkdir()
    (place / "file").write_text("down here")
    yield tmp_path
    remove_tree(tmp_path / "d")  # pytest cannot


def test_a_context_deeper_than_calls_go(host: Machine, deep: Path) -> None:
    (deep / "Dockerfile").write_text("FROM busybox\nCOPY d /in/d\nRUN --mount=type=bind,target=/all true\n")
    host.docker("build", "--tag", "deep", str(deep))
    assert host.docker("run", "--rm", "deep", "find", "/in", "-type", "f", "-exec", "cat", "{}", ";") == "down here"
    assert "Using cache" in host.docker("build", "--tag", "deep", str(deep))
    until(lambda: is_clean(host), "the context is taken away")
    host.docker("rmi", "deep")


def begin(host: Machine) -> subprocess.Popen[str]:
    building = host.docker_start("build", "--tag", "lasting", "-")
    assert building.stdin is not None
    building.stdin.write(LASTING)
    building.stdin.close()
    building.stdin = None
    until(lambda: running(host), "its last step runs")
    return building


def running(host: Machine) -> bool:
    return "sleep 1000" in host.docker("ps", "--no-trunc", "--format", "{{.Command}}")


def is_clean(host: Machine) -> bool:
    work = host.root / "data/build/work"
    return not running(host) and not list(work.iterdir())


def test_a_build_ends_with_its_client(host: Machine) -> None:
    building = begin(host)
    building.kill()
    building.communicate(timeout=30)
    until(lambda: is_clean(host), "the build is given up")


def test_a_daemon_killed_in_mid_build_leaves_nothing_but_finished_steps(host: Machine) -> None:
    building = begin(host)
    host.kill()
    building.communicate(timeout=30)
    host.start()
    until(lambda: is_clean(host), "what was left is taken away")
    said = host.docker("build", "--tag", "whole", "-", stdin=LASTING.partition("RUN echo begun")[0])
    assert "Using cache" in said
    host.docker("rmi", "whole")


def test_files_come_from_urls_and_are_checked(host: Machine, files: Path) -> None:
    (files / "tool").write_bytes(b"from afar")
    right = hashlib.sha256(b"from afar").hexdigest()
    add = "FROM busybox\nADD --checksum=sha256:{} http://127.0.0.1:" + str(PORT) + "/tool /opt/\n"
    host.docker("build", "--tag", "tooled", "-", stdin=add.format(right))
    assert host.docker("run", "--rm", "tooled", "cat", "/opt/tool") == "from afar"
    said = host.docker("build", "-", stdin=add.format("0" * 64), code=1)
    assert right in said
    host.docker("rmi", "tooled")


def test_a_dockerfile_and_a_context_may_lie_at_a_url(host: Machine, files: Path) -> None:
    (files / "Dockerfile.txt").write_text("FROM busybox\nRUN echo afar > /made\n")
    build_from(host, "Dockerfile.txt")
    assert host.docker("run", "--rm", "afar", "cat", "/made") == "afar"
    (files / "Dockerfile").write_text("FROM busybox\nCOPY Dockerfile.txt /copied\n")
    subprocess.run(["tar", "--create", "--file", "context.tar", "Dockerfile", "Dockerfile.txt"], cwd=files, check=True)
    build_from(host, "context.tar")
    assert "echo afar" in host.docker("run", "--rm", "afar", "cat", "/copied")
    host.docker("rmi", "--force", "afar")


def build_from(host: Machine, name: str) -> None:
    """The daemon fetches it. (The docker command would, by itself.)"""
    said = Client(f"unix://{host.socket}").messages("POST", "/build", {
        "t": "afar", "remote": f"http://127.0.0.1:{PORT}/{name}"})
    assert "Successfully tagged afar:latest" in "".join(message.get("stream", "") for message in said)


def test_equal_input_gives_an_equal_image(host: Machine) -> None:
    """With SOURCE_DATE_EPOCH, whenever it is built."""
    text = "FROM busybox\nRUN mkdir /a && date +%N > /dev/null && echo x > /a/b\nENV C=d\n"
    ids = {host.docker("build", "--quiet", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000", "-", stdin=text)
           for _ in range(2)}
    assert len(ids) == 1
    assert host.inspect(ids.pop())["Created"].startswith("1970-01-01T00:16:40")
    host.docker("builder", "prune", "--force", "--all")


def test_a_client_of_buildkit_is_told_what_to_use(host: Machine) -> None:
    """Whatever it asks first, and by the docker command where it still has BuildKit built in."""
    words = "set DOCKER_BUILDKIT=0 for `docker build`, or use `shoal build`"
    with socket.socket(socket.AF_UNIX) as session:
        session.settimeout(30)
        session.connect(str(host.socket))
        session.sendall(b"POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert session.recv(1000).startswith(b"HTTP/1.1 101 ")
        session.sendall(b"its side of HTTP/2")
        until(lambda: not session.recv(1000), "the session is ended: the docker command may wait for that")
    status, answer = host.call("POST", "/build?version=2&remote=client-session&session=abc")
    assert status == 501 and words in answer["message"]
    for program in {shutil.which("docker") or "docker", "/usr/bin/docker"}:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        if "version 20.10" in done.stdout:
            done = subprocess.run([program, "build", "-"], input="FROM busybox\n", capture_output=True, text=True,
                                  env={**host.environment(), "DOCKER_BUILDKIT": "1"}, timeout=60, check=False)
            assert done.returncode == 1 and words in done.stderr
