"""Volumes of the local driver: options, copies of image content, who shares them, what takes them away. By `docker`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine, until


def mountpoint(host: Machine, name: str) -> Path:
    return Path(json.loads(host.docker("volume", "inspect", name))[0]["Mountpoint"])


def is_mounted(host: Machine, place: Path) -> bool:
    return any(line.split()[4] == str(place) for line in
               Path(f"/proc/{host.init_pid}/mountinfo").read_text().splitlines())


def test_inspect_is_as_docker_shows_it(host: Machine) -> None:
    host.docker("volume", "create", "--label", "a=b", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "vol")
    shown = json.loads(host.docker("volume", "inspect", "vol"))[0]
    assert shown.pop("CreatedAt").endswith("Z")
    assert shown == {"Driver": "local", "Labels": {"a": "b"}, "Mountpoint": str(host.root / "data/volumes/vol/_data"),
                     "Name": "vol", "Options": {"type": "tmpfs", "device": "tmpfs"}, "Scope": "local"}


def test_tmpfs_and_bind_by_options(host: Machine) -> None:
    """Mounted while some container uses them: what a tmpfs had is gone then, what is bound stays."""
    (host.root / "srv").mkdir(exist_ok=True)
    host.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,uid=7", "mem")
    host.docker("volume", "create", "--opt", "type=none", "--opt", f"device={host.root}/srv", "--opt", "o=bind", "srv")
    out = host.docker("run", "--rm", "--volume", "mem:/m:nocopy", "--volume", "srv:/s", "busybox", "sh", "-c",
                      "stat -c %u /m; df -k /m | tail -1; touch /m/x /s/y")
    assert (out.splitlines()[0], out.split()[2]) == ("7", "1024")
    assert (host.root / "srv/y").exists()
    until(lambda: not is_mounted(host, mountpoint(host, "srv")), "it is unmounted")
    assert host.docker("run", "--rm", "--volume", "mem:/m:nocopy", "busybox", "ls", "/m") == ""
    host.docker("volume", "rm", "srv")
    assert (host.root / "srv/y").exists()


def test_other_file_systems(host: Machine) -> None:
    """As one that is there everywhere: an OverlayFS."""
    for name in ("lower", "upper", "work"):
        (host.root / "fs" / name).mkdir(parents=True)
    (host.root / "fs/lower/below").write_text("")
    options = ",".join(f"{name}dir={host.root}/fs/{name}" for name in ("lower", "upper", "work"))
    host.docker("volume", "create", "--opt", "type=overlay", "--opt", "device=overlay", "--opt", f"o={options}", "fs")
    assert host.docker("run", "--rm", "--volume", "fs:/x", "busybox", "sh", "-c", "touch /x/above; ls /x").split() == [
        "above", "below"]
    assert (host.root / "fs/upper/above").exists()


@pytest.mark.parametrize(("options", "said"), [
    (["type=nfs", "device=:/x", "o=addr=no.such.host.invalid,rw"], "error resolving passed in network volume address"),
    (["type=none", "device=/nowhere", "o=bind"], "failed to mount local volume"),
])
def test_what_cannot_be_mounted(host: Machine, options: list[str], said: str) -> None:
    host.docker("volume", "create", *(word for each in options for word in ("--opt", each)), "vol")
    assert said in host.docker("run", "--rm", "--volume", "vol:/x:nocopy", "busybox", "true", code=125)
    host.docker("volume", "rm", "vol")


def test_filled_when_the_container_is_made(host: Machine) -> None:
    """With owners, modes and attributes, the folder's own too; not where nocopy says so, nor where something is."""
    script = ("mkdir -p /from/deep; echo one > /from/deep/file; ln -s deep /from/link; chown -R 5:6 /from/deep; "
              "chown 7:8 /from; chmod 0710 /from")
    host.docker("run", "--name", "maker", "busybox", "sh", "-c", script)
    root = host.inside("sh", "-c", f"ls -d {host.root}/data/overlay2/containers/*/diff").stdout.strip()
    os.setxattr(f"{root}/from/deep/file", "user.kept", b"yes")
    host.docker("commit", "maker", "filled")
    for name, words in (("copied", "copied:/from"), ("bare", "bare:/from:nocopy")):
        host.docker("create", "--volume", words, "filled", "true")
        found = mountpoint(host, name)
        if name == "bare":
            assert list(found.iterdir()) == []
            continue
        assert (found / "deep/file").read_text() == "one\n"
        assert (found / "link").readlink() == Path("deep")
        assert [(path.stat().st_uid, path.stat().st_gid) for path in (found, found / "deep")] == [(7, 8), (5, 6)]
        assert found.stat().st_mode & 0o7777 == 0o710
        assert os.getxattr(found / "deep/file", "user.kept") == b"yes"
    (mountpoint(host, "copied") / "deep/file").write_text("two\n")
    assert host.docker("run", "--rm", "--volume", "copied:/from", "filled", "cat", "/from/deep/file") == "two"


def test_never_started_container_shows_what_its_volume_was_filled_with(host: Machine) -> None:
    host.docker("create", "--name", "idle", "--volume", "/etc", "busybox", "true")
    host.docker("cp", "idle:/etc/passwd", str(host.root / "passwd"))
    assert "root" in (host.root / "passwd").read_text()


def test_volumes_from_several(host: Machine) -> None:
    for name in ("one", "two"):
        host.docker("create", "--name", name, "--volume", f"{name}:/{name}", "--volume", f"/anon-{name}", "busybox")
    host.docker("run", "--rm", "--volumes-from", "one:ro", "--volumes-from", "two", "busybox", "sh", "-c",
                "touch /two/x /anon-two/x; ! touch /one/x")
    assert (mountpoint(host, "two") / "x").exists()
    assert len(host.docker("volume", "ls", "--quiet").split()) == 4, "what is borrowed is not taken away"
    host.docker("create", "--name", "bare", "--volume", "bare:/etc:nocopy", "busybox")
    host.docker("create", "--volumes-from", "bare", "busybox")
    assert list(mountpoint(host, "bare").iterdir()) == [], "who borrows does not fill"
    assert "invalid mode" in host.docker("create", "--volumes-from", "one:what", "busybox", code=1)


def test_subpaths(host: Machine) -> None:
    host.docker("run", "--rm", "--volume", "vol:/v", "busybox", "sh", "-c",
                "mkdir /v/in; echo inside > /v/in/file; ln -s /etc /v/out; ln -s in /v/link")
    out = host.docker("run", "--rm", "--mount", "source=vol,target=/x,volume-subpath=link", "busybox", "cat", "/x/file")
    assert out == "inside"
    for path in ("out", "missing"):
        assert "cannot access path" in host.docker(
            "run", "--rm", "--mount", f"source=vol,target=/x,volume-subpath={path}", "busybox", "true", code=125)


def test_prune_and_filters(host: Machine) -> None:
    host.docker("volume", "create", "--label", "keep", "named")
    host.docker("volume", "create", "other")
    anonymous = host.docker("volume", "create")
    host.docker("run", "--rm", "--volume", f"{anonymous}:/x", "busybox", "sh", "-c", "head -c 1000 /dev/zero > /x/f")
    assert "com.docker.volume.anonymous" in json.loads(host.docker("volume", "inspect", anonymous))[0]["Labels"]
    host.docker("create", "--name", "user", "--volume", "used:/x", "busybox")
    listed = {" ".join(words): host.docker("volume", "ls", "--quiet", *(each for word in words for each in
                                                                        ("--filter", word))).split()
              for words in (["dangling=false"], ["label=keep"], ["name=nam"], ["driver=local", "name=oth"])}
    assert listed == {"dangling=false": ["used"], "label=keep": ["named"], "name=nam": ["named"],
                      "driver=local name=oth": ["other"]}
    status, pruned = host.call("POST", "/v1.50/volumes/prune")
    assert (status, pruned) == (200, {"VolumesDeleted": [anonymous], "SpaceReclaimed": 1000})
    assert host.call("POST", '/v1.50/volumes/prune?filters={"all":["true"],"label!":["keep"]}')[1][
        "VolumesDeleted"] == ["other"]
    assert host.call("POST", "/v1.41/volumes/prune")[1]["VolumesDeleted"] == ["named"]
    assert "volume is in use" in host.docker("volume", "rm", "used", code=1)


def test_usage(host: Machine) -> None:
    script = "head -c 3000 /dev/zero > /x/f"
    host.docker("run", "--name", "user", "--volume", "vol:/x:nocopy", "busybox", "sh", "-c", script)
    host.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "mem")
    shown = host.call("GET", "/system/df?type=volume")[1]["Volumes"]
    assert [(each["Name"], each["UsageData"]) for each in shown] == [("vol", {"Size": 3000, "RefCount": 1})]
    assert "vol" in host.docker("system", "df", "--verbose")


def test_events(host: Machine) -> None:
    since = f"{time.time():.3f}"
    host.docker("run", "--name", "user", "--volume", "vol:/x:ro", "busybox", "true")
    host.docker("rm", "user")
    host.docker("volume", "rm", "vol")
    told = host.docker("events", "--since", since, "--until", f"{time.time():.3f}", "--filter", "type=volume",
                       "--format", "json").splitlines()
    events = [json.loads(line) for line in told]
    assert [event["Action"] for event in events] == ["create", "mount", "unmount", "destroy"]
    about = events[1]["Actor"]["Attributes"]
    assert (about["driver"], about["destination"], about["read/write"]) == ("local", "/x", "false")


def test_disk_full_while_a_volume_is_filled(host: Machine) -> None:
    """A clear error; nothing half full is left to be taken for the whole the next time."""
    host.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=64k", "small")
    assert "No space left on device" in host.docker("create", "--volume", "small:/bin", "busybox", code=1)
    assert host.docker("ps", "--all", "--quiet") == ""
    assert host.docker("run", "--rm", "--volume", "small:/x:nocopy", "busybox", "ls", "/x") == ""
    host.docker("volume", "rm", "small")


def test_images_as_mounts(host: Machine) -> None:
    """Read-only, with subpaths; the image stays while a container has it."""
    host.docker("run", "--name", "maker", "busybox", "sh", "-c", "mkdir -p /in/deep; echo data > /in/deep/file")
    host.docker("commit", "maker", "content")
    host.docker("rm", "maker")
    mounts = [{"Type": "image", "Source": "content", "Target": "/whole"},
              {"Type": "image", "Source": "content", "Target": "/part", "ImageOptions": {"Subpath": "in/deep"}}]
    command = "cat /whole/in/deep/file /part/file; ! touch /part/x 2>/dev/null"
    status, made = host.call("POST", "/containers/create?name=user", {
        "Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": {"Mounts": mounts}})
    assert status == 201, made
    for _ in range(2):
        assert host.docker("start", "--attach", "user") == "data\ndata"
    shown = host.inspect("user")
    assert [(each["Type"], each["Name"], each["RW"]) for each in shown["Mounts"]] == [("image", "content", False)] * 2
    assert shown["HostConfig"]["Mounts"][1]["ImageOptions"] == {"Subpath": "in/deep"}
    assert "container" in host.docker("rmi", "content", code=1)
    host.docker("cp", "user:/part/file", str(host.root / "file"))
    assert (host.root / "file").read_text() == "data\n"
    host.docker("rm", "user")
    until(lambda: not list((host.root / "data/overlay2/containers").iterdir()), "the copy's own mounts have gone too")
    host.docker("rmi", "content")
    bad = [{"Type": "image", "Source": source, "Target": "/x"} for source in ("no-such-image", "")]
    assert [host.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [mount]}})[0]
            for mount in bad] == [404, 400]


def test_the_shoal_command(host: Machine) -> None:
    def shoal(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "shoal.cli.main", "--host", f"unix://{host.socket}", "volume"]
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return (done.stderr if code else done.stdout).strip()

    assert shoal("create", "--label", "a=b", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "mem") == "mem"
    assert json.loads(shoal("inspect", "mem"))["Labels"] == {"a": "b"}
    anonymous = shoal("create")
    assert shoal("ls", "--quiet").split() == sorted(["mem", anonymous])
    assert shoal("prune").splitlines()[0] == anonymous
    assert shoal("rm", "mem") == "mem"
    assert "no such volume" in shoal("rm", "mem", code=1)
    assert shoal("rm", "--force", "mem") == "mem"
    assert "mem" not in shoal("ls")


def test_a_volume_deeper_than_calls_go(host: Machine) -> None:
    host.docker("run", "--rm", "--volume", "deep:/v", "--workdir", "/v", "busybox", "sh", "-c",
                "i=0; while [ $i -lt 1200 ]; do mkdir d && cd d && i=$((i + 1)); done; touch file")
    host.docker("system", "df", "--verbose")
    host.docker("volume", "rm", "deep")
    assert not (host.root / "data/volumes/deep").exists()
