"""No address is given twice, and every one lies inside its subnet."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.api.errors import ShoalError, Unavailable
from shoal.overlay import ipam

subnets = st.sampled_from(["172.17.0.0/16", "10.1.2.0/28", "192.168.7.0/30", "fd00::/64", "fd00:1::/125"])


@given(subnets, st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=20))
def test_allocate(subnet: str, requests: list[int | None]) -> None:
    gateway, net, taken = ipam.first_host(subnet), ip_network(subnet), set()
    reserved = {net.network_address, *([net.broadcast_address] if net.version == 4 else [])}
    for number in requests:
        wanted = "" if number is None else str(net.network_address + number)
        try:
            address = ipam.allocate(subnet, gateway, taken, wanted)
        except Unavailable:
            assert len(taken) == net.num_addresses - len(reserved) - 1
            continue
        except ShoalError:
            assert wanted
            continue
        assert address not in taken and address != gateway
        assert ip_address(address) in net and ip_address(address) not in reserved
        taken.add(address)


@given(st.lists(st.sampled_from([str(pool) for pool in ipam.default_pools()] + ["172.16.0.0/12", "192.168.3.0/24"])))
def test_a_chosen_subnet_overlaps_nothing(used: list[str]) -> None:
    try:
        chosen = IPv4Network(ipam.choose_subnet(used))
    except Unavailable:
        assert "172.16.0.0/12" in used
        return
    assert not any(chosen.overlaps(IPv4Network(other)) for other in used)


@given(st.text("0123456789abcdef", min_size=10), st.lists(st.sampled_from(["fd00::/8", "fdab::/16", "2001:db8::/32"])))
def test_a_chosen_ipv6_subnet_is_local_and_overlaps_nothing(seed: str, used: list[str]) -> None:
    try:
        chosen = IPv6Network(ipam.choose_subnet6(seed, used))
    except Unavailable:
        assert {"fd00::/8", "fdab::/16"} & set(used)
        return
    assert chosen.subnet_of(IPv6Network("fd00::/8")) and chosen.prefixlen == 64
    assert not any(chosen.overlaps(IPv6Network(other)) for other in used)


@pytest.mark.parametrize("bad", ["", "x", "10.0.0.0/33", "10.0.0.1/24", "10.0.0.0/31", "fd00::/127"])
def test_bad_subnets(bad: str) -> None:
    with pytest.raises(ShoalError) as caught:
        ipam.parse_subnet(bad)
    assert caught.value.status == 400
