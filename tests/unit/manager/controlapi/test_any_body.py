"""Whatever a client puts where: it is stored as it will be shown, or refused as the client's own mistake."""

import copy
import json
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.api.errors import ShoalError
from shoal.api.specs import ClusterSpec, NodeSpec
from shoal.api.wire import decode
from shoal.manager.controlapi.wire_network import NetworkWire, network_spec
from shoal.manager.controlapi.wire_node import NodeSpecWire, node_spec
from shoal.manager.controlapi.wire_service import ServiceSpecWire, service_spec, service_spec_wire
from shoal.manager.controlapi.wire_swarm import SwarmSpecWire, cluster_spec, swarm_spec_json
from tests.unit.manager.controlapi.test_wire import FULL, NETWORK, SWARM

NODE = {"Name": "n", "Labels": {"a": "b"}, "Role": "manager", "Availability": "drain"}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.sampled_from([0, 1, -1, (1 << 63) - 1, 1 << 63, 1 << 64, 10**9])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "host", "/", "\0", "start-first", "10.0.0.0/8", "node.id==x", "rollback"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


INTEGERS = st.integers(-(1 << 70), 1 << 70) | st.integers(-2, 1 << 33)
SAME_KIND = {bool: st.booleans(), int: INTEGERS, str: st.text(max_size=8), float: st.floats(0, 1.1)}


def places(value, path=()):
    """The path of every value within a body."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@st.composite
def spoiled(draw, body):
    """The body with up to three of its values exchanged for something else."""
    body = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from([path for path in places(body) if path]))
        at = body
        for key in parents:
            at = at[key]
        alike = SAME_KIND.get(type(at[last]))
        at[last] = draw(VALUES if alike is None or draw(st.booleans()) else alike)
    return body


def service(raw):
    spec = service_spec(decode(raw, ServiceSpecWire), (1, 50))
    again = msgspec.json.encode(service_spec_wire(spec))
    assert service_spec(decode(again, ServiceSpecWire), (1, 50)) == spec
    return spec


def swarm(raw):
    spec = cluster_spec(decode(raw, SwarmSpecWire), ClusterSpec())
    assert cluster_spec(decode(msgspec.json.encode(swarm_spec_json(spec)), SwarmSpecWire), ClusterSpec()) == spec
    return spec


READERS = {
    "service": (FULL, service),
    "network": (NETWORK, lambda raw: network_spec(decode(raw, NetworkWire))),
    "node": (NODE, lambda raw: node_spec(decode(raw, NodeSpecWire), NodeSpec())),
    "swarm": (SWARM, swarm),
}


@pytest.mark.parametrize("kind", READERS)
def test_any_body(kind):
    body, reader = READERS[kind]
    taken = refused = 0

    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(spoiled(body))
    def check(value):
        nonlocal taken, refused
        try:
            spec = reader(json.dumps(value).encode())
        except ShoalError as error:
            refused += 1
            assert error.status in (400, 501), error
            return
        taken += 1
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=type(spec)) == spec

    check()
    assert taken > 20 and refused > 20, (taken, refused)  # it tries both


def test_depth_is_bounded():
    for depth in (100, sys.getrecursionlimit() * 2):
        for raw in (b"[" * depth, b'{"Labels":' * depth, b'{"TaskTemplate":' * depth + b"1" + b"}" * depth):
            with pytest.raises(ShoalError):
                service(raw)
