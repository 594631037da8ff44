"""SIGKILL to shoald while images come and go: nothing half-made is seen, used or left."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine, until
from tests.integration.daemon.test_disk_full import archive

pytestmark = [pytest.mark.root, pytest.mark.clients]

MIB = 48


@pytest.fixture(scope="module")
def killed(machine: Machine) -> Iterator[Machine]:
    """A machine of its own; the package's has shown that there can be one."""
    with Machine(Path(tempfile.mkdtemp(prefix="shoal-kills-"))) as made:
        (made.root / "big.tar").write_bytes(archive(MIB << 20))
        yield made


def content(host: Machine) -> set[str]:
    """All that is kept of images: layers, blobs, and what is still being written."""
    return {f"{folder}/{name}" for folder in ("overlay2/layers", "images/blobs/sha256", "images/blobs/tmp")
            for name in os.listdir(host.root / "data" / folder)}  # noqa: PTH208 (goes on where one has gone meanwhile)


def kill_when(host: Machine, seen: Callable[[], bool], *words: str) -> None:
    client = subprocess.Popen(["docker", *words], env=host.environment(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: seen() or client.poll() is not None, "it has begun, or is over")
        host.kill()
    finally:
        client.wait(30)
    host.start()


def test_a_load_that_is_killed(killed: Machine) -> None:
    before = content(killed)
    assert before
    stages = [lambda: any("tmp/" in name for name in content(killed)),
              lambda: any("/tmp-" in name for name in content(killed)),
              lambda: len(content(killed)) > len(before) + 1]
    for seen in stages:
        kill_when(killed, seen, "load", "--input", str(killed.root / "big.tar"))
        if killed.docker("images", "--quiet", "big"):  # it was quicker
            killed.docker("rmi", "big")
        until(lambda: content(killed) == before, "nothing is left of it")
        assert killed.docker("run", "--rm", "busybox", "echo", "alive") == "alive"
    killed.docker("load", "--input", str(killed.root / "big.tar"))
    assert killed.inspect("big")["Size"] == MIB << 20
    killed.docker("rmi", "big")
    until(lambda: content(killed) == before, "it is gone")


@pytest.mark.parametrize("words", [("rmi", "big"), ("image", "prune", "--all", "--force")], ids=["rmi", "prune"])
def test_a_removal_that_is_killed(killed: Machine, words: tuple[str, ...]) -> None:
    """In use or not, an image is there whole or not at all."""
    killed.docker("create", "--name", "holds", "busybox")
    try:
        before = content(killed)
        killed.docker("load", "--input", str(killed.root / "big.tar"))
        loaded = content(killed)
        kill_when(killed, lambda: content(killed) != loaded, *words)
        if killed.docker("images", "--quiet", "big"):
            assert killed.inspect("big")["Size"] == MIB << 20
            killed.docker("rmi", "big")
        until(lambda: content(killed) == before, "nothing is left of it")
    finally:
        killed.docker("rm", "holds")
    assert killed.docker("run", "--rm", "busybox", "echo", "alive") == "alive"
