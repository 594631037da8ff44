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


def test_links_on_the_default_network(host: Machine) -> None:
    host.docker("run", "-d", "--name", "db", "--expose", "80", "-e", "KEY=1", "busybox", "sleep", "1000")
    host.docker("run", "-d", "--name", "web", "--link", "db:store", "busybox", "sleep", "1000")
    assert host.docker("exec", "web", "ping", "-c", "1", "-W", "2", "store")
    variables = host.docker("exec", "web", "env").splitlines()
    assert {"STORE_NAME=/web/store", "STORE_ENV_KEY=1", "STORE_PORT_80_TCP_PORT=80"} <= set(variables)
    assert host.inspect("web")["HostConfig"]["Links"] == ["/db:/web/store"]
    host.docker("stop", "-t", "0", "db")
    host.docker("run", "-d", "--name", "other", "busybox", "sleep", "1000")  # takes the address
    host.docker("start", "db")
    address = host.inspect("db")["NetworkSettings"]["IPAddress"]
    assert f"{address}\tstore" in host.docker("exec", "web", "cat", "/etc/hosts")
    listed = host.call("GET", "/containers/json")[1]
    assert ["/db", "/web/store"] in [each["Names"] for each in listed]
    host.docker("rm", "--link", "web/store")
    assert host.inspect("web")["HostConfig"]["Links"] == []
    assert "no such link" in host.docker("rm", "--link", "web/store", code=1)


def test_links_that_cannot_be(host: Machine) -> None:
    assert "nobody" in host.docker("run", "--link", "nobody", "busybox", "true", code=125)
    host.docker("create", "--name", "idle", "busybox", "true")
    assert "non running" in host.docker("run", "--link", "idle", "busybox", "true", code=125)
    assert "host type" in host.docker("run", "--network", "host", "--link", "idle", "busybox", "true", code=125)


def test_links_on_a_network_of_ones_own(host: Machine) -> None:
    host.docker("network", "create", "app")
    host.docker("run", "-d", "--name", "db", "--network", "app", "busybox", "sleep", "1000")
    host.docker("run", "-d", "--name", "web", "--network", "app", "--link", "db:store", "busybox", "sleep", "1000")
    assert host.docker("exec", "web", "ping", "-c", "1", "-W", "2", "store")
    assert host.docker_run("exec", "db", "ping", "-c", "1", "-W", "2", "store").returncode  # web's word alone
    host.docker("network", "create", "other")
    host.docker("network", "connect", "other", "db")
    host.docker("network", "connect", "--link", "db:second", "--alias", "known", "other", "web")
    assert host.docker("exec", "web", "ping", "-c", "1", "-W", "2", "second")
    assert host.docker("exec", "db", "ping", "-c", "1", "-W", "2", "known")


def test_what_an_endpoint_asks_for(host: Machine) -> None:
    host.docker("network", "create", "app")
    host.docker("network", "create", "-o", "com.docker.network.container_iface_prefix=lan", "aaa")
    options = ("name=app", "driver-opt=com.docker.network.endpoint.ifname=front0",
               "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1",
               "mac-address=02:42:00:00:00:09", "gw-priority=1")
    host.docker("run", "-d", "--name", "box", "--network", ",".join(options), "--network", "aaa",
                "busybox", "sleep", "1000")
    links = host.docker("exec", "box", "ls", "/sys/class/net").split()
    assert sorted(links) == ["front0", "lan0", "lo"]
    assert host.docker("exec", "box", "cat", "/proc/sys/net/ipv4/conf/front0/log_martians") == "1"
    assert host.docker("exec", "box", "cat", "/sys/class/net/front0/address") == "02:42:00:00:00:09"
    assert "dev front0" in host.docker("exec", "box", "ip", "route", "show", "default")
    shown = host.inspect("box")["NetworkSettings"]["Networks"]["app"]
    assert (shown["GwPriority"], shown["MacAddress"]) == (1, "02:42:00:00:00:09")
    host.docker("network", "disconnect", "app", "box")
    assert "dev lan0" in host.docker("exec", "box", "ip", "route", "show", "default")


def test_ranges_of_ports_and_where_they_are_bound(host: Machine) -> None:
    host.docker("run", "-d", "--name", "one", "-p", "127.0.0.1:7000-7001:80", "-p", "7100:80", "-p", "7101:80",
                "busybox", "sh", "-c", SERVE)
    host.docker("run", "-d", "--name", "two", "-p", "127.0.0.1:7000-7001:80", "busybox", "sh", "-c", SERVE)
    assert "all ports are allocated" in host.docker(
        "run", "-d", "-p", "127.0.0.1:7000-7001:80", "busybox", "true", code=125)
    for port in (7000, 7001, 7100, 7101):
        until(lambda port=port: said_at(host, port) == b"hello\n", f"port {port}")
    host.docker("network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "inner")
    host.docker("run", "-d", "--name", "three", "--network", "inner", "-p", "7200:80", "busybox", "sh", "-c", SERVE)
    assert host.docker("port", "three") == "80/tcp -> 127.0.0.1:7200"


def test_published_ports_follow_the_way_out(host: Machine) -> None:
    host.docker("network", "create", "zzz")
    host.docker("network", "create", "aaa")
    host.docker("run", "-d", "--name", "web", "--network", "zzz", "-p", "7300:80", "busybox", "sh", "-c", SERVE)
    until(lambda: said_at(host, 7300) == b"hello\n", "by the first network")
    host.docker("network", "connect", "aaa", "web")  # now this one leads outside
    host.docker("network", "disconnect", "zzz", "web")
    until(lambda: said_at(host, 7300) == b"hello\n", "by the second network")


def test_ipv6_and_reserved_addresses(host: Machine) -> None:
    host.docker("network", "create", "--ipv6", "--subnet", "10.91.0.0/24", "--subnet", "fd91::/64",
                "--aux-address", "router=10.91.0.2", "--aux-address", "six=fd91::2", "app")
    config = json.loads(host.docker("network", "inspect", "app"))[0]["IPAM"]["Config"]
    assert config == [
        {"Subnet": "10.91.0.0/24", "Gateway": "10.91.0.1", "AuxiliaryAddresses": {"router": "10.91.0.2"}},
        {"Subnet": "fd91::/64", "Gateway": "fd91::1", "AuxiliaryAddresses": {"six": "fd91::2"}}]
    host.docker("run", "-d", "--name", "box", "--network", "app", "busybox", "sleep", "1000")
    end = host.inspect("box")["NetworkSettings"]["Networks"]["app"]
    assert (end["IPAddress"], end["GlobalIPv6Address"], end["IPv6Gateway"]) == ("10.91.0.3", "fd91::3", "fd91::1")
    assert host.docker("run", "--rm", "--network", "app", "busybox", "ping", "-6", "-c", "1", "-W", "2", "box")


def test_macvlan(host: Machine) -> None:
    host.docker("network", "create", "-d", "macvlan", "--subnet", "10.92.0.0/24", "lan")
    host.docker("run", "-d", "--name", "box", "--network", "lan", "busybox", "sleep", "1000")
    host.docker("run", "--rm", "--network", "lan", "busybox", "ping", "-c", "1", "-W", "2", "box")
    shown = json.loads(host.docker("network", "inspect", "lan"))[0]
    assert (shown["Driver"], shown["IPAM"]["Config"]) == ("macvlan", [{"Subnet": "10.92.0.0/24"}])
