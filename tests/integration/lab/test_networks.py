"""Overlays across real hosts: names, VIPs, pings, attachable networks, addresses given back."""

from __future__ import annotations

from collections import Counter

import pytest

from shoal.cli.client import ClientError
from tests.cluster import eventually

pytestmark = [pytest.mark.root, pytest.mark.lab]

WEB = ("sh", "-c", "mkdir -p /www; echo $HOST > /www/index.html; exec httpd -f -p 80 -h /www")
HOST = {"Env": ["HOST={{.Node.Hostname}}"]}


def attach(cluster, host, network, name="probe"):
    """A container on an attachable network, in which commands are run with `run`."""
    client = cluster.client(host)
    made = client.call("POST", "/containers/create", {"name": name}, {
        "Image": "busybox", "Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": network, "Init": True}})
    client.call("POST", f"/containers/{made['Id']}/start")

    def run(*command):
        started = client.call("POST", f"/containers/{made['Id']}/exec",
                              body={"Cmd": list(command), "AttachStdout": True, "AttachStderr": True})
        stream = client.hijack(f"/exec/{started['Id']}/start", body={"Detach": False, "Tty": False})
        output = b""
        while data := stream.recv(65536):
            output += data
        code = client.call("GET", f"/exec/{started['Id']}/json")["ExitCode"]
        return code, "".join(part for part in _demultiplexed(output))

    return made["Id"], run


def _demultiplexed(data):
    while data:
        length = int.from_bytes(data[4:8], "big")
        yield data[8:8 + length].decode()
        data = data[8 + length:]


def test_a_service_answers_by_name_on_every_host(cluster):
    cluster.network("shop")
    cluster.service("web", 5, command=WEB, container=HOST, networks=["shop"])
    cluster.runs("web", 5)
    for host in ("m2", "w2"):
        _, run = attach(cluster, host, "shop", name=f"probe-{host}")
        answered = eventually(lambda run=run: Counter(
            run("sh", "-c", "for i in $(seq 40); do timeout 2 wget -q -O - http://web/; done")[1].split()),
            lambda found: set(found) == set(cluster.names))
        assert answered.total() == 40
        names = run("nslookup", "tasks.web")[1]
        addresses = {task["NetworksAttachments"][-1]["Addresses"][0].split("/")[0] for task in cluster.running("web")}
        assert all(address in names for address in addresses)


def test_containers_on_different_hosts_reach_each_other_by_name(cluster):
    cluster.network("shop")
    attach(cluster, "w1", "shop", name="alice")
    _, run = attach(cluster, "w2", "shop", name="bob")
    code, said = eventually(lambda: run("ping", "-c", "2", "-W", "2", "alice"), lambda result: result[0] == 0)
    assert "0% packet loss" in said
    code, _ = run("ping", "-c", "1", "-W", "1", "nobody")
    assert code != 0


def test_a_service_that_loses_its_backends_refuses_at_once_and_comes_back(cluster):
    cluster.network("shop")
    cluster.service("web", 2, command=WEB, container=HOST, networks=["shop"])
    cluster.runs("web", 2)
    _, run = attach(cluster, "m1", "shop")
    fetch = ("timeout", "5", "wget", "-q", "-O", "-", "http://web/")
    eventually(lambda: run(*fetch)[0], lambda code: code == 0)
    cluster.update("web", lambda spec: spec["Mode"]["Replicated"].update(Replicas=0))
    eventually(lambda: run(*fetch), lambda result: result[0] != 0 and "refused" in result[1])
    cluster.update("web", lambda spec: spec["Mode"]["Replicated"].update(Replicas=1))
    eventually(lambda: run(*fetch)[0], lambda code: code == 0)


def test_no_request_fails_while_a_service_is_scaled_down(cluster):
    """A backend leaves the load balancing of every host before its container is told to stop."""
    cluster.network("shop")
    cluster.service("web", 6, command=WEB, container=HOST, networks=["shop"])
    cluster.runs("web", 6)
    _, run = attach(cluster, "w1", "shop")
    eventually(lambda: run("timeout", "2", "wget", "-q", "-O", "-", "http://web/")[0], lambda code: code == 0)
    cluster.service("caller", 1, networks=["shop"], command=[
        "sh", "-c", "while true; do timeout 3 wget -q -O /dev/null http://web/ && echo ok || echo failed; done"])
    eventually(lambda: cluster.logs("caller").count("ok"), lambda count: count > 20)
    cluster.update("web", lambda spec: spec["Mode"]["Replicated"].update(Replicas=2))
    eventually(lambda: cluster.running("web"), lambda tasks: len(tasks) == 2)
    before = len(cluster.logs("caller"))
    said = eventually(lambda: cluster.logs("caller"), lambda lines: len(lines) > before + 50)
    assert said.count("failed") == 0


def test_an_attachment_gives_its_address_back(cluster):
    network = cluster.network("tiny", IPAM={"Config": [{"Subnet": "10.77.0.0/29"}]})
    for _ in range(8):  # more often than there are addresses
        made, run = attach(cluster, "w1", "tiny")
        shown = cluster.client("w1").call("GET", f"/containers/{made}/json")["NetworkSettings"]["Networks"]["tiny"]
        assert shown["IPAddress"].startswith("10.77.0.") and shown["NetworkID"] == network
        cluster.client("w1").call("DELETE", f"/containers/{made}", {"force": True})
    assert run is not None


def test_a_network_in_use_is_not_removed_and_one_that_cannot_be_attached_to_is_not(cluster):
    cluster.network("shop")
    cluster.network("closed", Attachable=False)
    cluster.service("web", 1, networks=["shop"])
    cluster.runs("web", 1)
    with pytest.raises(ClientError, match="is in use by service") as refused:
        cluster.any_manager().call("DELETE", "/networks/shop")
    assert refused.value.code == 400, "as Docker answers it"
    with pytest.raises(ClientError, match="not manually attachable"):
        attach(cluster, "w1", "closed")
    cluster.client("w1").call("DELETE", "/containers/probe", {"force": True})


def test_a_service_may_use_the_network_of_its_host(cluster):
    cluster.service("agent", 1, networks=["host"],
                    command=["sh", "-c", "hostname; ip -o -4 addr show eth0; sleep 1000"],
                    task={"Placement": {"Constraints": ["node.hostname==w2"]}})
    cluster.runs("agent", 1)
    said = eventually(lambda: cluster.logs("agent"), lambda lines: len(lines) == 2)
    assert said[0] == "w2" and "10.99.0.5/24" in said[1]
    shown = cluster.any_manager().call("GET", "/networks/host", {"scope": "swarm"})
    assert (shown["Id"], shown["Driver"], shown["Scope"]) == ("host", "host", "swarm"), "as docker asks before a create"


def test_hosts_know_only_the_networks_that_they_take_part_in(cluster):
    cluster.network("shop")
    cluster.service("web", 1, networks=["shop"], task={"Placement": {"Constraints": ["node.hostname==w1"]}})
    cluster.runs("web", 1)

    def overlays(host):
        listed = cluster.inside(host, "sh", "-c", f"ls {cluster.lab.run_root(cluster.lab.host(host))}/netns").stdout
        return [name for name in listed.split() if name.startswith("ov-")]

    eventually(lambda: overlays("w1"), lambda found: len(found) == 1)
    assert overlays("w2") == []
    cluster.any_manager().call("DELETE", "/services/web")
    eventually(lambda: overlays("w1"), lambda found: not found)
