"""docker-py against a real shoald."""

from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

from tests.integration.daemon.host import Machine, until

pytestmark = [pytest.mark.root, pytest.mark.clients]


@pytest.fixture
def client(host: Machine) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=f"unix://{host.socket}", timeout=30)
    yield made
    made.close()


def test_run_and_output(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    with pytest.raises(ContainerError) as failure:
        client.containers.run("busybox", ["sh", "-c", "echo oh >&2; exit 3"], remove=True)
    assert failure.value.exit_status == 3
    assert failure.value.stderr == b"oh\n"
    with pytest.raises(ImageNotFound):
        client.images.get("nothing-like-it")
    with pytest.raises(APIError, match="registry-1"):  # what is missing is pulled; this machine has no way there
        client.containers.run("nothing-like-it", "true")


def test_a_container_by_its_object(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "sleep 1000", detach=True, name="box", labels={"a": "b"},
                                      environment={"X": "1"}, mem_limit="64m", ports={"80/tcp": None})
    assert container.status in ("created", "running")
    container.reload()
    assert container.status == "running"
    assert container.labels["a"] == "b"
    assert int(container.ports["80/tcp"][0]["HostPort"]) >= 32768
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    assert [each.name for each in client.containers.list(filters={"label": "a=b"})] == ["box"]
    assert container.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
    assert container.top()["Processes"][0][-1] == "sleep 1000"
    container.pause()
    container.unpause()
    container.rename("other")
    container.kill()
    assert container.wait()["StatusCode"] == 137
    container.start()
    container.stop(timeout=0)
    container.remove()
    with pytest.raises(NotFound):
        client.containers.get("other")


def test_logs_as_they_come(client: docker.DockerClient) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo 1; until [ -e /go ]; do sleep 0.05; done; echo 2"], detach=True)
    stream = container.logs(stream=True, follow=True)
    assert next(stream) == b"1\n"
    container.exec_run("touch /go")
    assert b"".join(stream) == b"2\n"
    assert container.logs(tail=1) == b"2\n"
    assert container.logs(stdout=False) == b""


def test_exec(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "sleep 1000", detach=True)
    assert container.exec_run("echo out") == (0, b"out\n")
    assert container.exec_run(["sh", "-c", "echo o; echo e >&2; exit 4"], demux=True) == (4, (b"o\n", b"e\n"))
    assert container.exec_run("id -u", user="65534").output == b"65534\n"
    assert container.exec_run("sh -c 'echo $A'", environment={"A": "1"}).output == b"1\n"
    assert container.exec_run("pwd", workdir="/etc").output == b"/etc\n"
    assert b"".join(container.exec_run("seq 1 1000", stream=True).output).split()[-1] == b"1000"
    made = client.api.exec_create(container.id, "cat", stdin=True)
    socket = client.api.exec_start(made["Id"], socket=True)
    until(lambda: client.api.exec_inspect(made["Id"])["Running"], "it runs")
    socket._sock.sendall(b"through\n")
    socket._sock.shutdown(1)
    received = b""
    while data := socket._sock.recv(1000):
        received += data
    assert received == b"\x01\0\0\0\0\0\0\x08through\n"
    until(lambda: client.api.exec_inspect(made["Id"])["ExitCode"] == 0, "the exec's exit code")


def test_attach(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "cat", stdin_open=True)
    socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    socket._sock.sendall(b"hello\n")
    socket._sock.shutdown(1)
    received = b""
    while data := socket._sock.recv(1000):
        received += data
    assert received == b"\x01\0\0\0\0\0\0\x06hello\n"


def test_who_attaches_to_stdin_of_all_lets_go_at_the_end_of_his_input(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "cat", stdin_open=True, detach=True)  # hence no StdinOnce
    for words in (b"to\n", b"fro\n"):
        socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        socket._sock.sendall(words)
        assert socket._sock.recv(1000)[8:] == words
        socket._sock.shutdown(1)
        assert socket._sock.recv(1000) == b""
    container.reload()
    assert container.status == "running"


def test_networks(client: docker.DockerClient) -> None:
    network = client.networks.create("app", driver="bridge", labels={"a": "b"})
    container = client.containers.run("busybox", "sleep 1000", detach=True, name="box")
    network.connect(container, aliases=["known"])
    network.reload()
    assert network.containers == [container]
    assert client.containers.run("busybox", "ping -c 1 -W 2 known", network="app", remove=True)
    with pytest.raises(APIError):
        network.remove()
    network.disconnect(container)
    network.remove()
    assert [each.name for each in client.networks.list(names=["app"])] == []


def test_volumes(client: docker.DockerClient) -> None:
    volume = client.volumes.create("data", labels={"a": "b"})
    client.containers.run("busybox", "touch /data/x", volumes={"data": {"bind": "/data", "mode": "rw"}}, remove=True)
    assert client.containers.run("busybox", "ls /data", volumes=["data:/data:ro"], remove=True) == b"x\n"
    assert [each.name for each in client.volumes.list()] == ["data"]
    volume.remove()


def test_events(client: docker.DockerClient) -> None:
    events = client.events(decode=True, filters={"type": "network"})
    network = client.networks.create("seen")
    client.containers.run("busybox", "true", network="seen", remove=True)
    network.remove()
    assert [next(events)["Action"] for _ in range(4)] == ["create", "connect", "disconnect", "destroy"]
    events.close()
