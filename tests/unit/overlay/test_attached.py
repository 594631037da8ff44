"""Where a sandbox stands on its networks, and which of them leads outside."""

from __future__ import annotations

import msgspec
import pytest

from shoal.api.errors import ShoalError
from shoal.api.sandbox import EndpointRequest, Sandbox
from shoal.overlay import attached, endpointopts
from shoal.overlay.records import Attached, LocalNetwork, SandboxRecord

RECORD = SandboxRecord(container_id="c" * 64, name="box", hostname="box", mode="networks", netns="/n",
                       sandbox=Sandbox(container_id="c" * 64, netns="/n"))


def end(network: str, gateway: str = "", priority: int = 0, *, driver: str = "bridge", gateway6: str = "",
        internal: bool = False, link: str = "eth0") -> Attached:
    return Attached(network_id=network, network_name=network, driver=driver, endpoint_id="e", link=link,
                    address="10.0.0.2", prefix_length=24, mac="", gateway=gateway, gateway6=gateway6,
                    internal=internal, host_link="v1" if driver == "bridge" else "",
                    request=EndpointRequest(network=network, gw_priority=priority))


@pytest.mark.parametrize(("ends", "gateways", "published"), [
    pytest.param([end("b", "1.0.0.1"), end("a", "2.0.0.1")], ("2.0.0.1",), "a", id="by name"),
    pytest.param([end("b", "1.0.0.1", 5), end("a", "2.0.0.1")], ("1.0.0.1",), "b", id="by priority"),
    pytest.param([end("b", "1.0.0.1"), end("a", internal=True)], ("1.0.0.1",), "b", id="internal leads nowhere"),
    pytest.param([end("b", "1.0.0.1"), end("a", "2.0.0.1", -1)], ("1.0.0.1",), "b", id="a priority below all"),
    pytest.param([end("a", "1.0.0.1"), end("b", "2.0.0.1", gateway6="fd00::1")], ("2.0.0.1", "fd00::1"), "b",
                 id="both families before one"),
    pytest.param([end("a", "1.0.0.1", driver="macvlan"), end("b", "2.0.0.1")], ("1.0.0.1",), None,
                 id="macvlan publishes nothing"),
    pytest.param([end("shoal_gwbridge", "1.0.0.1"), end("z", "2.0.0.1")], ("2.0.0.1",), "z", id="the gateway last"),
    pytest.param([end("a", internal=True)], (), None, id="no way out"),
    pytest.param([], (), None, id="nothing"),
])
def test_the_way_out(ends: list[Attached], gateways: tuple[str, ...], published: str | None) -> None:
    assert attached.gateways(ends) == gateways
    found = attached.outside(ends)
    assert (found.network_name if found else None) == published


def test_a_parent_without_a_router_is_a_way_out_all_the_same() -> None:
    assert attached.reaches_out([end("lan", driver="macvlan")])
    assert not attached.reaches_out([end("lan", driver="macvlan", internal=True)])


def test_names_of_links() -> None:
    two = msgspec.structs.replace(RECORD, attached=(end("a", link="eth0"), end("b", link="lan0")))
    wanted = EndpointRequest(network="x", driver_opts={endpointopts.LINK_NAME: "lan0"})
    assert attached.free_link(two, "eth", None) == "eth1"
    assert attached.free_link(two, "net", None) == "net0"
    assert attached.free_link(RECORD, "eth", wanted) == "lan0"
    with pytest.raises(ShoalError):
        attached.free_link(two, "eth", wanted)


def test_ipvlan_has_its_parents_mac() -> None:
    network = LocalNetwork(id="n", name="lan", driver="ipvlan", created="", subnet="10.0.0.0/24", link="eth0")
    assert attached.on_local(RECORD, network, "e" * 64, "10.0.0.2", "", EndpointRequest(network="lan")).mac == ""


def test_sysctls_of_a_link() -> None:
    options = {endpointopts.SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=2"}
    assert endpointopts.sysctls(options, "eth3") == {
        "net.ipv4.conf.eth3.log_martians": "1", "net.ipv6.conf.eth3.accept_ra": "2"}
    assert endpointopts.sysctls({}, "eth0") == {}


@pytest.mark.parametrize("text", ["net.ipv4.conf.eth0.x=1", "net.ipv4.ip_forward=1", "net.ipv4.conf.IFNAME.x",
                                  "kernel.conf.IFNAME.x=1", "net.ipv4.conf.IFNAME.a/../b=1"])
def test_sysctls_that_are_of_no_link(text: str) -> None:
    with pytest.raises(ShoalError) as caught:
        endpointopts.sysctls({endpointopts.SYSCTLS: text}, "eth0")
    assert caught.value.status == 400
