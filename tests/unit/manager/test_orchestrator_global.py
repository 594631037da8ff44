"""Global services, the enforcer of constraints, the reaper and lost nodes."""

import msgspec
import pytest

from shoal.api.objects import Task
from shoal.api.specs import NetworkAttachmentSpec, Placement, RestartPolicy, TaskSpec
from shoal.api.states import Availability, NodeState, TaskState
from shoal.manager.orchestrator.nodes import ORPHANED_AFTER_S
from shoal.manager.store.changes import Create, Delete, SetNodeStatus, Update
from tests.fakes.controlplane import ControlPlane, cluster, node, service

ZONE_A = Placement(constraints=("node.labels.zone == a",))


def plane(**fields: object) -> ControlPlane:
    control = ControlPlane()
    zones = {"n1": "a", "n2": "a", "n3": "b"}
    control.must(Create(record=cluster()), *(Create(record=node(key, labels={"zone": zones[key]})) for key in zones))
    control.must(Create(record=service(restart=RestartPolicy(delay_ns=0), **{"kind": "global", **fields})))
    control.converge()
    return control


def where(control: ControlPlane) -> list[str]:
    return sorted(task.node_id for task in control.running())


def respec(control: ControlPlane, node_id: str, **spec: object) -> None:
    stored = control.state.nodes[node_id]
    changed = msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, **spec))
    control.must(Update(record=changed, wanted=True))
    control.converge()


def set_state(control: ControlPlane, node_id: str, state: NodeState) -> None:
    status = control.state.nodes[node_id].status
    control.must(SetNodeStatus(id=node_id, status=msgspec.structs.replace(status, state=state)))
    control.converge()


@pytest.mark.parametrize(
    ("placement", "nodes"),
    [
        pytest.param(Placement(), ["n1", "n2", "n3"], id="every node"),
        pytest.param(ZONE_A, ["n1", "n2"], id="those that suit"),
        pytest.param(Placement(constraints=("node.id == none",)), [], id="none"),
    ],
)
def test_one_task_on_each_node_that_suits(placement, nodes):
    assert where(plane(placement=placement)) == nodes


def test_a_new_node_gets_its_task():
    control = plane()
    control.must(Create(record=node("n4")))
    control.converge()
    assert where(control) == ["n1", "n2", "n3", "n4"]


@pytest.mark.parametrize(
    ("availability", "nodes"),
    [(Availability.DRAIN, ["n2", "n3"]), (Availability.PAUSE, ["n1", "n2", "n3"])],
)
def test_a_drained_node_loses_its_task_and_a_paused_one_keeps_it(availability, nodes):
    control = plane()
    respec(control, "n1", availability=availability)
    assert where(control) == nodes
    respec(control, "n1", availability=Availability.ACTIVE)
    assert where(control) == ["n1", "n2", "n3"]


def test_a_node_that_comes_back_gets_a_fresh_task_once_the_old_one_has_stopped():
    control = plane()
    old = next(task for task in control.running() if task.node_id == "n1")
    set_state(control, "n1", NodeState.DOWN)
    assert where(control) == ["n2", "n3"]
    set_state(control, "n1", NodeState.READY)
    assert where(control) == ["n1", "n2", "n3"]
    assert control.state.tasks[old.id].status.state == TaskState.SHUTDOWN


@pytest.mark.parametrize("kind", ["global", "replicated"])
def test_a_label_that_changes_sends_tasks_away(kind):
    control = plane(kind=kind, replicas=2, placement=ZONE_A)
    assert where(control) == ["n1", "n2"]
    respec(control, "n1", labels={"zone": "b"})
    assert where(control) == (["n2"] if kind == "global" else ["n2", "n2"])
    respec(control, "n3", labels={"zone": "a"})
    assert where(control) == (["n2", "n3"] if kind == "global" else ["n2", "n2"])


def test_history_has_a_limit_and_the_oldest_goes_first():
    control = plane(kind="replicated")
    for _ in range(9):
        control.report(control.running()[0].id, TaskState.FAILED)
        control.converge()
    kept = control.tasks()
    assert len(kept) == 5
    assert len(control.running()) == 1
    assert min(task.id for task in kept) == "t000006"


def test_the_last_attempt_outlives_every_limit_so_that_its_slot_stays_finished():
    control = ControlPlane()
    control.must(Create(record=cluster(task_history_limit=0)), Create(record=node("n1")))
    control.must(Create(record=service(restart=RestartPolicy(condition="none"))))
    control.converge()
    control.report(control.running()[0].id, TaskState.COMPLETE)
    control.advance(60.0)
    (last,) = control.tasks()
    assert last.status.state == TaskState.COMPLETE


def test_tasks_of_a_removed_node_are_orphaned():
    control = plane(kind="replicated", replicas=3)
    lost = next(task for task in control.running() if task.node_id == "n1")
    set_state(control, "n1", NodeState.DOWN)
    assert control.state.tasks[lost.id].status.state == TaskState.RUNNING, "it may still run behind a cut"
    control.must(Delete(table="node", id="n1"))
    control.converge()
    assert control.state.tasks[lost.id].status.state == TaskState.ORPHANED
    assert len(control.running()) == 3


def test_tasks_of_a_node_that_is_down_for_a_day_are_orphaned():
    control = plane(kind="replicated", replicas=3)
    lost = next(task for task in control.running() if task.node_id == "n1")
    set_state(control, "n1", NodeState.DOWN)
    control.advance(ORPHANED_AFTER_S - 1.0)
    assert control.state.tasks[lost.id].status.state == TaskState.RUNNING
    control.advance(2.0)
    assert control.state.tasks[lost.id].status.state == TaskState.ORPHANED


def test_attachments_go_with_a_removed_node():
    control = plane()
    attachment = Task(
        id="a1", node_id="n1", spec=TaskSpec(attachment="container", networks=(NetworkAttachmentSpec(target="x"),))
    )
    control.must(Create(record=attachment))
    control.settle()
    assert "a1" in control.state.tasks
    control.must(Delete(table="node", id="n1"))
    control.settle()
    assert "a1" not in control.state.tasks
