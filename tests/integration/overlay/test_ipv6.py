"""IPv6 on bridges of the user's: addresses, names, the way out, published ports."""

from __future__ import annotations

import socket

import pytest

from shoal.api.sandbox import EndpointRequest, PublishedPort, Sandbox
from shoal.overlay import kernel
from shoal.overlay.records import LocalNetworkSpec

from .conftest import Host, Refused, cid
from .test_bridge import ask

pytestmark = pytest.mark.root

SPEC = LocalNetworkSpec(name="six", ipv6=True, subnet="10.60.0.0/24", subnet6="fd60::/64", gateway6="fd60::ff",
                        reserved6={"router": "fd60::1"})


def answer(sandbox: Sandbox, port: int = 80) -> socket.socket:
    """A server in the sandbox, on IPv6 alone."""
    with kernel.inside(sandbox.netns):
        made = socket.socket(socket.AF_INET6)
    made.bind(("::", port))
    made.listen(8)
    made.settimeout(5)
    return made


def seen(netns: object, address: str, port: int, server: socket.socket) -> str:
    """The address that the server sees of a client in `netns`."""
    with kernel.inside(netns):  # type: ignore[arg-type]
        client = socket.socket(socket.AF_INET6)
    with client:
        client.settimeout(5)
        client.connect((address, port))
        accepted, (peer, *_) = server.accept()
        accepted.close()
        return str(peer)


def give(host: Host, address: str) -> None:
    with kernel.Links(host.netns) as links:
        links.add_address("up0", address)


def test_addresses_and_names(hosts) -> None:
    (host,) = hosts(1)
    host.call("create_network", spec=SPEC)
    a = host.up("a", EndpointRequest(network="six"))
    b = host.up("b", EndpointRequest(network="six", address6="fd60::beef", link_local=("fe80::beef",)))
    ends = [one.endpoints[0] for one in (a, b)]
    assert [(end.address6, end.prefix_length6, end.gateway6) for end in ends] == [
        ("fd60::2", 64, "fd60::ff"), ("fd60::beef", 64, "fd60::ff")]
    assert "fd60::2\t" in a.hosts
    with answer(a) as server:
        assert seen(b.netns, "fd60::2", 80, server) == "fd60::beef"
    assert [str(record.rdata) for record in ask(b.netns, "a", "AAAA").rr] == ["fd60::2"]
    assert [str(record.rdata) for record in ask(b.netns, "a").rr] == ["10.60.0.2"]
    arpa = ".".join(reversed(f"{0xfd60 << 112 | 2:032x}")) + ".ip6.arpa"
    assert str(ask(b.netns, arpa, "PTR").rr[0].rdata) == "a."
    host.kill()
    host.start()
    assert host.up("c", EndpointRequest(network="six")).endpoints[0].address6 == "fd60::3"


def test_the_way_out_hides_the_container(hosts) -> None:
    one, two = hosts(2)
    give(one, "fd99::1/64")
    give(two, "fd99::2/64")
    one.call("create_network", spec=SPEC)
    a = one.up("a", EndpointRequest(network="six"))
    with kernel.inside(two.netns):
        server = socket.socket(socket.AF_INET6)
    with server:
        server.bind(("::", 80))
        server.listen(8)
        server.settimeout(5)
        assert seen(a.netns, "fd99::2", 80, server) == "fd99::1"


def test_published_ports(hosts) -> None:
    one, two = hosts(2)
    give(one, "fd99::1/64")
    give(two, "fd99::2/64")
    one.call("create_network", spec=SPEC)
    a = one.up("a", EndpointRequest(network="six"), ports=(
        PublishedPort(container_port=80, host_port=8080), PublishedPort(container_port=80, host_ip="fd99::1"),
        PublishedPort(container_port=80, host_port=9000, last_host_port=9010)))
    assert [(port.host_ip, port.host_port) for port in a.ports if port.host_port in (8080, 9000)] == [
        ("", 8080), ("::", 8080), ("", 9000), ("::", 9000)]
    special = next(port.host_port for port in a.ports if port.host_ip == "fd99::1")
    with answer(a) as server:
        assert seen(two.netns, "fd99::1", 8080, server) == "fd99::2"
        assert seen(two.netns, "fd99::1", special, server) == "fd99::2"
        assert seen(one.netns, "fd99::1", 8080, server)
        with pytest.raises(ConnectionRefusedError):
            seen(one.netns, "::1", 8080, server)  # at once, so that clients go on to 127.0.0.1
        one.kill()
        one.start()
        assert seen(two.netns, "fd99::1", 8080, server) == "fd99::2"
        one.down("a")
    b = one.up("b", EndpointRequest(network="six"), ports=(PublishedPort(container_port=80, host_port=8080),))
    with answer(b) as server:
        assert seen(two.netns, "fd99::1", 8080, server) == "fd99::2"


def test_what_has_no_ipv6(hosts) -> None:
    (host,) = hosts(1)
    with pytest.raises(Refused) as refused:
        host.up("a", ports=(PublishedPort(container_port=80, host_ip="fd99::1", host_port=80),))
    assert refused.value.status == 400
    host.call("create_network", spec=LocalNetworkSpec(name="four"))
    with pytest.raises(Refused) as refused:
        host.up("a", EndpointRequest(network="four", address6="fd60::2"))
    assert refused.value.status == 400
    a = host.up("a", EndpointRequest(network="four"))
    with kernel.inside(a.netns):
        assert kernel.read_sysctl("net.ipv6.conf.eth0.disable_ipv6") == "1"
    host.call("create_network", spec=SPEC)
    host.call("connect", container_id=cid("a"), endpoint=EndpointRequest(network="six"))
    with kernel.inside(a.netns):
        assert kernel.read_sysctl("net.ipv6.conf.eth1.disable_ipv6") == "0"
