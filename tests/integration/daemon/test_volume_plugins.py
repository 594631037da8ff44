"""Volumes of a plugin, a process of its own that misbehaves when it is told to. Driven by the docker command."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.daemon import volumeplugin
from tests.integration.daemon.host import Machine, until
from tests.integration.daemon.pluginmachine import PluginMachine


class Host(PluginMachine):
    """With a plugin called `box` on it."""

    timeout_s = 5.0

    @property
    def box(self) -> Path:
        return self.root / "box"

    def start_box(self) -> None:
        self.box.mkdir(exist_ok=True)
        self.plug("box", sys.executable, str(Path(volumeplugin.__file__)), str(self.box),
                  str(self.plugin_socket("box")))

    def faults(self, **faults: str) -> None:
        (self.box / "faults").write_text(json.dumps(faults))

    def calls(self, *methods: str) -> list[dict[str, Any]]:
        lines = (self.box / "calls").read_text().splitlines()
        return [call for call in map(json.loads, lines) if call["call"] in methods]


@pytest.fixture(scope="module")
def plugged(machine: Machine) -> Iterator[Host]:
    """A machine of its own, once the package's has shown that there can be one."""
    with Host(Path(tempfile.mkdtemp(prefix="shoal-plug-"))) as made:
        yield made


@pytest.fixture
def host(plugged: Host) -> Iterator[Host]:
    plugged.start_box()
    plugged.faults()
    (plugged.box / "calls").write_text("")
    yield plugged
    plugged.faults()
    if not plugged.plugged("box"):
        plugged.start_box()
    if containers := plugged.docker("ps", "--all", "--quiet").split():
        plugged.docker("rm", "--force", "--volumes", *containers)
    if volumes := plugged.docker("volume", "ls", "--quiet").split():
        plugged.docker("volume", "rm", "--force", *volumes)
    plugged.unplug("box")
    shutil.rmtree(plugged.box)


def test_life_of_a_volume(host: Host) -> None:
    host.docker("volume", "create", "--driver", "box", "--opt", "size=big", "--label", "a=b", "vol")
    assert host.calls("Create") == [{"call": "Create", "Name": "vol", "Opts": {"size": "big"}}]
    shown = json.loads(host.docker("volume", "inspect", "vol"))[0]
    assert shown == {"CreatedAt": volumeplugin.CREATED, "Driver": "box", "Labels": {"a": "b"}, "Name": "vol",
                     "Mountpoint": str(host.box / "volumes/vol"), "Options": {"size": "big"}, "Scope": "global",
                     "Status": {"kept": "here"}}
    assert host.docker("volume", "ls", "--filter", "driver=box", "--format", "{{.Name}} {{.Driver}}") == "vol box"
    assert host.docker("volume", "ls", "--filter", "driver=local", "--quiet") == ""
    assert json.loads(host.docker("info", "--format", "json"))["Plugins"]["Volume"] == ["local", "box"]
    assert "driver 'box' already has volume 'vol'" in host.docker("volume", "create", "vol", code=1)
    host.docker("volume", "prune", "--all", "--force")  # local ones alone
    host.docker("volume", "rm", "vol")
    assert [call["Name"] for call in host.calls("Remove")] == ["vol"]
    assert "no such volume" in host.docker("volume", "inspect", "vol", code=1)


def test_containers_use_it(host: Host) -> None:
    """Each container is told apart by its id, mounted when it starts and unmounted when it has ended."""
    host.docker("run", "--rm", "--volume", "vol:/x", "--volume-driver", "box", "busybox", "touch", "/x/here")
    assert (host.box / "volumes/vol/here").exists()
    for name in ("one", "two"):
        host.docker("run", "--detach", "--name", name, "--mount", "source=vol,target=/x,volume-driver=box", "busybox",
                    "sleep", "1000")
    assert host.docker("exec", "two", "ls", "/x") == "here"
    assert host.inspect("one")["Mounts"][0]["Driver"] == "box"
    assert "volume is in use" in host.docker("volume", "rm", "vol", code=1)
    ids = [host.inspect(name)["Id"] for name in ("one", "two")]
    host.docker("kill", "one", "two")
    until(lambda: len(host.calls("Mount")) == len(host.calls("Unmount")), "all is unmounted")
    assert {call["ID"] for call in host.calls("Unmount")} >= set(ids)
    assert sorted(call["ID"] for call in host.calls("Mount")) == sorted(call["ID"] for call in host.calls("Unmount"))


def test_copied_out_of_a_container_that_does_not_run(host: Host) -> None:
    host.docker("create", "--name", "idle", "--volume", "vol:/x", "--volume-driver", "box", "busybox", "true")
    host.docker("cp", "/etc/hostname", "idle:/x/name")
    assert (host.box / "volumes/vol/name").read_bytes() == Path("/etc/hostname").read_bytes()
    until(lambda: len(host.calls("Mount")) == len(host.calls("Unmount")) > 0, "all is unmounted")


def test_filled_from_the_image(host: Host) -> None:
    host.docker("create", "--name", "idle", "--volume", "vol:/etc", "--volume-driver", "box", "busybox", "true")
    assert (host.box / "volumes/vol/passwd").exists()
    host.docker("create", "--volume", "bare:/etc:nocopy", "--volume-driver", "box", "busybox", "true")
    assert list((host.box / "volumes/bare").iterdir()) == []


def test_volumes_that_only_the_plugin_knows(host: Host) -> None:
    (host.box / "volumes/older").mkdir()
    (host.box / "volumes/older/file").write_text("from before\n")
    assert host.docker("volume", "ls", "--format", "{{.Name}} {{.Driver}}") == "older box"
    assert json.loads(host.docker("volume", "inspect", "older"))[0]["Driver"] == "box"
    assert host.docker("run", "--rm", "--volume", "older:/x", "busybox", "cat", "/x/file") == "from before"


def test_anonymous_volumes_go_with_their_container(host: Host) -> None:
    host.docker("run", "--rm", "--volume", "/x", "--volume-driver", "box", "busybox", "touch", "/x/here")
    until(lambda: host.calls("Remove"), "it is removed")
    assert list((host.box / "volumes").iterdir()) == []


def test_what_it_refuses(host: Host) -> None:
    assert "create vol: no colours here" in host.docker(
        "volume", "create", "--driver", "box", "--opt", "colour=red", "vol", code=1)
    host.docker("volume", "create", "--driver", "box", "vol")
    host.faults(Mount="refuse")
    assert "error while mounting volume 'vol': VolumeDriver.Mount: out of cheese" in host.docker(
        "run", "--rm", "--volume", "vol:/x:nocopy", "busybox", "true", code=125)
    host.faults(Remove="refuse")
    assert "remove vol: VolumeDriver.Remove: out of cheese" in host.docker("volume", "rm", "vol", code=1)
    assert host.docker("volume", "ls", "--quiet") == "vol"


def test_hanging_plugin_holds_up_nobody_else(host: Host) -> None:
    host.docker("volume", "create", "--driver", "box", "vol")
    host.docker("create", "--name", "stuck", "--volume", "vol:/x:nocopy", "busybox", "true")
    host.faults(Mount="hang", Unmount="hang", List="hang")
    began = time.monotonic()
    starting = host.docker_start("start", "stuck")
    assert host.docker("run", "--rm", "--volume", "plain:/x", "busybox", "echo", "goes on") == "goes on"
    assert starting.poll() is None, "the other one waits, while this one has ended"
    _, said = starting.communicate(timeout=30)
    assert starting.returncode == 1
    assert "error while mounting volume 'vol': VolumeDriver.Mount: plugin box did not answer in 10 s" in said
    status, listed = host.call("GET", "/volumes")
    assert (status, [volume["Name"] for volume in listed["Volumes"]]) == (200, ["plain", "vol"])
    assert listed["Warnings"] == ["list box: VolumeDriver.List: plugin box did not answer in 3 s"]
    assert time.monotonic() - began < 10 + 5 + 3 + 10
    host.faults()
    host.docker("start", "--attach", "stuck")


@pytest.mark.parametrize(("fault", "said"), [
    ("die", "broke off before it had answered"), ("garbage", "did not answer with a JSON object"),
    ("flood", "answered more than"),
])
def test_answers_that_are_none(host: PluginMachine, fault: str, said: str) -> None:
    host.docker("volume", "create", "--driver", "box", "vol")
    host.faults(Mount=fault)
    assert said in host.docker("run", "--rm", "--volume", "vol:/x:nocopy", "busybox", "true", code=125)
    assert host.docker("run", "--rm", "busybox", "echo", "goes on") == "goes on"


def test_plugin_that_has_gone_and_comes_again(host: Host) -> None:
    host.docker("volume", "create", "--driver", "box", "vol")
    host.unplug("box")
    assert "plugin box cannot be reached" in host.docker(
        "run", "--rm", "--volume", "vol:/x:nocopy", "busybox", "true", code=125)
    assert host.docker("volume", "ls", "--quiet") == "vol"
    starting = host.docker_start("run", "--rm", "--volume", "vol:/x:nocopy", "busybox", "echo", "found again")
    host.start_box()
    out, said = starting.communicate(timeout=30)
    assert (out, starting.returncode) == ("found again\n", 0), said


def test_no_such_plugin(host: Host) -> None:
    assert 'error looking up volume plugin nix: plugin "nix" not found' in host.docker(
        "volume", "create", "--driver", "nix", "vol", code=1)
    status, answer = host.call("POST", "/volumes/create", {"Name": "vol", "Driver": "../../etc/passwd"})
    assert (status, "not found" in answer["message"]) == (404, True)


def test_mounts_are_known_again_after_a_kill(host: Host) -> None:
    """What runs still holds its volume; what ended meanwhile is let go of."""
    for name in ("stays", "ends"):
        host.docker("run", "--detach", "--name", name, "--volume", "vol:/x:nocopy", "--volume-driver", "box", "busybox",
                    "sleep", "1000")
    ids = {name: host.inspect(name)["Id"] for name in ("stays", "ends")}
    pid = host.inspect("ends")["State"]["Pid"]
    host.kill()
    host.inside("kill", "-9", str(pid))
    host.start()
    until(lambda: [call["ID"] for call in host.calls("Unmount")] == [ids["ends"]], "the one that ended has let go")
    assert json.loads(host.docker("volume", "inspect", "vol"))[0]["Mountpoint"] == str(host.box / "volumes/vol")
    host.docker("stop", "--time", "0", "stays")
    until(lambda: {call["ID"] for call in host.calls("Unmount")} == set(ids.values()), "so has the other")
    assert {call["ID"] for call in host.calls("Mount")} == set(ids.values())


def test_service_is_placed_where_the_plugin_is(host: Host) -> None:
    host.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        for driver in ("box", "missing"):
            host.docker("service", "create", "--detach", "--name", driver, "--mount",
                        f"type=volume,source=vol-{driver},target=/x,volume-driver={driver}", "busybox", "sleep", "1000")
        until(lambda: "Running" in host.docker("service", "ps", "--format", "{{.CurrentState}}", "box"), "it runs")
        assert (host.box / "volumes/vol-box").is_dir()
        shown = ("service", "ps", "--no-trunc", "--format", "{{.Error}}", "missing")
        until(lambda: "missing plugin" in host.docker(*shown), "the other one says why not")
    finally:
        host.docker("swarm", "leave", "--force")
        until(lambda: not host.docker("ps", "--quiet"), "its tasks are gone")
