"""Which networks of the host's own may be made and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.api.errors import ShoalError
from shoal.overlay.localnets import LocalNetworks
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


def test_create_twice_and_remove(nets: LocalNetworks) -> None:
    made = nets.create(LocalNetworkSpec(name="mine", subnet="10.9.0.0/24"), [])
    assert made.gateway == "10.9.0.1" and len(made.link) == 15
    with pytest.raises(ShoalError) as caught:
        nets.create(LocalNetworkSpec(name="mine"), [])
    assert caught.value.status == 409
    nets.remove(nets.resolve(made.id[:8]))
    assert nets.named("mine") is None
    with pytest.raises(ShoalError) as caught:
        nets.remove(nets.resolve("bridge"))
    assert caught.value.status == 403
