"""The default bridge, user-defined bridges, host and none, published ports."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest
from dnslib import DNSRecord

from shoal.api.sandbox import EndpointRequest, PublishedPort
from shoal.overlay import kernel
from shoal.overlay.records import LocalNetworkSpec

from .conftest import Echo, Refused, cid, greet, socket_in, until

pytestmark = pytest.mark.root


def ask(netns: str, name: str, kind: str = "A", *, tcp: bool = False) -> DNSRecord:
    """What the resolver of a sandbox answers."""
    query = DNSRecord.question(name, kind)
    if tcp:
        return _ask_tcp(netns, query)
    with socket_in(netns, socket.SOCK_DGRAM) as client:
        client.sendto(query.pack(), ("127.0.0.11", 53))
        return DNSRecord.parse(client.recv(4096))


def _ask_tcp(netns: str, query: DNSRecord) -> DNSRecord:
    data = query.pack()
    with socket_in(netns) as client:
        client.connect(("127.0.0.11", 53))
        client.sendall(len(data).to_bytes(2, "big") + data)
        return DNSRecord.parse(client.recv(4096)[2:])


def test_default_bridge(hosts):
    (host,) = hosts(1)
    a, b = host.up("a"), host.up("b")
    assert (a.endpoints[0].address, b.endpoints[0].address) == ("172.17.0.2", "172.17.0.3")
    assert "172.17.0.2\t" in a.hosts
    assert "nameserver 192.0.2.53" in a.resolv_conf
    server = Echo(a.netns, 80, "a")
    try:
        assert greet(b.netns, "172.17.0.2", 80) == "a 172.17.0.3"
        assert greet(host.netns, "172.17.0.2", 80) == "a 172.17.0.1"
    finally:
        server.close()
    with pytest.raises(OSError):
        greet(b.netns, "127.0.0.11", 53)  # no names on the default bridge, so no resolver


def test_masquerade_hides_the_container(hosts):
    one, two = hosts(2)
    a = one.up("a")
    server = Echo(two.netns, 80, "two")
    try:
        assert greet(a.netns, two.address, 80) == f"two {one.address}"
    finally:
        server.close()


def test_published_ports(hosts):
    one, two = hosts(2)
    a = one.up("a", ports=(PublishedPort(container_port=80, host_port=8080), PublishedPort(container_port=80),
                           PublishedPort(container_port=80, host_ip="127.0.0.1", host_port=9090)))
    b = one.up("b")
    dynamic = a.ports[1].host_port
    assert 32768 <= dynamic <= 60999
    server = Echo(a.netns, 80, "a")
    try:
        assert greet(two.netns, one.address, 8080) == f"a {two.address}"
        assert greet(two.netns, one.address, dynamic) == f"a {two.address}"
        assert greet(one.netns, "127.0.0.1", 8080).startswith("a ")
        assert greet(one.netns, "127.0.0.1", 9090).startswith("a ")
        assert greet(one.netns, one.address, 8080).startswith("a ")
        assert greet(b.netns, one.address, 8080).startswith("a ")  # hairpin
        assert greet(a.netns, one.address, 8080).startswith("a ")  # to itself
        with pytest.raises(OSError):
            greet(two.netns, one.address, 9090)
    finally:
        server.close()
    with pytest.raises(Refused, match=r"driver failed programming external connectivity .* Bind for 0\.0\.0\.0:8080 "
                                      "failed: port is already allocated"):
        one.up("c", ports=(PublishedPort(container_port=80, host_port=8080),))
    one.down("a")
    with pytest.raises(OSError):
        greet(two.netns, one.address, 8080)
    c = one.up("c", ports=(PublishedPort(container_port=80, host_port=8080),))
    assert c.ports[0].host_port == 8080


def test_a_port_of_a_program_of_the_host_is_refused_and_nothing_is_left(hosts):
    (host,) = hosts(1)
    with socket_in(host.netns) as taken:
        taken.bind(("0.0.0.0", 8080))
        taken.listen()
        with pytest.raises(Refused, match="already allocated"):
            host.up("a", ports=(PublishedPort(container_port=80, host_port=8080),))
    assert host.call("sandbox", container_id=cid("a")) is None
    assert host.up("b").endpoints[0].address == "172.17.0.2"


def test_user_defined_bridge_has_names(hosts):
    (host,) = hosts(1)
    net = host.call("create_network", spec=LocalNetworkSpec(name="mine"))
    assert net["subnet"] == "172.18.0.0/16"
    a = host.up("a", EndpointRequest(network="mine", aliases=("db",)), hostname="box")
    b = host.up("b", EndpointRequest(network=net["id"]))
    assert "nameserver 127.0.0.11" in b.resolv_conf and "ndots:0" in b.resolv_conf
    for name in ("a", "db", "box", cid("a")[:12], "DB"):
        assert [str(one.rdata) for one in ask(b.netns, name).rr] == ["172.18.0.2"], name
    assert [str(one.rdata) for one in ask(b.netns, "a", tcp=True).rr] == ["172.18.0.2"]
    assert ask(b.netns, "a", "AAAA").rr == []
    assert str(ask(b.netns, "2.0.18.172.in-addr.arpa", "PTR").rr[0].rdata) == "a."
    assert ask(b.netns, "nobody").header.rcode == 3  # no server can be reached: a bare name does not exist
    c = host.up("c")  # on the default bridge
    server = Echo(a.netns, 80, "a")
    try:
        assert greet(b.netns, "172.18.0.2", 80).startswith("a ")
        with pytest.raises(OSError), socket_in(c.netns) as client:
            client.settimeout(0.5)
            client.connect(("172.18.0.2", 80))
    finally:
        server.close()
    with pytest.raises(Refused, match="has active endpoints"):
        host.call("remove_network", reference="mine")
    host.down("a")
    host.down("b")
    host.call("remove_network", reference="mine")
    assert net["link"] not in host.links()


def test_connect_and_disconnect(hosts):
    (host,) = hosts(1)
    host.call("create_network", spec=LocalNetworkSpec(name="mine"))
    host.up("a", EndpointRequest(network="mine"))
    b = host.up("b")
    host.call("connect", container_id=cid("b"), endpoint=EndpointRequest(network="mine", aliases=("bee",)))
    assert [str(one.rdata) for one in ask(b.netns, "a").rr] == ["172.18.0.2"]
    assert sorted(kernel.dump_links(b.netns)) == ["eth0", "eth1", "lo"]
    host.call("disconnect", container_id=cid("b"), network="mine")
    assert sorted(kernel.dump_links(b.netns)) == ["eth0", "lo"]
    assert ask(b.netns, "a").header.rcode != 0


def test_host_none_and_container_modes(hosts):
    (host,) = hosts(1)
    none = host.up("n", mode="none")
    assert sorted(kernel.dump_links(none.netns)) == ["lo"]
    assert host.up("h", mode="host").netns == ""
    assert host.up("h2", EndpointRequest(network="host")).netns == ""
    a = host.up("a")
    shared = host.up("s", mode=f"container:{cid('a')}")
    assert shared.netns == a.netns
    host.down("s")
    assert kernel.is_namespace(a.netns)


def test_down_leaves_nothing(hosts):
    (host,) = hosts(1)
    a = host.up("a")
    host.down("a")
    host.down("a")
    until(lambda: not any(link.startswith("v") for link in host.links()), "the veth is gone")
    assert not list((host.root / "run/netns").iterdir())
    assert not list((host.root / "run/sandboxes").iterdir())
    assert host.up("a").endpoints[0].address == a.endpoints[0].address


def test_kill_and_restart_find_everything_again(hosts):
    (host,) = hosts(1)
    host.call("create_network", spec=LocalNetworkSpec(name="mine"))
    a = host.up("a", EndpointRequest(network="mine"), ports=(PublishedPort(container_port=80, host_port=8080),))
    host.up("gone")
    kernel.create_namespace(host.root / "run/netns/leftover")
    server = Echo(a.netns, 80, "a")
    try:
        host.kill()
        assert greet(host.netns, "127.0.0.1", 8080).startswith("a ")
        host.start()
        assert greet(host.netns, "127.0.0.1", 8080).startswith("a ")
        assert host.call("sandbox", container_id=cid("a"))["netns"] == a.netns
        assert [str(one.rdata) for one in ask(a.netns, "a").rr] == ["172.18.0.2"]
        assert not (host.root / "run/netns/leftover").exists()
        host.call("reconcile", alive_container_ids=[cid("a")])
        assert host.call("sandbox", container_id=cid("gone")) is None
        with pytest.raises(Refused, match="already allocated"):
            host.up("b", ports=(PublishedPort(container_port=80, host_port=8080),))
        b = host.up("b", EndpointRequest(network="mine"))
        assert b.endpoints[0].address == "172.18.0.3"
    finally:
        server.close()


def test_udp_clients_follow_a_published_port_to_the_next_container(hosts):
    """Also one that sends when nobody is there: it would go on to be sent to the host."""
    one, two = hosts(2)
    port = (PublishedPort(container_port=53000, host_port=53000, protocol="udp"),)
    with socket_in(two.netns, socket.SOCK_DGRAM) as client:
        client.connect((one.address, 53000))
        for name in ("a", "b"):
            with suppress(ConnectionRefusedError):
                client.send(b"early")
            sandbox = one.up(name, ports=port)
            one.up(f"{name}-beside")  # so that the next one gets another address
            with socket_in(sandbox.netns, socket.SOCK_DGRAM) as server:
                server.bind(("0.0.0.0", 53000))
                server.settimeout(0.1)

                def arrives(server=server, name=name) -> bool:
                    try:
                        client.send(name.encode())  # more than once: a new link takes an instant to carry
                        return server.recv(10) == name.encode()
                    except (TimeoutError, ConnectionRefusedError):
                        return False

                until(arrives, f"a datagram reaches {name}", timeout_s=5)
            one.down(name)


def test_questions_go_on_once_there_is_a_way_out(hosts):
    """A sandbox on an internal network asks nobody; connected to another network it does, and no more afterwards."""
    (host,) = hosts(1)
    host.call("create_network", spec=LocalNetworkSpec(name="inner", internal=True))
    host.call("create_network", spec=LocalNetworkSpec(name="outer"))
    a = host.up("a", EndpointRequest(network="inner"), dns=("10.99.0.1",))
    with kernel.inside(host.netns):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server:
        server.bind(("10.99.0.1", 53))
        server.settimeout(5)
        asked = []

        def serve():
            while True:
                try:
                    data, client = server.recvfrom(4096)
                except OSError:
                    return
                asked.append(data)
                server.sendto(DNSRecord.parse(data).reply().pack(), client)

        threading.Thread(target=serve, daemon=True).start()
        ask(a.netns, "out.example")
        assert not asked
        host.call("connect", container_id=cid("a"), endpoint=EndpointRequest(network="outer"))
        ask(a.netns, "out.example")
        assert len(asked) == 1
        host.call("disconnect", container_id=cid("a"), network="outer")
        ask(a.netns, "out.example")
        assert len(asked) == 1
