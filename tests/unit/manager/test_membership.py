"""What is to be done so that Raft's members are the managers that the store wants: a table of facts."""

import asyncio

import msgspec
import pytest

from shoal.api.membership import at_port
from shoal.api.objects import ManagerInfo, Node, Task
from shoal.api.specs import NodeSpec, TaskSpec
from shoal.api.states import Role
from shoal.manager.membership import (
    HandOver,
    Record,
    Remove,
    Upkeep,
    join_of,
    manager_address,
    member_id,
    node_of,
    steps,
)
from shoal.manager.store.apply import apply
from shoal.manager.store.changes import Command, Create, encode_command
from shoal.manager.store.memory import MemoryStore
from shoal.manager.store.raft import Member, MembershipConflict, OutcomeUnknown
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
    assert at_port("2001:db8::1", 2377) == "[2001:db8::1]:2377"
    assert manager_address(Member("n.j", "[2001:db8::1]:2378")) == "[2001:db8::1]:2377"
    assert manager_address(Member("n.j", "192.0.2.1:12378")) == "192.0.2.1:12377"


# --- the loop ---


class FakeRaft:
    """Members in a list. `refusals` come before what is asked."""

    def __init__(self):
        self.me = member("m1")
        self.members = (self.me,)
        self.refusals = []
        self.asked = []

    async def remove_member(self, gone):
        self.asked.append(f"remove {gone}")
        if self.refusals:
            raise self.refusals.pop()
        self.members = tuple(each for each in self.members if each.id != gone)

    async def update_address(self, moved):
        self.asked.append(f"move {moved.id}")
        self.members = tuple(moved if each.id == moved.id else each for each in self.members)


class Store(MemoryStore):
    """Applies at once."""

    index = 0

    def put(self, *changes):
        self.index += 1
        command = Command(request_id=f"r{self.index}", changes=changes, at=1.0)
        return self.apply(self.index, encode_command(command))

    async def propose(self, changes):
        await asyncio.sleep(0)
        return [(changes[refusal.position], refusal) for refusal in self.put(*changes).refusals]


@pytest.fixture
async def upkeep():
    raft, store = FakeRaft(), Store()
    store.put(Create(record=node("m1", MANAGER, shown("m1"))), Create(record=node("m2", MANAGER)))
    one = Upkeep(raft)
    running = asyncio.create_task(one.run(store))
    await asyncio.sleep(0)
    yield one, raft, store
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_a_new_member_is_shown_also_when_other_things_happen_at_once(upkeep):
    one, raft, store = upkeep
    raft.members = (*raft.members, member("m2"))
    store.put(Create(record=Task(id="t1", spec=TaskSpec())))
    one.wake()
    await until(lambda: store.view().nodes["m2"].manager == shown("m2"))


async def test_a_node_that_changes_is_looked_at(upkeep):
    _, raft, store = upkeep
    raft.members = (*raft.members, member("m9"))
    store.put(Create(record=node("m5", WORKER)))
    await until(lambda: raft.members == (raft.me,))
    assert raft.asked == ["remove m9.j1"]


@pytest.mark.parametrize("refusal", [
    pytest.param(MembershipConflict("another change is under way"), id="not just now"),
    pytest.param(OutcomeUnknown("it did not come in time"), id="whether it was done is not known"),
])
async def test_what_is_refused_just_now_is_tried_again(upkeep, refusal):
    one, raft, _ = upkeep
    raft.members = (*raft.members, member("m9"))
    raft.refusals = [refusal]
    one.wake()
    await until(lambda: raft.members == (raft.me,))
    assert raft.asked == ["remove m9.j1"] * 2


async def test_a_leader_that_has_moved_says_so(upkeep):
    one, raft, store = upkeep
    raft.me = Member(raft.me.id, "192.0.2.77:2378")
    one.wake()
    await until(lambda: store.view().nodes["m1"].manager.addr == "192.0.2.77:2377")
    assert raft.members == (raft.me,)
