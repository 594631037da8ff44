"""The disk of the data root is full: what cannot be done is said, nothing half-made stays, and the daemon lives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

DISK_MIB = 24
NO_SPACE = "no space left on device"


class SmallMachine(Machine):
    """Its data root is a disk of `DISK_MIB`, which nobody outside of it sees."""

    def on(self) -> None:
        super().on()
        (self.root / "data").mkdir()
        done = self.inside("mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=711", "tmpfs", str(self.root / "data"))
        assert done.returncode == 0, done.stderr

    def fill(self) -> None:
        """To the last byte."""
        self.inside("dd", "if=/dev/zero", f"of={self.root}/data/filler", "bs=64k")
        self.inside("sh", "-c", f"cat /dev/zero >> {self.root}/data/filler")

    def empty(self) -> None:
        self.inside("rm", f"{self.root}/data/filler")

    def most_memory_bytes(self) -> int:
        """That shoald ever took."""
        status = Path(f"/proc/{self.daemon_pid()}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))

    def used_bytes(self) -> int:
        said = self.inside("df", "--block-size=1", "--output=used", str(self.root / "data")).stdout
        return int(said.splitlines()[1])


@pytest.fixture(scope="module")
def small(machine: Machine) -> Iterator[SmallMachine]:
    """Once the package's has shown that there can be a machine."""
    with SmallMachine(Path(tempfile.mkdtemp(prefix="shoal-small-"))) as made:
        yield made


def archive(layer_bytes: int) -> bytes:
    """A `docker save` of an image with one layer of random bytes."""
    layer = tar({"big": os.urandom(layer_bytes)})
    diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}})
    named = json.dumps([{"Config": "config.json", "RepoTags": ["big:latest"], "Layers": ["layer.tar"]}])
    return tar({"manifest.json": named.encode(), "config.json": config.encode(), "layer.tar": layer})


def tar(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return target.getvalue()


def test_an_image_that_does_not_fit(small: SmallMachine) -> None:
    """As it comes, or while it is unpacked."""
    before = small.used_bytes()
    for mib in (9, DISK_MIB + 1):
        place = small.root / "big.tar"
        place.write_bytes(archive(mib << 20))
        said = small.docker("load", "--input", str(place), code=1)
        assert NO_SPACE in said.lower()
        until(lambda: small.used_bytes() <= before + 4096, "all of it is gone")
    assert "big" not in small.docker("images")
    place.write_bytes(archive(2 << 20))
    small.docker("load", "--input", str(place))
    small.docker("rmi", "big")
    until(lambda: small.used_bytes() <= before + 8192, "it is gone as well")


def test_a_container_writes_more_log_than_there_is_room_for(small: SmallMachine) -> None:
    """The daemon and the container live; when there is room again, so does its log."""
    small.docker("run", "--detach", "--name", "other", "busybox", "sleep", "1000")
    small.docker("run", "--detach", "--name", "talker", "busybox", "sh", "-c",
                 "head -c 40000000 /dev/zero | tr '\\0' '\\n'; while true; do echo alive; sleep 0.1; done")
    until(lambda: small.used_bytes() > (DISK_MIB << 20) - 65536 or "alive" in small.docker(
        "logs", "--tail", "1", "talker"), "the log has grown")
    assert small.docker("inspect", "--format", "{{.State.Running}}", "talker") == "true"
    assert small.docker("exec", "other", "echo", "here") == "here"
    small.docker("stop", "--time", "0", "talker")
    assert small.inspect("talker")["State"]["ExitCode"] == 137
    small.docker("rm", "talker")
    small.docker("stop", "--time", "0", "other")
    small.docker("rm", "other")
    assert small.docker("run", "--rm", "busybox", "echo", "again") == "again"


def test_what_cannot_be_written_down_is_not_done(small: SmallMachine) -> None:
    small.docker("run", "--detach", "--name", "runs", "busybox", "sleep", "1000")
    small.docker("tag", "busybox", "goes:away")
    small.docker("create", "--name", "goes", "busybox")
    small.fill()
    for words in (("create", "--name", "new", "busybox"), ("tag", "busybox", "other:name"),
                  ("volume", "create", "new"), ("rename", "runs", "walks")):
        assert NO_SPACE in small.docker(*words, code=1).lower(), words
    small.docker("rmi", "goes:away")  # what gives room back can be done
    small.docker("rm", "goes")
    small.fill()
    assert small.docker("exec", "runs", "echo", "here") == "here"
    assert "No space left" in small.docker("exec", "runs", "sh", "-c", "cat /dev/zero > /file", code=1)
    small.docker("kill", "runs")  # an end is seen, whatever can be written down of it
    until(lambda: small.inspect("runs")["State"]["Status"] == "exited", "it has ended")
    small.empty()
    assert small.inspect("runs")["State"]["ExitCode"] == 137
    assert "other" not in small.docker("images") and small.docker("volume", "ls", "--quiet") == ""
    assert small.docker("ps", "--all", "--format", "{{.Names}}") == "runs"
    small.docker("create", "--name", "new", "busybox")
    small.kill()
    small.start()
    assert sorted(small.docker("ps", "--all", "--format", "{{.Names}} {{.State}}").splitlines()) == [
        "new created", "runs exited"]
    small.docker("rm", "new", "runs")


def test_a_layer_that_is_a_bomb(small: SmallMachine) -> None:
    """A few hundred kilobytes that unpack to more than there is room for: said, gone again, and not in memory."""
    before, place = small.used_bytes(), small.root / "bomb.tar"
    plain = small.root / "plain.tar"
    with plain.open("wb") as target:
        member = tarfile.TarInfo("zeros")
        member.size = 512 << 20
        target.write(member.tobuf())
        target.truncate(len(member.tobuf()) + member.size + 1024)
    with plain.open("rb") as source:
        diff_id = "sha256:" + hashlib.file_digest(source, "sha256").hexdigest()
        source.seek(0)
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as target:
            shutil.copyfileobj(source, target)
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}})
    named = json.dumps([{"Config": "config.json", "RepoTags": ["bomb:latest"], "Layers": ["layer.tar"]}])
    place.write_bytes(tar({"manifest.json": named.encode(), "config.json": config.encode(),
                           "layer.tar": packed.getvalue()}))
    most = small.most_memory_bytes()
    for words in (("load", "--input", str(place)), ("import", str(small.root / "plain.tar"))):
        assert NO_SPACE in small.docker(*words, code=1).lower()
        until(lambda: small.used_bytes() <= before + 8192, "all of it is gone")
    assert small.most_memory_bytes() < most + (96 << 20)
    assert "bomb" not in small.docker("images")
