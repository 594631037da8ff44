"""Overlay networks across hosts: reaching each other, names, VIPs, and life after kill -9."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from shoal.api.messages import NetworkEndpoint, NetworkService
from shoal.api.sandbox import EndpointRequest, PublishedPort, SandboxRequest
from shoal.overlay import kernel, netlink

from .conftest import Echo, Refused, Swarm, cid, greet, socket_in, until
from .test_bridge import ask

pytestmark = pytest.mark.root


def addresses(reply) -> set[str]:
    return {str(one.rdata) for one in reply.rr}


def test_across_hosts_and_on_one(hosts):
    one, two, three = hosts(3)
    swarm = Swarm([one, two, three])
    a, b, c = swarm.run(one, "a", 5), swarm.run(two, "b", 6), swarm.run(two, "c", 7)
    server = Echo(b.netns, 80, "b")
    try:
        assert greet(a.netns, "10.0.1.6", 80) == "b 10.0.1.5"
        assert greet(c.netns, "10.0.1.6", 80) == "b 10.0.1.7"
        assert addresses(ask(a.netns, "b")) == {"10.0.1.6"}
        d = swarm.run(three, "d", 8)
        assert greet(d.netns, "10.0.1.6", 80) == "b 10.0.1.8"
        assert kernel.dump_links(a.netns)["eth0"].mtu == 1450
    finally:
        server.close()


def test_nothing_is_flooded(hosts):
    one, two = hosts(2)
    swarm = Swarm([one, two])
    a, _ = swarm.run(one, "a", 5), swarm.run(two, "b", 6)
    ov = one.root / "run/netns/ov-4097"
    with kernel.inside(ov):
        before = _transmitted()
    with socket_in(a.netns, socket.SOCK_DGRAM) as client, pytest.raises(OSError):
        client.connect(("10.0.1.77", 9))  # nobody has this address
        for _ in range(2):
            client.send(b"x")
            client.recv(1)
    with kernel.inside(ov):
        assert _transmitted() == before


def _transmitted() -> int:
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("vx"))


def test_outside_goes_through_the_gateway_bridge(hosts):
    one, two = hosts(2)
    swarm = Swarm([one, two])
    a = swarm.run(one, "a", 5, ports=(PublishedPort(container_port=80, host_port=8080),))
    b = swarm.run(one, "b", 6)
    assert [e.network_name for e in a.endpoints] == ["app"]
    outside, inside = Echo(two.netns, 80, "two"), Echo(a.netns, 80, "a")
    try:
        assert greet(a.netns, two.address, 80) == f"two {one.address}"
        assert greet(two.netns, one.address, 8080) == f"a {two.address}"
        gateway_side = next(x for x in kernel.dump_links(a.netns)["eth1"].addresses)
        with socket_in(b.netns) as client, pytest.raises(OSError):
            client.settimeout(0.5)
            client.connect((gateway_side.partition("/")[0], 80))  # containers do not meet there
    finally:
        outside.close()
        inside.close()


def test_vip_balances_refuses_and_follows(hosts):
    one, two = hosts(2)
    swarm = Swarm([one, two])
    client = swarm.run(one, "client", 5)
    a, b = swarm.run(one, "a", 6, service="web"), swarm.run(two, "b", 7, service="web")
    servers = [Echo(a.netns, 80, "a"), Echo(b.netns, 80, "b")]
    try:
        swarm.serve("10.0.1.6", "10.0.1.7")
        assert addresses(ask(client.netns, "web")) == {"10.0.1.200"}
        assert addresses(ask(client.netns, "tasks.web")) == {"10.0.1.6", "10.0.1.7"}
        seen = Counter(greet(client.netns, "10.0.1.200", 80).split()[0] for _ in range(60))
        assert min(seen["a"], seen["b"]) >= 10
        assert {greet(a.netns, "10.0.1.200", 80).split()[0] for _ in range(30)} == {"a", "b"}  # itself among them
        swarm.serve("10.0.1.7")
        assert {greet(client.netns, "10.0.1.200", 80).split()[0] for _ in range(20)} == {"b"}
        swarm.serve()
        with pytest.raises(ConnectionRefusedError):
            greet(client.netns, "10.0.1.200", 80)
        late = swarm.run(two, "late", 9)  # a sandbox that comes when there is none
        with pytest.raises(ConnectionRefusedError):
            greet(late.netns, "10.0.1.200", 80)
        swarm.serve("10.0.1.6")
        assert greet(late.netns, "10.0.1.200", 80).startswith("a ")
        swarm.tell(removed_services=(("net1", "svc-web"),))
        assert ask(client.netns, "web").header.rcode != 0
    finally:
        for server in servers:
            server.close()


def test_flows_to_a_removed_backend_end(hosts):
    one, two = hosts(2)
    swarm = Swarm([one, two])
    client, a, b = swarm.run(one, "client", 5), swarm.run(one, "a", 6), swarm.run(two, "b", 7)
    swarm.serve("10.0.1.7")
    with (socket_in(a.netns, socket.SOCK_DGRAM) as at_a, socket_in(b.netns, socket.SOCK_DGRAM) as at_b,
          socket_in(client.netns, socket.SOCK_DGRAM) as sender, socket_in(b.netns) as listener,
          socket_in(client.netns) as stream):
        at_a.bind(("0.0.0.0", 53000))
        at_b.bind(("0.0.0.0", 53000))
        listener.bind(("0.0.0.0", 80))
        listener.listen()
        stream.connect(("10.0.1.200", 80))
        accepted, _ = listener.accept()
        sender.connect(("10.0.1.200", 53000))
        sender.send(b"1")
        assert at_b.recv(10) == b"1"
        swarm.serve("10.0.1.6")
        sender.send(b"2")
        assert at_a.recv(10) == b"2"
        with accepted, pytest.raises(ConnectionResetError):
            for _ in range(50):
                stream.send(b"x")
                stream.settimeout(0.1)
                try:
                    stream.recv(1)
                except TimeoutError:
                    continue


def test_dnsrr(hosts):
    (one,) = hosts(1)
    swarm = Swarm([one])
    client = swarm.run(one, "client", 5)
    swarm.serve("10.0.1.6", "10.0.1.7", vip="")
    assert addresses(ask(client.netns, "web")) == {"10.0.1.6", "10.0.1.7"}
    orders = {tuple(str(x.rdata) for x in ask(client.netns, "web").rr) for _ in range(40)}
    assert len(orders) == 2


def test_an_endpoint_moves_and_goes(hosts):
    one, two, three = hosts(3)
    swarm = Swarm([one, two, three])
    a = swarm.run(one, "a", 5)
    swarm.run(two, "b", 6)
    two.down("b")
    assert not (two.root / "run/netns/ov-4097").exists()
    b = swarm.run(three, "b", 6)
    server = Echo(b.netns, 80, "b")
    try:
        assert greet(a.netns, "10.0.1.6", 80) == "b 10.0.1.5"
    finally:
        server.close()
    swarm.tell(removed_endpoints=(("net1", "task-b"),))
    ov = one.root / "run/netns/ov-4097"
    assert kernel.dump_fdb(ov, 16) == {}
    assert kernel.dump_neighbours(ov, 16) == {}


def test_the_same_mac_again_at_once(hosts):
    (one,) = hosts(1)
    swarm = Swarm([one])
    swarm.run(one, "a", 5)
    for number in range(3):
        swarm.run(one, f"b{number}", 6)
        one.down(f"b{number}")


def test_kill_and_restart_keep_the_data_plane(hosts):
    one, two = hosts(2)
    swarm = Swarm([one, two])
    a, b = swarm.run(one, "a", 5), swarm.run(two, "b", 6)
    swarm.serve("10.0.1.6")
    server = Echo(b.netns, 80, "b")
    try:
        tables = one.root / "run/cluster.msgpack"
        until(lambda: tables.exists() and b"web" in tables.read_bytes(), "the tables are on disk")
        one.kill()
        assert greet(a.netns, "10.0.1.200", 80) == "b 10.0.1.5"
        one.start()
        assert greet(a.netns, "10.0.1.200", 80) == "b 10.0.1.5"
        assert addresses(ask(a.netns, "web")) == {"10.0.1.200"}
        assert addresses(ask(a.netns, "b")) == {"10.0.1.6"}
        # While it was away, b's service lost its backend and a foreign entry came into the kernel.
        with kernel.Links(one.root / "run/netns/ov-4097") as links:
            links.send([netlink.set_fdb(16, "02:42:0a:00:01:63", "10.99.0.9")])
        one.call("apply_cluster", complete=True, networks=(swarm.network,), endpoints=tuple(swarm.endpoints.values()),
                 services=(NetworkService(id="svc-web", network_id="net1", name="web", vip="10.0.1.200"),))
        with pytest.raises(ConnectionRefusedError):
            greet(a.netns, "10.0.1.200", 80)
        assert kernel.dump_fdb(one.root / "run/netns/ov-4097", 16) == {"02:42:0a:00:01:06": "10.99.0.2"}
        assert greet(a.netns, "10.0.1.6", 80) == "b 10.0.1.5"
        swarm.serve("10.0.1.6")
        assert greet(a.netns, "10.0.1.200", 80) == "b 10.0.1.5"
        one.down("a")
        assert not list((one.root / "run/netns").iterdir())
    finally:
        server.close()


def test_refusals_leave_nothing(hosts):
    (one,) = hosts(1)
    swarm = Swarm([one])
    with pytest.raises(Refused, match="gets its address from a manager"):
        one.up("a", EndpointRequest(network="app"))
    with pytest.raises(Refused, match="not found"):
        one.up("a", EndpointRequest(network="app", address="10.0.1.5/24"), EndpointRequest(network="nowhere"))
    assert not list((one.root / "run/netns").iterdir())
    assert one.call("sandbox", container_id=cid("a")) is None
    swarm.run(one, "a", 5)


def test_many_at_once_while_the_cluster_changes(hosts):
    one, two = hosts(2)
    swarm = Swarm([one, two])
    b = swarm.run(two, "b", 250)
    server = Echo(b.netns, 80, "b")
    numbers = range(2, 32)
    endpoints = [NetworkEndpoint(id=f"t{n}", network_id="net1", address=f"10.0.1.{n}", mac=f"02:42:0a:00:01:{n:02x}",
                                 node_id="1", node_addr=one.address, names=(f"c{n}",), healthy=True) for n in numbers]

    def service(*backends: str) -> dict:
        return {"do": "apply_cluster", "args": {"services": [
            NetworkService(id="s", network_id="net1", name="web", vip="10.0.1.200", backends=backends)]}}

    def up(n: int) -> dict:
        return {"do": "up", "args": {"request": SandboxRequest(container_id=cid(f"c{n}"), name=f"c{n}", endpoints=(
            EndpointRequest(network="app", address=f"10.0.1.{n}/24", mac=f"02:42:0a:00:01:{n:02x}"),))}}

    try:
        swarm.tell(endpoints=endpoints)
        commands = []
        for n in numbers:
            commands += [up(n), service(*[f"10.0.1.{x}" for x in range(2, n)], "10.0.1.250"), up(n)]
        commands += [{"do": "down", "args": {"container_id": cid("c5")}}, up(5), service("10.0.1.250")]
        one.call("together", commands=commands)
        for n in numbers:
            netns = one.call("sandbox", container_id=cid(f"c{n}"))["netns"]
            assert greet(netns, "10.0.1.200", 80) == f"b 10.0.1.{n}"
        one.call("together", commands=[{"do": "down", "args": {"container_id": cid(f"c{n}")}} for n in numbers])
        assert not list((one.root / "run/netns").iterdir())
        until(lambda: not any(link.startswith("v") for link in one.links()), "the links are gone")
    finally:
        server.close()


def test_a_bad_sysctl_is_refused_and_leaves_nothing(hosts):
    (one,) = hosts(1)
    swarm = Swarm([one])
    for name in ("net.ipv4.no_such_thing", "kernel.shmmax"):
        with pytest.raises(Refused, match=name) as caught:
            swarm.run(one, "a", 5, sysctls={name: "1"}, ports=(PublishedPort(container_port=80, host_port=8080),))
        assert caught.value.status == 400
        assert not list((one.root / "run/netns").iterdir())
    a = swarm.run(one, "a", 5, sysctls={"net.ipv4.ip_forward": "1"},
                  ports=(PublishedPort(container_port=80, host_port=8080),))
    with kernel.inside(a.netns):
        assert kernel.read_sysctl("net.ipv4.ip_forward") == "1"


def test_a_host_changes_its_address(hosts):
    one, two = hosts(2)
    swarm = Swarm([one, two])
    a, b = swarm.run(one, "a", 5), swarm.run(two, "b", 6)
    server = Echo(b.netns, 80, "b")
    try:
        one.kill()
        with kernel.Links(one.netns) as links:
            links.add_address("up0", "10.99.0.77/24")
        one.address = "10.99.0.77"
        one.start()
        swarm.endpoints["a"] = msgspec.structs.replace(swarm.endpoints["a"], node_addr=one.address)
        everything = tuple(swarm.endpoints.values())
        swarm.tell(complete=True, endpoints=everything)
        assert kernel.dump_fdb(one.root / "run/netns/ov-4097", 16) == {"02:42:0a:00:01:06": two.address}
        assert kernel.dump_fdb(two.root / "run/netns/ov-4097", 16) == {"02:42:0a:00:01:05": "10.99.0.77"}
        data = kernel.dump_links(one.root / "run/netns/ov-4097")["vx4097"].data
        assert data["IFLA_VXLAN_LOCAL"] == "10.99.0.77"
        assert greet(a.netns, "10.0.1.6", 80) == "b 10.0.1.5"
    finally:
        server.close()
