"""What is wrong gets the status that the API names and `{"message": …}`, and changes nothing."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.daemon.host import Machine

pytestmark = [pytest.mark.root, pytest.mark.clients]

MEBI = 1 << 20
OTHER = "platform=" + quote('{"os":"plan9","architecture":"mips"}')


def image(**more: Any) -> dict[str, Any]:
    return {"Image": "busybox", "Cmd": ["sleep", "1000"], **more}


CALLS: list[tuple[str, str, Any, int]] = [
    ("POST", "/containers/create", {"Image": "nothing"}, 404),
    ("POST", "/containers/create", {}, 400),
    ("POST", "/containers/create", [], 400),
    ("POST", "/containers/create?name=-x", image(), 400),
    ("POST", "/containers/create?name=run", image(), 409),
    ("POST", "/containers/create", image(Env="A=1"), 400),
    ("POST", "/containers/create", image(User=5), 400),
    ("POST", "/containers/create", image(HostConfig={"Memory": "1m"}), 400),
    ("POST", "/containers/create", image(HostConfig={"Memory": 4 * MEBI}), 400),
    ("POST", "/containers/create", image(HostConfig={"CapAdd": ["FLY"]}), 400),
    ("POST", "/containers/create", image(HostConfig={"SecurityOpt": ["magic=1"]}), 400),
    ("POST", "/containers/create", image(HostConfig={"Runtime": "magic"}), 400),
    ("POST", "/containers/create", image(HostConfig={"NetworkMode": "container:nobody"}), 404),
    ("POST", "/containers/create", image(HostConfig={"VolumesFrom": ["nobody"]}), 404),
    ("POST", "/containers/create", image(HostConfig={"Binds": ["a/b:/x"]}), 400),
    ("POST", "/containers/create", image(HostConfig={"Binds": ["/tmp:/x", "/etc:/x"]}), 400),
    ("POST", "/containers/create", image(HostConfig={"Ulimits": [{"Name": "patience", "Soft": 1, "Hard": 1}]}), 400),
    ("POST", "/containers/create", image(HostConfig={"Devices": [{"PathOnHost": "null"}]}), 400),
    ("POST", "/containers/create", image(HostConfig={"DeviceRequests": [{"Count": 1}]}), 501),
    ("POST", "/containers/create", image(HostConfig={"StorageOpt": {"size": "1G"}}), 400),
    ("POST", "/containers/create", image(HostConfig={"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": -1}]}), 400),
    ("POST", "/containers/create", image(HostConfig={"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 5}]}), 400),
    ("POST", "/containers/create", image(HostConfig={"UsernsMode": "private"}), 400),
    ("POST", "/containers/create", image(HostConfig={"Mounts": [
        {"Type": "bind", "Source": "/not/there", "Target": "/x"}]}), 400),
    ("POST", "/containers/create?platform=linux/arm64", image(), 404),
    ("GET", "/containers/nobody/json", None, 404),
    ("GET", "/containers/json?filters=x", None, 400),
    ("GET", '/containers/json?filters={"magic":["1"]}', None, 400),
    ("GET", '/containers/json?filters={"status":["flying"]}', None, 400),
    ("GET", "/containers/json?limit=many", None, 400),
    ("POST", "/containers/nobody/start", None, 404),
    ("POST", "/containers/run/start", None, 304),
    ("POST", "/containers/made/start", {"Binds": ["/a:/b"]}, 400),
    ("POST", "/containers/made/stop", None, 304),
    ("POST", "/containers/run/stop?t=soon", None, 400),
    ("POST", "/containers/made/kill", None, 409),
    ("POST", "/containers/run/kill?signal=NOPE", None, 400),
    ("POST", "/containers/made/pause", None, 409),
    ("POST", "/containers/run/unpause", None, 409),
    ("POST", "/containers/run/rename", None, 400),
    ("POST", "/containers/run/rename?name=made", None, 409),
    ("POST", "/containers/run/rename?name=!", None, 400),
    ("POST", "/containers/run/resize", None, 400),
    ("POST", "/containers/run/resize?h=1&w=99999999", None, 400),
    ("POST", "/containers/run/update", {"Memory": 5}, 400),
    ("POST", "/containers/run/update", {"RestartPolicy": {"Name": "x"}}, 400),
    ("POST", "/containers/run/wait?condition=x", None, 400),
    ("POST", "/containers/nobody/wait", None, 404),
    ("POST", "/containers/nobody/attach", None, 404),
    ("POST", "/containers/run/attach?detachKeys=x-y", None, 400),
    ("GET", "/containers/run/logs", None, 400),
    ("GET", "/containers/nobody/logs?stdout=1", None, 404),
    ("GET", "/containers/run/logs?stdout=1&since=now", None, 400),
    ("GET", "/containers/made/top", None, 409),
    ("GET", "/containers/nobody/stats", None, 404),
    ("DELETE", "/containers/run", None, 409),
    ("DELETE", "/containers/nobody", None, 404),
    ("GET", "/containers/nobody/export", None, 404),
    ("GET", "/containers/nobody/changes", None, 404),
    ("GET", "/containers/nobody/archive?path=/", None, 404),
    ("POST", "/containers/made/exec", {"Cmd": ["true"]}, 409),
    ("POST", "/containers/run/exec", {"Cmd": []}, 400),
    ("POST", "/containers/run/exec", {"Cmd": 5}, 400),
    ("POST", "/containers/run/exec", {"Cmd": ["true"], "WorkingDir": "etc"}, 400),
    ("POST", "/containers/run/exec", {"Cmd": ["true"], "Env": ["=x"]}, 400),
    ("POST", "/containers/nobody/exec", {"Cmd": ["true"]}, 404),
    ("POST", "/exec/nobody/start", {}, 404),
    ("GET", "/exec/nobody/json", None, 404),
    ("POST", "/exec/nobody/resize?h=1&w=1", None, 404),
    ("GET", "/volumes/nothing", None, 404),
    ("DELETE", "/volumes/nothing", None, 404),
    ("POST", "/volumes/create", {"Name": "a/b"}, 400),
    ("POST", "/volumes/create", {"Name": "x", "Driver": "magic"}, 404),
    ("POST", "/volumes/create", {"Name": "x1", "ClusterVolumeSpec": {"Group": "g"}}, 400),
    ("GET", '/volumes?filters={"dangling":["maybe"]}', None, 400),
    ("GET", "/networks/nothing", None, 404),
    ("POST", "/networks/create", {}, 400),
    ("POST", "/networks/create", {"Name": "x", "Driver": "overlay"}, 503),
    ("POST", "/networks/create", {"Name": "x", "IPAM": {"Config": [{"Subnet": "x"}]}}, 400),
    ("POST", "/networks/bridge/connect", {"Container": ""}, 400),
    ("POST", "/networks/host/connect", {"Container": "run"}, 403),
    ("DELETE", "/networks/host", None, 403),
    ("GET", '/networks?filters={"scope":["galaxy"]}', None, 400),
    ("GET", "/events?since=yesterday", None, 400),
    ("GET", '/events?filters={"magic":["1"]}', None, 400),
    ("GET", "/system/df?type=magic", None, 400),
    ("GET", "/nothing", None, 404),
    ("PUT", "/containers/run/json", None, 404),
    ("GET", "/v1.39/info", None, 400),
    ("GET", "/v9.0/info", None, 400),
    ("GET", f"/images/busybox/json?{OTHER}", None, 404),
    ("GET", f"/images/busybox/json?manifests=1&{OTHER}", None, 400),
    ("GET", f"/images/busybox/history?{OTHER}", None, 404),
    ("GET", f"/images/busybox/get?{OTHER}", None, 404),
    ("POST", f"/images/busybox/push?tag=latest&{OTHER}", None, 404),
    ("POST", "/images/busybox/push?tag=latest&platform=linux/amd64", None, 400),
    ("DELETE", f"/images/busybox?platforms={OTHER.partition('=')[2]}", None, 404),
    ("POST", "/images/create?fromImage=127.0.0.1:1/nothing&tag=latest", None, 500),
]


@pytest.fixture
def pair(host: Machine) -> Machine:
    """A container that runs, and one that does not."""
    host.docker("create", "--name", "made", "busybox", "true")
    host.docker("run", "-d", "--name", "run", "busybox", "sleep", "1000")
    return host


def test_every_call(pair: Machine) -> None:
    def state() -> Any:
        names = [pair.docker(*words) for words in (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"))]
        return names, [pair.inspect(name)["HostConfig"] for name in ("made", "run")]

    before, wrong = state(), []
    for method, path, body, status in CALLS:
        got, answer = pair.call(method, path, body)
        fine = got == status and (status == 304 or (isinstance(answer, dict) and answer.get("message")))
        if not fine:
            wrong.append((method, path, json.dumps(body), status, got, answer))
    assert not wrong, "\n".join(map(str, wrong))
    assert state() == before


@pytest.mark.parametrize(("path", "since"), [("json", 49), ("history", 48)])
def test_the_platform_of_an_image_is_asked_for_by_clients_that_know_of_it(host: Machine, path: str, since: int) -> None:
    """Older ones of some languages send the word with another meaning."""
    assert host.call("GET", f"/v1.{since - 1}/images/busybox/{path}?{OTHER}")[0] == 200
    assert host.call("GET", f"/v1.{since}/images/busybox/{path}?{OTHER}")[0] == 404


def test_a_body_that_is_too_large(host: Machine) -> None:
    status, answer = host.call("POST", "/containers/create", raw=b'{"Image": "' + b"x" * (17 * MEBI) + b'"}')
    assert status == 413
    assert answer["message"]
