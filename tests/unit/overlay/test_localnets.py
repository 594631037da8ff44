"""Which networks of the host's own may be made and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.api.errors import ShoalError
from shoal.overlay.localnets import LocalNetworks
from shoal.overlay.localspecs import vlan_of
from shoal.overlay.records import LocalNetworkSpec


@pytest.fixture
def nets(tmp_path: Path) -> LocalNetworks:
    made = LocalNetworks(tmp_path / "networks")
    made.load(["172.17.0.0/16"])
    return made


def test_the_default_bridge_avoids_what_is_in_use_and_is_found_again(nets: LocalNetworks, tmp_path: Path) -> None:
    bridge = nets.resolve("bridge")
    assert (bridge.subnet, bridge.gateway, bridge.link) == ("172.18.0.0/16", "172.18.0.1", "shoal0")
    again = LocalNetworks(tmp_path / "networks")
    again.load([])
    assert again.by_id == nets.by_id


def test_a_damaged_record_is_moved_aside(nets: LocalNetworks, tmp_path: Path) -> None:
    (tmp_path / "networks/bad.json").write_text("{")
    again = LocalNetworks(tmp_path / "networks")
    again.load([])
    assert again.by_id == nets.by_id
    assert (tmp_path / "networks/bad.bad").exists()


@pytest.mark.parametrize(("spec", "status"), [
    pytest.param({"name": ""}, 400, id="no name"),
    pytest.param({"name": "a/b"}, 400, id="bad name"),
    pytest.param({"name": "bridge"}, 403, id="predefined"),
    pytest.param({"name": "x", "driver": "host"}, 403, id="a second host network"),
    pytest.param({"name": "x", "driver": "weave"}, 404, id="no such driver"),
    pytest.param({"name": "  "}, 400, id="a blank name"),
    pytest.param({"name": "x", "subnet": "10.9.0.0/24", "reserved": {"a": "10.8.0.1"}}, 400, id="reserved outside"),
    pytest.param({"name": "x", "subnet6": "10.9.0.0/24"}, 400, id="IPv4 for IPv6"),
    pytest.param({"name": "x", "subnet": "fd00::/64"}, 400, id="IPv6 for IPv4"),
    pytest.param({"name": "x", "subnet6": "fd00::/64", "gateway6": "fd01::1"}, 400, id="IPv6 gateway outside"),
    pytest.param({"name": "x", "options": {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}}, 501, id="routed"),
    pytest.param({"name": "x", "options": {"com.docker.network.bridge.inhibit_ipv4": "true"}}, 501, id="no gateway"),
    pytest.param({"name": "x", "options": {"com.docker.network.bridge.host_binding_ipv4": "here"}}, 400, id="binding"),
    pytest.param({"name": "x", "options": {"com.docker.network.container_iface_prefix": "a/b"}}, 400, id="prefix"),
    pytest.param({"name": "x", "driver": "macvlan", "options": {"parent": "lo"}}, 400, id="loopback as parent"),
    pytest.param({"name": "x", "driver": "macvlan", "options": {"macvlan_mode": "x"}}, 400, id="no such mode"),
    pytest.param({"name": "x", "driver": "ipvlan", "options": {"ipvlan_mode": "l3"}}, 501, id="layer 3"),
    pytest.param({"name": "x", "subnet": "10.0.0.0/99"}, 400, id="bad subnet"),
    pytest.param({"name": "x", "subnet": "172.18.3.0/24"}, 403, id="overlap"),
    pytest.param({"name": "x", "subnet": "10.9.0.0/24", "gateway": "10.8.0.1"}, 400, id="gateway outside"),
    pytest.param({"name": "x", "subnet": "10.9.0.0/24", "ip_range": "10.8.0.0/28"}, 400, id="range outside"),
    pytest.param({"name": "x", "options": {"com.docker.network.driver.mtu": "big"}}, 400, id="bad MTU"),
    pytest.param({"name": "x", "options": {"com.docker.network.bridge.name": "sixteen-letters-"}}, 400, id="long link"),
    pytest.param({"name": "x", "options": {"com.docker.network.bridge.name": "shoal0"}}, 409, id="link in use"),
    pytest.param({"name": "x", "options": {"com.docker.network.bridge.enable_icc": "maybe"}}, 400, id="bad flag"),
])
def test_refused_and_nothing_changed(nets: LocalNetworks, spec: dict[str, object], status: int) -> None:
    before = dict(nets.by_id)
    with pytest.raises(ShoalError) as caught:
        nets.create(LocalNetworkSpec(**spec), [])  # type: ignore[arg-type]
    assert caught.value.status == status
    assert nets.by_id == before


def test_create_twice_and_remove(nets: LocalNetworks, tmp_path: Path) -> None:
    made = nets.create(LocalNetworkSpec(name="mine", subnet="10.9.0.0/24"), [])
    assert made.gateway == "10.9.0.1" and len(made.link) == 15
    with pytest.raises(ShoalError) as caught:
        nets.create(LocalNetworkSpec(name="mine"), [])
    assert caught.value.status == 409
    nets.remove(nets.resolve(made.id[:8]))
    assert nets.named("mine") is None
    crashed = LocalNetworks(tmp_path / "networks")
    crashed.load([])
    assert crashed.named("mine") == made  # its bridge may still be there: whole again, rather than leaked
    nets.forget(made)
    crashed.load([])
    assert crashed.named("mine") is None
    with pytest.raises(ShoalError) as caught:
        nets.remove(nets.resolve("bridge"))
    assert caught.value.status == 403


def test_drivers_with_a_parent(nets: LocalNetworks) -> None:
    alone = nets.create(LocalNetworkSpec(name="alone", driver="macvlan"), [])
    assert (alone.internal, alone.foreign, alone.link) == (True, False, f"dm-{alone.id[:12]}")
    on_eth0 = LocalNetworkSpec(name="lan", driver="macvlan", subnet="10.9.0.0/24", options={"parent": "eth0"})
    lan = nets.create(on_eth0, [])
    assert (lan.internal, lan.foreign, lan.link, lan.mode, lan.gateway) == (False, True, "eth0", "bridge", "")
    nets.create(LocalNetworkSpec(name="lan2", driver="macvlan", subnet="10.8.0.0/24", gateway="10.8.0.9",
                                 options={"parent": "eth0", "macvlan_mode": "vepa"}), [])
    for options in ({"parent": "eth0", "macvlan_mode": "passthru"}, {"parent": "eth0"}):
        driver = "macvlan" if "macvlan_mode" in options else "ipvlan"
        with pytest.raises(ShoalError) as caught:
            nets.create(LocalNetworkSpec(name="x", driver=driver, options=options), [])
        assert caught.value.status == 403


@pytest.mark.parametrize(("name", "vlan"), [
    ("eth0.10", ("eth0", 10)), ("eth0", None), ("eth0.x", None), ("a.b.1", None),
])
def test_the_vlan_that_a_name_says(name: str, vlan: tuple[str, int] | None) -> None:
    assert vlan_of(name) == vlan


def test_there_is_no_vlan_beyond_4094() -> None:
    with pytest.raises(ShoalError):
        vlan_of("eth0.4095")


def test_ipv6_is_given_or_chosen_for_each_network(nets: LocalNetworks) -> None:
    one = nets.create(LocalNetworkSpec(name="one", ipv6=True), [])
    two = nets.create(LocalNetworkSpec(name="two", ipv6=True), [])
    assert one.subnet6 != two.subnet6 and one.subnet6.startswith("fd") and one.subnet6.endswith("/64")
    assert one.gateway6 == one.subnet6.replace("::/64", "::1")
    with pytest.raises(ShoalError) as caught:
        nets.create(LocalNetworkSpec(name="three", subnet6=one.subnet6), [])
    assert caught.value.status == 403
