"""Networks of one host, by the stock docker command."""

import json
import socket

import pytest

from shoal.overlay import kernel
from tests.integration.daemon.host import Machine, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

SERVE = "while :; do echo hello | nc -l -p 80; done"


def said_at(host: Machine, port: int) -> bytes:
    """What a client on the machine itself is told on its loopback."""
    with kernel.inside(f"/proc/{host.init_pid}/ns/net"):
        client = socket.socket()
    with client:
        client.settimeout(5)
        try:
            client.connect(("127.0.0.1", port))
            return client.recv(100)
        except OSError:
            return b""


def test_a_published_port_answers_on_loopback(host: Machine) -> None:
    host.docker("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", SERVE)
    until(lambda: said_at(host, 8080) == b"hello\n", "the published port")
    assert host.docker("port", "web") == "80/tcp -> 0.0.0.0:8080"
    assert json.loads(host.docker("ps", "--format", "json"))["Ports"] == "0.0.0.0:8080->80/tcp"
    assert "8080" in host.docker("run", "-d", "-p", "8080:80", "busybox", "true", code=125)


def test_a_port_of_the_hosts_choice(host: Machine) -> None:
    host.docker("run", "-d", "--name", "web", "-p", "80", "busybox", "sh", "-c", SERVE)
    port = int(host.docker("port", "web", "80/tcp").rpartition(":")[2])
    assert 32768 <= port <= 60999
    until(lambda: said_at(host, port) == b"hello\n", "the published port")


def test_names_on_a_network_of_ones_own(host: Machine) -> None:
    host.docker("network", "create", "--subnet", "10.77.0.0/24", "app")
    host.docker("run", "-d", "--name", "db", "--network", "app", "--network-alias", "store", "busybox", "sleep", "1000")
    for name in ("db", "store"):
        assert host.docker("run", "--rm", "--network", "app", "busybox", "ping", "-c", "1", "-W", "2", name)
    assert host.docker_run("run", "--rm", "busybox", "sh", "-c", "timeout 1 ping -c 1 db; exit $?").returncode
    shown = json.loads(host.docker("network", "inspect", "app"))[0]
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1"}]
    assert [each["Name"] for each in shown["Containers"].values()] == ["db"]
    end = host.inspect("db")["NetworkSettings"]["Networks"]["app"]
    assert end["NetworkID"] == shown["Id"]
    assert f"{end['IPAddress']}/24" == next(iter(shown["Containers"].values()))["IPv4Address"]
    assert "has active endpoints" in host.docker("network", "rm", "app", code=1)


def test_connect_and_disconnect(host: Machine) -> None:
    host.docker("network", "create", "one")
    host.docker("network", "create", "two")
    host.docker("run", "-d", "--name", "box", "--network", "one", "busybox", "sleep", "1000")
    host.docker("network", "connect", "--alias", "also", "two", "box")
    assert set(host.inspect("box")["NetworkSettings"]["Networks"]) == {"one", "two"}
    assert host.docker("run", "--rm", "--network", "two", "busybox", "ping", "-c", "1", "-W", "2", "also")
    host.docker("network", "disconnect", "one", "box")
    assert set(host.inspect("box")["NetworkSettings"]["Networks"]) == {"two"}
    host.docker("restart", "-t", "0", "box")
    assert set(host.inspect("box")["NetworkSettings"]["Networks"]) == {"two"}
    assert host.inspect("box")["NetworkSettings"]["Networks"]["two"]["IPAddress"]


def test_the_only_network_is_left_and_joined_again(host: Machine) -> None:
    made = host.docker("network", "create", "--subnet", "10.78.0.0/24", "app")
    host.docker("run", "-d", "--name", "box", "--network", made, "busybox", "sleep", "1000")
    host.docker("network", "disconnect", "app", "box")
    assert host.docker("exec", "box", "ls", "/sys/class/net").split() == ["lo"]
    host.docker("network", "connect", "--ip", "10.78.0.9", "app", "box")
    assert host.inspect("box")["NetworkSettings"]["Networks"]["app"]["IPAddress"] == "10.78.0.9"
    host.docker("restart", "-t", "0", "box")
    assert host.inspect("box")["NetworkSettings"]["Networks"]["app"]["IPAddress"] == "10.78.0.9"


def test_none_and_host(host: Machine) -> None:
    links = host.docker("run", "--rm", "--network", "none", "busybox", "ls", "/sys/class/net").split()
    assert links == ["lo"]
    own = host.inside("readlink", "/proc/self/ns/net").stdout.strip()
    assert host.docker("run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net") == own
    host.docker("run", "-d", "--name", "nets", "--network", "none", "busybox", "sleep", "1000")
    assert list(host.inspect("nets")["NetworkSettings"]["Networks"]) == ["none"]


def test_the_network_of_another_container(host: Machine) -> None:
    host.docker("run", "-d", "--name", "owner", "busybox", "sleep", "1000")
    own = host.docker("exec", "owner", "readlink", "/proc/self/ns/net")
    assert host.docker("run", "--rm", "--network", "container:owner", "busybox", "readlink", "/proc/self/ns/net") == own


def test_listing_and_filters(host: Machine) -> None:
    host.docker("network", "create", "--label", "tier=1", "app")
    names = host.docker("network", "ls", "--format", "{{.Name}}").split()
    assert {"bridge", "host", "none", "app"} <= set(names)
    for filters, found in (("type=custom", "app"), ("label=tier=1", "app"), ("name=app", "app"),
                           ("driver=null", "none"), ("dangling=true", "app")):
        assert host.docker("network", "ls", "--filter", filters, "--format", "{{.Name}}") == found, filters
    assert host.docker("network", "prune", "--force").split()[-1] == "app"


@pytest.mark.parametrize(("words", "said"), [
    (("network", "rm", "bridge"), "pre-defined"),
    (("network", "rm", "nothing"), "not found"),
    (("network", "inspect", "nothing"), "not found"),
    (("network", "create", "bridge"), "predefined"),
    (("network", "create", "--subnet", "10.0.0.0/99", "x"), "10.0.0.0/99"),
    (("network", "create", "-d", "magic", "x"), "magic"),
    (("network", "create", "-d", "overlay", "x"), "This node is not a swarm manager"),
    (("network", "create", "--subnet", "fd00::/64", "x"), "IPv6"),
    (("network", "create", "-d", "macvlan", "-o", "parent=nothing", "x"), "nothing"),
    (("network", "create", "-d", "ipvlan", "-o", "ipvlan_mode=l3", "x"), "l3"),
    (("network", "create", "-o", "com.docker.network.bridge.gateway_mode_ipv4=routed", "x"), "gateway_mode_ipv4"),
    (("network", "connect", "nothing", "nobody"), "nothing"),
    (("network", "connect", "bridge", "nobody"), "nobody"),
    (("network", "create", "--gateway", "10.1.0.1", "x"), "subnet"),
])
def test_errors(host: Machine, words: tuple[str, ...], said: str) -> None:
    before = host.docker("network", "ls", "--quiet")
    assert said in host.docker(*words, code=1)
    assert host.docker("network", "ls", "--quiet") == before


def test_two_of_one_name(host: Machine) -> None:
    host.docker("network", "create", "app")
    assert "already exists" in host.docker("network", "create", "app", code=1)


def test_a_network_that_is_not_there(host: Machine) -> None:
    assert "nothing" in host.docker("run", "--rm", "--network", "nothing", "busybox", "true", code=125)
    assert host.docker("ps", "--all", "--quiet") == ""
