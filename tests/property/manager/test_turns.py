"""A scale to 100,000 tasks: every turn stays short, so no heartbeat of Raft's is late and no election begins.

A turn is measured by what it does, not by the clock: the calls that it makes are
counted, and a machine that is slow for a moment changes nothing. At some ten
million calls a second (this is measured in `make bench`) 60,000 calls are a good 10 ms.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import msgspec
import pytest

from shoal.api.states import NodeState, TaskState
from shoal.manager.controlloop import BATCH
from shoal.manager.deciders import deciders
from shoal.manager.store.changes import Create, SetNodeStatus, Update
from tests.fakes.controlplane import ControlPlane, cluster, minter, node, service

TASKS = 100_000
NODES = 1_000
MOST_CALLS = 60_000
SAMPLE = 16


class Counted(ControlPlane):
    """Counts the calls of every sampled turn: one in `SAMPLE` steadily, and all of the first ones of a phase."""

    def __init__(self) -> None:
        super().__init__(deciders(minter()), limit=BATCH)
        self.turns = 0
        self.worst = (0, "")

    def decide(self, position: int) -> bool:
        self.turns += 1
        if self.turns % SAMPLE and self.turns > 100:
            return super().decide(position)
        calls, done = counted(lambda: super(Counted, self).decide(position))
        self.worst = max(self.worst, (calls, self.deciders[position].name))
        return done

    def phase(self) -> None:
        self.turns = 0
        self.worst = (0, "")
        self.largest_decision = 0
        self.settle()
        assert self.worst[0] <= MOST_CALLS, self.worst
        assert self.largest_decision <= 2 * BATCH


def counted(action: Callable[[], bool]) -> tuple[int, bool]:
    """How many calls (of Python and of C) an action makes, and its result."""
    calls = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        result = action()
    finally:
        sys.setprofile(None)
    return calls, result


def scale(control: ControlPlane, replicas: int) -> None:
    stored = control.state.services["s1"]
    mode = msgspec.structs.replace(stored.spec.mode, replicas=replicas)
    spec = msgspec.structs.replace(stored.spec, mode=mode)
    control.must(Update(record=msgspec.structs.replace(stored, spec=spec), wanted=True))


@pytest.mark.timeout(240)
def test_a_scale_to_100_000_tasks_is_made_in_short_turns():
    control = Counted()
    control.must(Create(record=cluster()), *(Create(record=node(f"n{number:04d}")) for number in range(NODES)))
    control.must(Create(record=service(replicas=0)))
    control.phase()
    scale(control, TASKS)
    control.phase()
    assert len(control.state.tasks) == TASKS
    assert all(task.status.state == TaskState.ASSIGNED for task in control.state.tasks.values())
    control.new_leader(deciders(minter("u")))
    control.phase()
    status = control.state.nodes["n0000"].status
    control.must(SetNodeStatus(id="n0000", status=msgspec.structs.replace(status, state=NodeState.DOWN)))
    control.phase()
    assert all(task.node_id != "n0000" for task in control.live())
    scale(control, TASKS // 2)
    control.phase()
    assert len(control.live()) == TASKS // 2
