"""Replicated services: slots are filled, emptied and moved as they should be."""

import msgspec
import pytest

from shoal.api.objects import Service
from shoal.api.specs import SECOND_NS, RestartPolicy
from shoal.api.states import Availability, NodeState, TaskState
from shoal.manager.orchestrator.replicated import ReplicatedOrchestrator
from shoal.manager.store.changes import Create, Delete, SetNodeStatus, Update
from tests.fakes.controlplane import ControlPlane, cluster, node, service


def plane(*services: Service, nodes: int = 3, **limits: int) -> ControlPlane:
    control = ControlPlane(**limits)
    control.must(Create(record=cluster()), *(Create(record=node(f"n{number}")) for number in range(1, nodes + 1)))
    if services:
        control.must(*(Create(record=each) for each in services))
    return control


def change_service(control: ControlPlane, **spec: object) -> None:
    stored = control.state.services["s1"]
    control.must(
        Update(record=msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, **spec)), wanted=True)
    )


def scale(control: ControlPlane, replicas: int) -> None:
    mode = control.state.services["s1"].spec.mode
    change_service(control, mode=msgspec.structs.replace(mode, replicas=replicas))


def set_node(control: ControlPlane, node_id: str, state: NodeState) -> None:
    status = control.state.nodes[node_id].status
    control.must(SetNodeStatus(id=node_id, status=msgspec.structs.replace(status, state=state)))


def slots(control: ControlPlane) -> list[int]:
    return sorted(task.slot for task in control.live())


@pytest.mark.parametrize("replicas", [0, 1, 5, 200])
def test_every_replica_of_a_new_service_is_created_by_the_first_decision(replicas):
    control = plane(service(replicas=replicas))
    orchestrator = next(each for each in control.deciders if isinstance(each, ReplicatedOrchestrator))
    orchestrator.load(control.state, 0.0)
    orchestrator.decide(control.state, 0.0, 200)  # takes in the view
    created = [change.record for change in orchestrator.decide(control.state, 0.0, 200).changes]
    assert [task.slot for task in created] == list(range(1, replicas + 1))
    assert {task.desired for task in created} <= {TaskState.RUNNING}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(3, 5, id="up"),
        pytest.param(5, 2, id="down"),
        pytest.param(4, 0, id="to nothing"),
        pytest.param(3, 3, id="unchanged"),
        pytest.param(0, 450, id="over several turns"),
    ],
)
def test_scaling_leaves_the_lowest_slots_on_equal_nodes(before, after):
    control = plane(service(replicas=before), nodes=1)
    control.converge()
    scale(control, after)
    control.converge()
    assert slots(control) == list(range(1, after + 1))
    assert len(control.running()) == after
    assert len(control.tasks()) == after, "what was scaled away was removed once it had stopped"


def test_a_hole_is_filled_before_a_new_slot_is_opened():
    control = plane(service(replicas=3))
    control.converge()
    second = next(task for task in control.live() if task.slot == 2)
    control.must(Delete(table="task", id=second.id))
    control.converge()
    assert slots(control) == [1, 2, 3]


def test_scale_down_takes_first_what_does_not_run_then_from_the_fullest_node():
    control = plane(service(replicas=4), nodes=2)
    control.converge()
    waiting = next(task for task in control.live() if task.slot == 1)
    control.report(waiting.id, TaskState.FAILED)
    control.settle()  # its successor waits out the delay: slot 1 does not run
    scale(control, 2)
    control.converge()
    assert slots(control) == [2, 3]
    assert len({task.node_id for task in control.live()}) == 2


def test_a_settled_service_is_silent():
    control = plane(service(replicas=5))
    control.converge()
    index = control.index
    control.advance(100.0)
    assert control.index == index


def test_tasks_of_a_lost_node_are_replaced_elsewhere_at_once_and_stop_when_it_returns():
    control = plane(service(replicas=3))
    control.converge()
    lost = next(task for task in control.live() if task.node_id == "n1")
    set_node(control, "n1", NodeState.DOWN)
    control.converge()
    assert sorted(task.slot for task in control.running()) == [1, 2, 3]
    assert all(task.node_id != "n1" for task in control.running())
    assert control.state.tasks[lost.id].desired == TaskState.SHUTDOWN
    set_node(control, "n1", NodeState.READY)
    control.converge()
    assert control.state.tasks[lost.id].status.state == TaskState.SHUTDOWN


def test_a_drained_node_is_left_and_its_successors_wait_for_the_old_tasks_to_stop():
    control = plane(service(replicas=2), nodes=2)
    control.converge()
    stored = control.state.nodes["n1"]
    drained = msgspec.structs.replace(stored.spec, availability=Availability.DRAIN)
    control.must(Update(record=msgspec.structs.replace(stored, spec=drained), wanted=True))
    control.settle()
    successor = next(task for task in control.live() if task.status.state < TaskState.RUNNING)
    assert successor.node_id == "n2"
    assert successor.desired == TaskState.READY, "its predecessor still runs"
    control.converge()
    assert sorted(task.node_id for task in control.running()) == ["n2", "n2"]


@pytest.mark.parametrize(
    ("policy", "ends_as", "restarts"),
    [
        pytest.param(RestartPolicy(delay_ns=0), TaskState.FAILED, True, id="any, failed"),
        pytest.param(RestartPolicy(delay_ns=0), TaskState.COMPLETE, True, id="any, completed"),
        pytest.param(RestartPolicy(condition="on-failure", delay_ns=0), TaskState.FAILED, True, id="on failure"),
        pytest.param(
            RestartPolicy(condition="on-failure", delay_ns=0), TaskState.COMPLETE, False, id="on failure, completed"
        ),
        pytest.param(RestartPolicy(condition="none", delay_ns=0), TaskState.FAILED, False, id="none"),
        pytest.param(RestartPolicy(delay_ns=0), TaskState.REJECTED, True, id="any, rejected"),
    ],
)
def test_restart_condition(policy, ends_as, restarts):
    control = plane(service(restart=policy))
    control.converge()
    (first,) = control.live()
    control.report(first.id, ends_as)
    control.converge()
    assert bool(control.running()) == restarts
    assert control.state.tasks[first.id].desired == TaskState.SHUTDOWN
    tasks = control.state.tasks
    control.new_leader(ControlPlane().deciders)
    control.converge()
    assert control.state.tasks == tasks, "a new leader sees it the same way"


def test_a_task_that_failed_waits_for_the_delay_and_its_slot_stays_single():
    control = plane(service(restart=RestartPolicy(delay_ns=5 * SECOND_NS)))
    control.converge()
    (first,) = control.live()
    control.report(first.id, TaskState.FAILED)
    control.converge()
    (second,) = control.live()
    assert (second.slot, second.desired, second.start_after) == (1, TaskState.READY, 5.0)
    control.advance(4.9)
    assert control.live()[0].desired == TaskState.READY
    control.advance(0.2)
    control.converge()
    assert control.running()[0].id == second.id
    assert second.restart_count == 1


def test_a_task_that_fails_while_it_waits_is_not_tried_again_before_the_delay_is_over():
    control = plane(service(restart=RestartPolicy(delay_ns=5 * SECOND_NS)))
    control.converge()
    for _ in range(3):
        (task,) = control.live()
        control.report(task.id, TaskState.REJECTED)
        control.settle()
    assert len(control.tasks()) == 2
    control.advance(5.1)
    assert len(control.tasks()) == 3


def test_attempts_end_at_the_limit():
    control = plane(service(restart=RestartPolicy(delay_ns=0, max_attempts=2)))
    for _ in range(5):
        control.converge()
        for task in control.live():
            control.report(task.id, TaskState.FAILED)
    control.converge()
    assert not control.live()
    assert len(control.tasks()) == 3


def test_attempts_within_a_window_do_not_count_once_it_has_passed():
    policy = RestartPolicy(delay_ns=0, max_attempts=1, window_ns=10 * SECOND_NS)
    control = plane(service(restart=policy))
    control.converge()
    control.report(control.live()[0].id, TaskState.FAILED)
    control.advance(11.0)
    control.converge()
    control.report(control.live()[0].id, TaskState.FAILED)
    control.converge()
    assert control.running(), "the first restart is out of the window"
    control.report(control.live()[0].id, TaskState.FAILED)
    control.converge()
    assert not control.live(), "two within the window"


def test_a_removed_service_leaves_nothing_once_its_tasks_have_stopped():
    control = plane(service(replicas=3))
    control.converge()
    control.must(Delete(table="service", id="s1"))
    control.settle()
    assert {task.desired for task in control.tasks()} == {TaskState.REMOVE}
    control.converge()
    assert not control.state.tasks


def test_the_delay_of_a_restart_begins_anew_with_a_new_leader():
    control = plane(service(restart=RestartPolicy(delay_ns=5 * SECOND_NS)))
    control.converge()
    control.report(control.live()[0].id, TaskState.FAILED)
    control.settle()
    control.advance(4.0)
    control.new_leader(ControlPlane().deciders)
    control.now = 0.0
    control.advance(4.9)
    assert control.live()[0].desired == TaskState.READY
    control.advance(0.2)
    assert control.live()[0].desired == TaskState.RUNNING


def test_a_decision_that_lost_a_race_is_made_again():
    control = plane(service(replicas=1))
    orchestrator = control.deciders[0]
    control.converge()
    (task,) = control.live()
    control.report(task.id, TaskState.FAILED)
    events = control._pending[0]
    orchestrator.observe(events, control.state, control.now)
    control._pending[0] = []
    decision = orchestrator.decide(control.state, control.now, 200)
    control.must(Update(record=msgspec.structs.replace(control.state.tasks[task.id], restart_count=7)))
    outcome = control.commit(*decision.changes)
    assert [refusal.kind for refusal in outcome.refusals] == ["stale"]
    orchestrator.refused([(decision.changes[refusal.position], refusal) for refusal in outcome.refusals])
    control.settle()
    assert control.state.tasks[task.id].desired == TaskState.SHUTDOWN
    assert len(control.live()) == 1


def test_a_successor_that_fails_early_does_not_let_its_own_successor_pass_the_first_task():
    control = plane(service(replicas=1, restart=RestartPolicy(delay_ns=0)), nodes=2)
    control.converge()
    (first,) = control.running()
    stored = control.state.nodes[first.node_id]
    drained = msgspec.structs.replace(stored.spec, availability=Availability.DRAIN)
    control.must(Update(record=msgspec.structs.replace(stored, spec=drained), wanted=True))
    control.settle()
    control.report(control.live()[0].id, TaskState.REJECTED)
    control.settle()
    (third,) = control.live()
    assert third.desired == TaskState.READY, "the first task has not stopped yet"
    control.converge()
    assert [task.id for task in control.running()] == [third.id]
