"""The stock docker command, unchanged, against a swarm of five hosts."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.cluster import eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.lab,
    pytest.mark.clients,
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command on this machine"),
]


@pytest.fixture
def docker(cluster):
    return cluster.docker


def test_run_gives_output_and_exit_code(cluster, docker):
    assert docker("run", "--rm", "busybox", "echo", "hello") == "hello"
    done = cluster.docker_run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert docker("run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end", stdin="one\ntwo\n") == "one\ntwo\nend"
    assert docker("ps", "-aq") == ""


def test_an_unknown_image_is_said_and_exits_125(cluster):
    done = cluster.docker_run("run", "--rm", "no-such-image:1")
    assert done.returncode == 125
    assert "no-such-image" in done.stderr


def test_a_container_from_start_to_removal(cluster, docker):
    made = docker("run", "-d", "--name", "box", "-e", "A=b", "-l", "kind=test", "busybox",
                  "sh", "-c", "echo $A; exec sleep 1000")
    assert docker("ps", "--filter", "label=kind=test", "--format", "{{.Names}} {{.Status}}").startswith("box Up")
    assert eventually(lambda: docker("logs", "box")) == "b"
    assert docker("exec", "box", "sh", "-c", "echo in; exit 0") == "in"
    assert docker("exec", "-i", "box", "cat", stdin="through") == "through"
    assert cluster.docker_run("exec", "box", "sh", "-c", "exit 9").returncode == 9
    assert json.loads(docker("inspect", "box"))[0]["Id"] == made
    docker("stop", "-t", "0", "box")
    assert docker("ps", "-a", "--format", "{{.Status}}").startswith("Exited (137)")
    docker("rm", "box")
    assert "No such container: box" in docker("inspect", "--type", "container", "box", fails=True)


def test_logs_follow_until_the_container_ends(docker):
    docker("run", "-d", "--name", "talk", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done")
    assert docker("logs", "-f", "talk") == "1\n2\n3"
    assert docker("logs", "--tail", "1", "talk") == "3"


def test_nodes(docker, cluster):
    listed = docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}")
    words = sorted(line.split() for line in listed.splitlines())
    assert [word[:3] for word in words] == [[name, "Ready", "Active"] for name in cluster.names]
    assert sorted(word[3] for word in words if len(word) > 3) == ["Leader", "Reachable", "Reachable"]
    docker("node", "update", "--label-add", "zone=a", "w1")
    assert docker("node", "inspect", "w1", "--format", "{{.Spec.Labels.zone}}") == "a"
    docker("node", "update", "--label-rm", "zone", "w1")
    docker("node", "update", "--availability", "drain", "w1")
    assert docker("node", "inspect", "self", "--format", "{{.Description.Hostname}}") == "m1"
    docker("node", "update", "--availability", "active", "w1")


def test_a_service_from_create_to_removal(docker, cluster):
    docker("network", "create", "-d", "overlay", "--attachable", "shop")
    docker("service", "create", "--name", "web", "--network", "shop", "--replicas", "3", "--quiet", "busybox",
           "sh", "-c", "echo up; mkdir -p /www; echo hi > /www/index.html; exec httpd -f -h /www")
    assert docker("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}") == (
        "web replicated 3/3 busybox:latest")
    assert docker("service", "ps", "web", "--format", "{{.Name}} {{.CurrentState}}").count("Running") == 3
    assert docker("run", "--rm", "--network", "shop", "busybox", "timeout", "5", "wget", "-q", "-O", "-",
                  "http://web/", host="w2") == "hi"
    assert docker("service", "logs", "--raw", "web") == "up\nup\nup"
    docker("service", "scale", "web=5")
    assert docker("service", "ls", "--format", "{{.Replicas}}") == "5/5"
    docker("service", "update", "--quiet", "--env-add", "X=1", "--update-parallelism", "0", "--stop-grace-period", "0s",
           "web")
    assert "X=1" in docker("service", "inspect", "web", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Env}}")
    docker("service", "rollback", "--quiet", "web")
    assert docker("service", "inspect", "web", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Env}}") == "[]"
    docker("service", "rm", "web")
    assert docker("service", "ls", "-q") == ""
    eventually(lambda: cluster.docker_run("network", "rm", "shop").returncode == 0)


def test_swarm_tokens_rotate_and_joining_what_has_joined_is_refused(docker):
    worker = docker("swarm", "join-token", "-q", "worker")
    assert worker.startswith("SWMTKN-1-")
    rotated = docker("swarm", "join-token", "-q", "--rotate", "worker")
    assert rotated != worker and rotated.rsplit("-", 1)[0] == worker.rsplit("-", 1)[0]
    assert "already part of a swarm" in docker("swarm", "init", fails=True)
    assert "already part of a swarm" in docker("swarm", "join", "--token", rotated, "10.99.0.1:2377",
                                               host="w1", fails=True)
    assert "not a swarm manager" in docker("node", "ls", host="w1", fails=True)


def test_leave_and_join_again(docker, cluster):
    docker("swarm", "leave", host="w2")
    assert docker("info", "--format", "{{.Swarm.LocalNodeState}}", host="w2") == "inactive"
    old = cluster.node_id("w2")
    eventually(lambda: cluster.docker_run("node", "rm", old).returncode == 0)
    token = docker("swarm", "join-token", "-q", "worker")
    for wrong, says in ((token[:-3], "it is truncated"), (token[:-25] + "0" * 25, "its secret is wrong or was rotated"),
                        ("SWMTKN-1-" + "0" * 50 + token[-26:], "remote CA does not match fingerprint")):
        assert says in docker("swarm", "join", "--token", wrong, "10.99.0.1:2377", host="w2", fails=True)
        assert docker("info", "--format", "{{.Swarm.LocalNodeState}}", host="w2") == "inactive"
    joined = docker("swarm", "join", "--token", token, "10.99.0.1:2377", host="w2")
    assert joined == "This node joined a swarm as a worker."
    eventually(lambda: cluster.nodes()["w2"][1], lambda state: state == "ready")
    assert cluster.node_id("w2") != old


def test_published_ports_and_a_bridge_of_ones_own(docker, cluster):
    docker("network", "create", "mine", host="w1")
    docker("run", "-d", "--name", "web", "--network", "mine", "-p", "8080:80", "busybox",
           "sh", "-c", "mkdir /www; echo hi > /www/index.html; exec httpd -f -h /www", host="w1")
    fetch = ("wget", "-q", "-O", "-")
    assert docker("run", "--rm", "--network", "mine", "busybox", *fetch, "http://web/", host="w1") == "hi"
    for host, url in (("w1", "http://127.0.0.1:8080/"), ("m1", "http://w1:8080/")):
        done = eventually(lambda host=host, url=url: cluster.inside(host, "busybox", *fetch, url),
                          lambda done: done.returncode == 0)
        assert done.stdout == "hi\n"
    assert "port is already allocated" in docker(
        "run", "--rm", "-p", "8080:80", "busybox", "true", host="w1", fails=True)
    docker("rm", "-f", "web", host="w1")
    docker("network", "rm", "mine", host="w1")


def test_images_travel_by_save_load_import_and_tag(docker, tmp_path):
    archive = tmp_path / "image.tar"
    docker("tag", "busybox", "copy:1", host="m2")
    docker("save", "-o", str(archive), "copy:1", host="m2")
    assert "Loaded image: copy:1" in docker("load", "-i", str(archive), host="m3")
    assert docker("run", "--rm", "copy:1", "echo", "loaded", host="m3") == "loaded"
    layer = tmp_path / "rootfs.tar"
    subprocess.run(["tar", "-C", "/", "-cf", str(layer), "bin/busybox"], check=True, capture_output=True)
    docker("import", str(layer), "imported:1", host="m3")
    assert docker("run", "--rm", "imported:1", "/bin/busybox", "echo", "imported", host="m3") == "imported"
    for image, host in (("copy:1", "m2"), ("copy:1", "m3"), ("imported:1", "m3")):
        docker("rmi", image, host=host)
    assert docker("images", "--format", "{{.Repository}}", host="m3") == "busybox"


def test_info_and_version(docker, cluster):
    shown = json.loads(docker("info", "--format", "{{json .}}"))
    assert shown["Swarm"]["Nodes"] == 5 and shown["Swarm"]["Managers"] == 3 and shown["Swarm"]["ControlAvailable"]
    assert shown["Name"] == "m1"
    assert json.loads(docker("version", "--format", "{{json .Server}}"))["ApiVersion"] == "1.50"
