"""Questions that nobody on the sandbox's networks can answer go on to the host's servers."""

from __future__ import annotations

import socket
import threading

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from shoal.api.sandbox import EndpointRequest
from shoal.overlay.records import LocalNetworkSpec

from .conftest import socket_in
from .test_bridge import ask

pytestmark = pytest.mark.root


class Upstream:
    """A DNS server on a host that knows every name as 192.0.2.7, and counts questions."""

    def __init__(self, netns, address: str) -> None:
        self.udp, self.tcp = socket_in(netns, socket.SOCK_DGRAM), socket_in(netns)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (self.udp, self.tcp):
            one.bind((address, 53))
            one.settimeout(None)
        self.tcp.listen()
        self.asked: list[str] = []
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._over_udp, self._over_tcp)]
        for thread in self.threads:
            thread.start()

    def _answer(self, data: bytes) -> bytes:
        query = DNSRecord.parse(data)
        self.asked.append(str(query.q.qname))
        reply = query.reply()
        reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A("192.0.2.7")))
        return reply.pack()

    def _over_udp(self) -> None:
        while True:
            data, client = self.udp.recvfrom(4096)
            if data == b"stop":
                return
            self.udp.sendto(self._answer(data), client)

    def _over_tcp(self) -> None:
        while True:
            try:
                client, _ = self.tcp.accept()
            except OSError:
                return
            with client:
                reply = self._answer(client.recv(4096)[2:])
                client.sendall(len(reply).to_bytes(2, "big") + reply)

    def close(self) -> None:
        self.tcp.shutdown(socket.SHUT_RDWR)
        self.udp.sendto(b"stop", self.udp.getsockname())
        for thread in self.threads:
            thread.join()
        self.udp.close()
        self.tcp.close()


def test_forwarded_over_udp_and_tcp_but_not_from_an_internal_network(hosts):
    one, two = hosts(2)
    (one.root / "resolv.conf").write_text("nameserver 10.99.0.2\n")
    one.call("create_network", spec=LocalNetworkSpec(name="mine"))
    one.call("create_network", spec=LocalNetworkSpec(name="inner", internal=True))
    a = one.up("a", EndpointRequest(network="mine"))
    b = one.up("b", EndpointRequest(network="inner"))
    server = Upstream(two.netns, "10.99.0.2")
    try:
        assert str(ask(a.netns, "example.org").rr[0].rdata) == "192.0.2.7"
        assert str(ask(a.netns, "example.org", tcp=True).rr[0].rdata) == "192.0.2.7"
        assert server.asked == ["example.org."] * 2
        assert str(ask(a.netns, "a").rr[0].rdata) == "172.18.0.2"
        assert ask(b.netns, "example.org").header.rcode != 0
        assert server.asked == ["example.org."] * 2
    finally:
        server.close()


def test_a_container_has_servers_of_its_own_and_port_53_is_free(hosts):
    one, two = hosts(2)
    one.call("create_network", spec=LocalNetworkSpec(name="mine"))
    a = one.up("a", EndpointRequest(network="mine"), dns=("10.99.0.2",))
    server = Upstream(two.netns, "10.99.0.2")
    try:
        assert str(ask(a.netns, "example.org").rr[0].rdata) == "192.0.2.7"
        with socket_in(a.netns, socket.SOCK_DGRAM) as own:
            own.bind(("0.0.0.0", 53))
            assert str(ask(a.netns, "a").rr[0].rdata) == "172.18.0.2"
    finally:
        server.close()


def test_no_server_answers_and_the_client_is_told(hosts):
    (one,) = hosts(1)
    one.call("create_network", spec=LocalNetworkSpec(name="mine"))
    a = one.up("a", EndpointRequest(network="mine"))
    assert ask(a.netns, "example.org").header.rcode == 2  # no way to the server
    with socket_in(a.netns, socket.SOCK_DGRAM) as client:
        for garbage in (b"", b"x", b"\0" * 12, b"\xff" * 40):
            client.sendto(garbage, ("127.0.0.11", 53))
    assert str(ask(a.netns, "a").rr[0].rdata) == "172.18.0.2"
