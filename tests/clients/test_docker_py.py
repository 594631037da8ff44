"""docker-py, unchanged, against the same swarm."""

from __future__ import annotations

import docker
import pytest

from tests.cluster import eventually

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.clients]


@pytest.fixture
def sdk(cluster):
    clients = []

    def connect(host="m1"):
        clients.append(docker.DockerClient(base_url=cluster.client(host).host, version="auto", timeout=60))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_containers(sdk):
    client = sdk()
    assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as ended:
        client.containers.run("busybox", ["sh", "-c", "exit 3"], remove=True)
    assert ended.value.exit_status == 3
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("no-such-image")
    box = client.containers.run("busybox", ["sleep", "1000"], detach=True, name="box", labels={"a": "b"}, init=True)
    assert [each.name for each in client.containers.list(filters={"label": "a=b"})] == ["box"]
    assert box.exec_run(["sh", "-c", "echo out; exit 4"]) == (4, b"out\n")
    box.stop(timeout=1)
    assert box.wait()["StatusCode"] in (137, 143)
    box.remove()
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("box")


def test_streamed_logs(sdk):
    client = sdk()
    box = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"], detach=True)
    assert b"".join(box.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    box.remove()


def test_services_networks_and_nodes(sdk, cluster):
    client = sdk()
    network = client.networks.create("shop", driver="overlay", attachable=True)
    mode = docker.types.ServiceMode("replicated", replicas=2)
    service = client.services.create("busybox", command=["sleep", "100000"], name="web", mode=mode, init=True,
                                     networks=[network.id])
    cluster.runs("web", 2)
    assert {task["Status"]["State"] for task in service.tasks({"desired-state": "running"})} == {"running"}
    assert service.scale(4)
    cluster.runs("web", 4)
    service.reload()
    assert service.update(env=["A=b"], mode=docker.types.ServiceMode("replicated", replicas=4)) is not None
    eventually(lambda: [task for task in cluster.running("web")
                        if task["Spec"]["ContainerSpec"].get("Env") == ["A=b"]], lambda tasks: len(tasks) == 4)
    service.remove()
    with pytest.raises(docker.errors.NotFound):
        client.services.get("web")
    assert len(client.nodes.list(filters={"role": "manager"})) == 3
    assert client.swarm.attrs["JoinTokens"]["Worker"].startswith("SWMTKN-1-")
    eventually(lambda: not _in_use(network))


def _in_use(network):
    try:
        network.remove()
    except docker.errors.APIError as error:
        assert error.status_code == 400
        return True
    return False


def test_a_container_on_an_overlay_of_another_host(sdk):
    first, second = sdk("w1"), sdk("w2")
    sdk().networks.create("shop", driver="overlay", attachable=True)
    server = first.containers.run("busybox", ["sh", "-c", "mkdir /www; echo hi > /www/index.html; httpd -f -h /www"],
                                  detach=True, name="server", network="shop", init=True)
    script = "until timeout 2 wget -q -O - http://server/; do sleep 0.1; done"
    assert second.containers.run("busybox", ["timeout", "30", "sh", "-c", script], remove=True, network="shop",
                                 stderr=False) == b"hi\n"
    server.remove(force=True)
