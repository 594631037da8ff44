"""docker commit: an image of what a container changed."""

import json

import pytest

from tests.integration.daemon.host import Machine

pytestmark = [pytest.mark.root, pytest.mark.clients]

CHANGES = """
echo new > /new && mkdir -p /tree/deep && ln -s /new /tree/link && ln /new /tree/hard && mkfifo /tree/pipe
rm /etc/group && chmod 700 /tmp
rm -rf /home && mkdir /home && echo only > /home/mine
chown 7:8 /tree/deep
"""
SHOWN = """
cat /new /tree/link /tree/hard && [ -p /tree/pipe ] && [ ! -e /etc/group ] && ls /home && stat -c %u:%g:%a /tree/deep
stat -c %a /tmp; [ /new -ef /tree/hard ] && echo same
"""


@pytest.fixture
def base(host: Machine) -> str:
    """An image with a folder that is replaced later."""
    host.docker("run", "--name", "first", "busybox", "sh", "-c", "mkdir -p /home/old && echo x > /home/old/file")
    host.docker("commit", "first", "base:1")
    return "base:1"


def test_what_a_container_changed_is_in_its_image(host: Machine, base: str) -> None:
    host.docker("run", "--name", "box", base, "sh", "-ec", CHANGES)
    made = host.docker("commit", "-m", "why", "-a", "who", "box", "mine:2")
    said = host.docker("run", "--rm", "mine:2", "sh", "-c", SHOWN).split()
    assert said == ["new", "new", "new", "mine", "7:8:755", "700", "same"]
    shown = host.inspect("mine:2")
    assert shown["Id"] == made and shown["Parent"] == host.inspect(base)["Id"]
    assert (shown["Comment"], shown["Author"]) == ("why", "who")
    assert len(shown["RootFS"]["Layers"]) == 1 + len(host.inspect(base)["RootFS"]["Layers"])
    rows = host.docker("history", "--format", "{{.Comment}}", "mine:2").splitlines()
    assert rows[0] == "why"
    host.docker("rm", "box", "first")
    host.docker("rmi", "mine:2", base)


def test_its_settings_go_along(host: Machine) -> None:
    host.docker("create", "--name", "box", "-e", "A=1", "-u", "7", "-w", "/tmp", "--label", "l=1", "--expose", "80",
                "busybox", "sleep", "1")
    host.docker("commit", "-c", "ENV B=2", "-c", 'CMD ["id", "-u"]', "-c", "EXPOSE 90/udp", "box", "set:1")
    config = host.inspect("set:1")["Config"]
    assert {"A=1", "B=2"} <= set(config["Env"])
    assert (config["User"], config["WorkingDir"], config["Labels"]) == ("7", "/tmp", {"l": "1"})
    assert set(config["ExposedPorts"]) == {"80/tcp", "90/udp"}
    assert host.docker("run", "--rm", "set:1") == "7"
    body = {"Cmd": ["echo", "given"], "Env": ["A=3"]}
    status, answer = host.call("POST", "/commit?container=box&repo=set&tag=2", body)
    assert status == 201 and answer["Id"] == host.inspect("set:2")["Id"]
    assert "A=3" in host.inspect("set:2")["Config"]["Env"] and "A=1" not in host.inspect("set:2")["Config"]["Env"]
    host.docker("rm", "box")
    host.docker("rmi", "set:1", "set:2")


def test_one_that_runs_goes_on(host: Machine) -> None:
    host.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo here > /file; sleep 1000")
    host.docker("exec", "box", "sh", "-c", "until [ -s /file ]; do sleep 0.05; done")
    host.docker("commit", "box", "live:1")
    assert host.inspect("box")["State"]["Status"] == "running"
    assert host.docker("run", "--rm", "live:1", "cat", "/file") == "here"
    host.docker("rmi", "live:1")


@pytest.mark.parametrize(("path", "status"), [
    ("/commit", 400), ("/commit?container=nobody", 404), ("/commit?container=box&repo=UPPER", 400),
    ("/commit?container=box&changes=FROM%20x", 400),
])
def test_what_is_refused(host: Machine, path: str, status: int) -> None:
    host.docker("create", "--name", "box", "busybox", "true")
    before = host.docker("images", "--quiet")
    assert host.call("POST", path)[0] == status
    assert host.docker("images", "--quiet") == before


def test_an_archive_that_is_none_is_told_in_the_answer(host: Machine) -> None:
    status, said = host.call("POST", "/images/load", raw=b"abc")
    assert status == 200
    assert "invalid" in json.loads(said)["error"] if isinstance(said, str) else "invalid" in said["error"]
    assert "invalid" in host.docker("load", stdin="abc", code=1)
