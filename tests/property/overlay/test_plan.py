"""Carrying out a plan gives what is wanted, and planning again gives nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.api.messages import NetworkEndpoint, NetworkService
from shoal.overlay.cluster import Cluster, pick
from shoal.overlay.plan import (
    Forwarding,
    carry_out,
    lost_backends,
    plan_forwarding,
    plan_services,
    wanted_forwarding,
)
from shoal.overlay.sandboxtable import DropService, ServiceOp

OWN = "10.99.0.1"
addresses = st.integers(2, 9).map(lambda last: f"10.0.1.{last}")
macs = st.integers(2, 9).map(lambda last: f"02:42:0a:00:01:{last:02x}")
nodes = st.sampled_from(["", OWN, "10.99.0.2", "10.99.0.3"])
forwardings = st.builds(Forwarding, st.dictionaries(macs, nodes.filter(bool)), st.dictionaries(addresses, macs))
vips = st.integers(200, 205).map(lambda last: f"10.0.1.{last}")
services = st.dictionaries(vips, st.lists(addresses, unique=True, max_size=4).map(tuple))


@given(forwardings, forwardings)
def test_forwarding_converges(wanted: Forwarding, actual: Forwarding) -> None:
    carry_out(actual, plan_forwarding(wanted, actual))
    assert actual == wanted
    assert plan_forwarding(wanted, actual) == []


def after(actual: dict[str, tuple[str, ...]], ops: list[ServiceOp]) -> dict[str, tuple[str, ...]]:
    """What `ops` make of `actual`; each op must name what it changes truly."""
    result = dict(actual)
    for op in ops:
        assert result.get(op.vip) == op.was
        if isinstance(op, DropService):
            del result[op.vip]
        else:
            result[op.vip] = op.backends
    return result


@given(services, services)
def test_services_converge(wanted: dict[str, tuple[str, ...]], actual: dict[str, tuple[str, ...]]) -> None:
    ops = plan_services(wanted, actual)
    assert after(actual, ops) == wanted
    assert plan_services(wanted, wanted) == []
    lost = lost_backends(ops)
    for vip, backends in actual.items():
        for backend in backends:
            assert ((vip, backend) in lost) == (backend not in wanted.get(vip, ()))


@st.composite
def endpoints(draw: st.DrawFn) -> NetworkEndpoint:
    last = draw(st.integers(2, 7))
    return NetworkEndpoint(
        id=draw(st.sampled_from(["t1", "t2", "t3", "t4", "t5"])), network_id=draw(st.sampled_from(["n1", "n2"])),
        address=f"10.0.1.{last}", mac=f"02:42:0a:00:01:{last:02x}", node_id="n", node_addr=draw(nodes))


keys = st.tuples(st.sampled_from(["n1", "n2"]), st.sampled_from(["t1", "t2", "t3", "t4", "t5"]))
messages = st.lists(st.tuples(st.booleans(), st.lists(endpoints(), max_size=4), st.lists(keys, max_size=3)), max_size=8)


@given(messages)
def test_increments_end_where_the_whole_does(
    stream: list[tuple[bool, list[NetworkEndpoint], list[tuple[str, str]]]],
) -> None:
    """Planning only what each message touched keeps up with planning everything."""
    tables, applied = Cluster(), {"n1": Forwarding({}, {}), "n2": Forwarding({}, {})}
    for complete, told, removed in stream:
        changes = tables.apply(complete=complete, endpoints=told, removed_endpoints=removed)
        for network_id, actual in applied.items():
            touched, touched_macs = changes.addresses.get(network_id, set()), changes.macs.get(network_id, set())
            carry_out(actual, plan_forwarding(
                wanted_forwarding(tables.holders(network_id, touched), OWN),
                Forwarding(pick(actual.fdb, touched_macs), pick(actual.neighbours, touched))))
            assert actual == wanted_forwarding(tables.holders(network_id), OWN)


@given(messages)
def test_what_is_kept_on_disk_is_what_was_told(
    stream: list[tuple[bool, list[NetworkEndpoint], list[tuple[str, str]]]],
) -> None:
    tables = Cluster()
    for complete, told, removed in stream:
        tables.apply(complete=complete, endpoints=told, removed_endpoints=removed,
                     services=[NetworkService(id="s", network_id="n1", name="web", vip="10.0.1.200")])
        again = Cluster(tables.told())
        assert {key: table for key, table in again.endpoints.items() if table} == {
            key: table for key, table in tables.endpoints.items() if table}
        assert again.vips("n1") == tables.vips("n1")
        changes = again.apply(complete=True, networks=tables.networks.values(),
                              endpoints=[one for table in tables.endpoints.values() for one in table.values()],
                              services=[one for table in tables.services.values() for one in table.values()])
        assert not changes.endpoints and not changes.services
