"""Whatever happens: what a node was told first and since adds up to what it would be told now."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.api.messages import MAX_FRAME_BYTES, Assignments, to_agent
from shoal.api.states import NodeState, TaskState
from shoal.manager.dispatcher.frames import frames
from shoal.manager.store.changes import Create, Update
from tests.unit.manager.dispatcher.records import Cluster, Memory, network, node, service, task

NODES = [f"n{number}" for number in range(4)]
NETWORKS = [f"w{number}" for number in range(3)]
SERVICES = [f"s{number}" for number in range(3)]
MAX_TASKS = 8

KINDS = ["task", "task", "task", "status", "status", "status", "status", "want", "drop-task", "node", "network",
         "drop-network", "service", "drop-service", "connect", "disconnect", "round", "round", "round"]


def some(chance: Any, of: list[str]) -> list[str]:
    return [each for each in of if chance.random() < 0.5]


class World(Cluster):
    def __init__(self) -> None:
        super().__init__(*(node(each) for each in NODES), *(network(each) for each in NETWORKS),
                         *(service(each, *NETWORKS) for each in SERVICES))
        self.agents: dict[str, Memory] = {}
        self.minted = 0

    def step(self, what: str, chance: Any) -> None:
        view, node_id = self.view, chance.choice(NODES)
        task_id = chance.choice(sorted(view.tasks) or ["none"])
        known = view.tasks.get(task_id)
        if what == "task" and len(view.tasks) < MAX_TASKS:
            self.minted += 1
            task_id = f"t{self.minted}"
            state, desired = chance.choice([TaskState.PENDING, TaskState.ASSIGNED]), chance.choice(
                [TaskState.READY, TaskState.RUNNING])
            self.apply(Create(record=task(task_id, chance.choice([*NODES, ""]), *some(chance, NETWORKS),
                                          service_id=chance.choice(SERVICES), state=state, desired=desired)))
        elif what == "status" and known is not None:
            above = [each for each in TaskState if each >= known.status.state][:4]
            self.apply(self.status(task_id, chance.choice(above), chance.choice(["", "c" * 64])))
        elif what == "want" and known is not None:
            home = known.node_id or chance.choice(NODES)
            self.apply(Update(record=msgspec.structs.replace(
                known, node_id=home, desired=chance.choice([each for each in TaskState if each >= known.desired]))))
        elif what == "drop-task":
            self.apply(self.gone("task", task_id))
        elif what == "node":
            state = chance.choice([NodeState.DOWN, NodeState.READY])
            self.apply(self.node_state(node_id, state, f"192.0.2.{chance.randrange(9)}"))
        elif what in ("network", "service"):
            self.put(what, chance)
        elif what.startswith("drop-"):
            table = what[5:]
            self.apply(self.gone(table, chance.choice(NETWORKS if table == "network" else SERVICES)))
        elif what == "connect":
            self.agents[node_id] = Memory().take(self.assigner.complete(node_id))
        elif what == "disconnect":
            self.agents.pop(node_id, None)
            self.assigner.disconnect(node_id)
        elif what == "round":
            self.tell()

    def put(self, table: str, chance: Any) -> None:
        if table == "network":
            record: Any = network(chance.choice(NETWORKS), labels={"x": str(chance.randrange(3))})
        else:
            record = service(chance.choice(SERVICES), *some(chance, NETWORKS), mode=chance.choice(["vip", "dnsrr"]))
        stored = self.view.get(table, record.id)
        if stored is None:
            self.apply(Create(record=record))
        else:
            self.apply(Update(record=msgspec.structs.replace(record, meta=stored.meta)))

    def tell(self) -> None:
        found = self.round().differences
        assert found.keys() <= self.agents.keys()
        for node_id, difference in found.items():
            assert difference != Assignments(sequence=0), "nobody is told nothing"
            self.agents[node_id].take(difference)
        for node_id, agent in self.agents.items():
            assert agent.facts() == Memory().take(self.assigner.complete(node_id)).facts()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(10, 120))
def test_increments_add_up_to_the_complete(seed, length):
    chance = random.Random(seed)
    world = World()
    for node_id in NODES[1:]:
        world.agents[node_id] = Memory().take(world.assigner.complete(node_id))
    for _ in range(length):
        world.step(chance.choice(KINDS), chance)
    world.tell()
    fresh = Cluster(*(each for table in ("node", "network", "service", "task")
                      for each in world.view.table(table).values()))
    for node_id, agent in world.agents.items():
        told = Memory().take(fresh.assigner.complete(node_id)).facts()
        mine = agent.facts()
        assert set(mine.pop("tasks")) == set(told.pop("tasks"))
        assert mine == told, "nothing is remembered that is not in the store"


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.integers(0, 40), st.integers(0, 6), st.integers(900, 4000), st.booleans())
def test_a_message_in_frames_says_the_same(tasks, endpoints, services, limit, complete):
    records = [node("n1"), node("n2"), network("w1"), *(service(f"s{number}", "w1") for number in range(services))]
    records += [task(f"t{number}", "n1") for number in range(tasks)]
    records += [task(f"t{100 + number}", "n2", "w1") for number in range(endpoints)]
    cluster = Cluster(*records, task("t99", "n1", "w1"))
    message = msgspec.structs.replace(cluster.assigner.complete("n1"), complete=complete)
    limit = max(limit, 500 * (tasks + 2) if complete else 0)
    found = frames(message, 7, limit)
    agent = Memory()
    for number, frame in enumerate(found):
        assert len(frame) <= limit
        part = to_agent.decode(frame)
        assert isinstance(part, Assignments)
        assert (part.sequence, part.complete) == (7 + number, complete and number == 0)
        agent.take(part)
        if complete:
            assert len(agent.tasks) == tasks + 1, "an agent removes what a complete message does not name"
    assert agent.facts() == Memory().take(message).facts()
    assert len(frames(message, 7, MAX_FRAME_BYTES)) == 1
