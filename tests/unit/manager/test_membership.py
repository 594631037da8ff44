"""What is to be done so that Raft's members are the managers that the store wants: a table of facts."""

import msgspec
import pytest

from shoal.api.objects import ManagerInfo, Node
from shoal.api.specs import NodeSpec
from shoal.api.states import Role
from shoal.manager.membership import (
    HandOver,
    Record,
    Remove,
    address,
    join_of,
    manager_address,
    member_id,
    node_of,
    steps,
)
from shoal.manager.store.apply import apply
from shoal.manager.store.changes import Command, Create
from shoal.manager.store.raft import Member
from shoal.manager.store.state import State

MANAGER, WORKER = Role.MANAGER, Role.WORKER


def member(name, join="j1"):
    return Member(member_id(name, join), f"192.0.2.{name[1:]}:2378")


def shown(name, join="j1"):
    return ManagerInfo(raft_id=join, addr=f"192.0.2.{name[1:]}:2377")


def node(name, wanted, info=None):
    return Node(id=name, spec=NodeSpec(role=wanted), manager=info)


def view_of(*nodes):
    changes = tuple(Create(record=each) for each in nodes)
    return apply(State(), 1, Command(request_id="r", changes=changes, at=1.0)).state


def told(found):
    """The steps in words."""
    words = []
    for step in found:
        match step:
            case Remove(member=gone, why=why):
                words.append(f"remove {gone}: {why}")
            case HandOver():
                words.append("hand over")
            case Record(node=changed):
                words.append(f"record {changed.id} {changed.manager.raft_id if changed.manager else None}")
    return words


@pytest.mark.parametrize(("nodes", "members", "expected"), [
    pytest.param([node("m1", MANAGER, shown("m1"))], [member("m1")], [], id="nothing to do"),
    pytest.param([node("m1", MANAGER, shown("m1")), node("m2", MANAGER)], [member("m1"), member("m2")],
                 ["record m2 j1"], id="shows who was added"),
    pytest.param([node("m1", MANAGER, shown("m1")), node("m2", MANAGER, shown("m2"))],
                 [member("m1"), member("m2", "j2")], ["record m2 j2"], id="shows another join"),
    pytest.param([node("m1", MANAGER, shown("m1")), node("m2", WORKER, shown("m2"))], [member("m1"), member("m2")],
                 ["remove m2.j1: it was demoted"], id="removes who was demoted"),
    pytest.param([node("m1", MANAGER, shown("m1")), node("m2", WORKER, shown("m2"))], [member("m1")],
                 ["record m2 None"], id="then shows it no more"),
    pytest.param([node("m1", MANAGER, shown("m1"))], [member("m1"), member("m2")],
                 ["remove m2.j1: its node was removed"], id="removes whose node is gone"),
    pytest.param([node("m1", WORKER, shown("m1")), node("m2", MANAGER, shown("m2"))], [member("m1"), member("m2")],
                 ["hand over"], id="hands over when it was demoted itself"),
    pytest.param([node("m1", WORKER, shown("m1"))], [member("m1")], [], id="the last one stays"),
    pytest.param([node("m1", MANAGER, shown("m1")), node("m2", MANAGER)], [member("m1")], [],
                 id="who has not come yet is waited for"),
])
def test_steps(nodes, members, expected):
    found = steps(view_of(*nodes), tuple(members), "m1.j1")
    assert told(found) == expected


def test_once_done_nothing_is_left():
    nodes = [node("m1", MANAGER), node("m2", WORKER, shown("m2")), node("m3", MANAGER, shown("m3", "old"))]
    members = tuple(member(name) for name in ("m1", "m2", "m3"))
    records = {each.id: each for each in nodes}
    for _ in range(10):
        found = steps(view_of(*records.values()), members, "m1.j1")
        if not found:
            break
        match found[0]:
            case Remove(member=gone):
                members = tuple(each for each in members if each.id != gone)
            case Record(node=changed):
                records[changed.id] = msgspec.structs.replace(changed)
    assert found == []
    assert [each.id for each in members] == ["m1.j1", "m3.j1"]
    assert {each.id: each.manager for each in records.values()} == {
        "m1": shown("m1"), "m2": None, "m3": shown("m3")}


def test_names_and_addresses():
    assert (node_of("n.a-b"), join_of("n.a-b")) == ("n", "a-b")
    assert address("2001:db8::1", 2377) == "[2001:db8::1]:2377"
    assert manager_address(Member("n.j", "[2001:db8::1]:2378")) == "[2001:db8::1]:2377"
    assert manager_address(Member("n.j", "192.0.2.1:2378")) == "192.0.2.1:2377"
