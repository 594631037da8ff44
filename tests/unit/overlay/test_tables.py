"""The rules as text: what they say of networks, ports and services."""

from __future__ import annotations

import msgspec

from shoal.api.sandbox import PublishedPort
from shoal.overlay import hosttable, sandboxtable
from shoal.overlay.records import LocalNetwork
from shoal.overlay.sandboxtable import DropService, SetService

BRIDGE = LocalNetwork(id="1", name="bridge", driver="bridge", created="", subnet="172.17.0.0/16",
                      gateway="172.17.0.1", link="shoal0")
INTERNAL = LocalNetwork(id="2", name="inner", driver="bridge", created="", subnet="172.18.0.0/16",
                        gateway="172.18.0.1", link="br-2", internal=True)


def test_an_internal_network_is_neither_masqueraded_nor_forwarded() -> None:
    text = hosttable.table([BRIDGE, INTERNAL], [])
    assert 'ip saddr 172.17.0.0/16 oifname != "shoal0" masquerade' in text
    assert "ip saddr 172.18.0.0/16 oifname != " not in text
    assert 'iifname "br-2" oifname != "br-2" drop' in text


def test_a_port_on_one_address_and_on_all() -> None:
    ports = [PublishedPort(container_port=80, host_port=8080),
             PublishedPort(container_port=53, host_port=53, protocol="udp", host_ip="10.0.0.1")]
    assert hosttable.publish(ports, "172.17.0.2").splitlines() == [
        "add element inet shoal ports { tcp . 8080 : 172.17.0.2 . 80 }",
        "add element inet shoal address_ports { 10.0.0.1 . udp . 53 : 172.17.0.2 . 53 }"]
    assert hosttable.unpublish(ports[:1], "172.17.0.2").startswith("delete element")


def test_a_port_on_ipv6_too() -> None:
    ports = [PublishedPort(container_port=80, host_port=8080), PublishedPort(container_port=80, host_port=8080,
                                                                           host_ip="::")]
    assert hosttable.publish(ports, "172.17.0.2", "fd00::2").splitlines() == [
        "add element inet shoal ports { tcp . 8080 : 172.17.0.2 . 80 }",
        "add element inet shoal ports6 { tcp . 8080 : fd00::2 . 80 }",
        "add element inet shoal loop6 { tcp . 8080 }"]
    six = PublishedPort(container_port=80, host_port=80, host_ip="fd01::1")
    assert hosttable.unpublish([six], "172.17.0.2", "fd00::2").splitlines() == [
        "delete element inet shoal address_ports6 { fd01::1 . tcp . 80 : fd00::2 . 80 }"]


def test_ipv6_goes_out_under_the_hosts_address() -> None:
    dual = msgspec.structs.replace(BRIDGE, subnet6="fd00::/64")
    assert 'ip6 saddr fd00::/64 oifname != "shoal0" masquerade' in hosttable.table([dual], [])
    assert "ip6 saddr" not in hosttable.table([BRIDGE], [])


def test_a_service_gains_loses_and_goes() -> None:
    fresh = sandboxtable.commands([SetService("10.0.0.9", ("10.0.0.2", "10.0.0.3"))])
    assert "numgen random mod 2 map { 0 : 10.0.0.2, 1 : 10.0.0.3 }" in fresh and "goto s0a000009" in fresh
    one = sandboxtable.commands([SetService("10.0.0.9", ("10.0.0.2",), ("10.0.0.2", "10.0.0.3"))])
    assert one.startswith("flush chain") and "dnat ip to 10.0.0.2\n" in one and "add element" not in one
    none = sandboxtable.commands([SetService("10.0.0.9", (), ("10.0.0.2",))])
    assert "delete element inet shoal vips" in none and "add element inet shoal dead { 10.0.0.9 }" in none
    assert sandboxtable.commands([DropService("10.0.0.9", ())]) == "delete element inet shoal dead { 10.0.0.9 }\n"


def test_foreign_chains_that_drop_are_named() -> None:
    listing = """table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
}
table inet shoal {
	chain forward {
		type filter hook forward priority filter; policy accept;
	}
}"""
    assert hosttable.dropping_chains(listing) == ["ip filter FORWARD"]
