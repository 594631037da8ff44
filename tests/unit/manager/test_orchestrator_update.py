"""Rolling updates: how many at once, in which order, and what a failure leads to."""

import msgspec
import pytest

from shoal.api.specs import SECOND_NS, ContainerSpec, Placement, PortConfig, RestartPolicy, ServiceSpec, UpdateConfig
from shoal.api.states import TaskState
from shoal.manager.store.changes import Create, Update
from tests.fakes.controlplane import ControlPlane, cluster, node, service


def plane(update: UpdateConfig | None = None, replicas: int = 4, nodes: int = 3, **fields: object) -> ControlPlane:
    control = ControlPlane()
    control.must(Create(record=cluster()), *(Create(record=node(f"n{number}")) for number in range(1, nodes + 1)))
    control.must(Create(record=service(replicas=replicas, update=update, restart=RestartPolicy(delay_ns=0), **fields)))
    control.converge()
    return control


def update_to(control: ControlPlane, image: str, **task: object) -> ServiceSpec:
    """As the API does it: the previous specification is kept, the status is cleared."""
    stored = control.state.services["s1"]
    fields = {"container": ContainerSpec(image=image), **task}
    spec = msgspec.structs.replace(stored.spec, task=msgspec.structs.replace(stored.spec.task, **fields))
    record = msgspec.structs.replace(
        stored, spec=spec, previous_spec=stored.spec, spec_version=control.index + 1, update_status=None
    )
    control.must(Update(record=record, wanted=True))
    return spec


def images(control: ControlPlane) -> list[str]:
    return [task.spec.container.image for task in control.live()]


def state_of(control: ControlPlane) -> str:
    status = control.state.services["s1"].update_status
    return status.state if status else ""


def in_flight(control: ControlPlane) -> int:
    return sum(1 for task in control.live() if task.status.state < TaskState.RUNNING)


@pytest.mark.parametrize("parallelism", [1, 2, 0])
@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_no_more_slots_than_allowed_are_replaced_at_once(parallelism, order):
    control = plane(UpdateConfig(parallelism=parallelism, order=order))
    seen = []
    control.after_commit.append(lambda state, events: seen.append(in_flight(control)))
    update_to(control, "web:2")
    control.converge()
    assert images(control) == ["web:2"] * 4
    assert max(seen) == (parallelism or 4)
    assert state_of(control) == "updating", "it is watched for a while"
    control.advance(5.1)
    assert state_of(control) == "completed"
    assert len(control.running()) == 4


def test_start_first_keeps_the_old_task_until_the_new_one_runs():
    control = plane(UpdateConfig(order="start-first"), replicas=1)
    (old,) = control.live()
    update_to(control, "web:2")
    control.settle()
    assert control.state.tasks[old.id].desired == TaskState.RUNNING
    assert len(control.live()) == 2
    new = next(task for task in control.live() if task.id != old.id)
    control.report(new.id, TaskState.RUNNING)
    control.settle()
    assert control.state.tasks[old.id].desired == TaskState.SHUTDOWN


def test_stop_first_starts_the_new_task_only_when_the_old_one_has_stopped():
    control = plane(replicas=1)
    (old,) = control.live()
    update_to(control, "web:2")
    control.settle()
    (new,) = control.live()
    assert new.desired == TaskState.READY
    control.report(old.id, TaskState.SHUTDOWN)
    control.settle()
    assert control.live()[0].desired == TaskState.RUNNING


def test_the_delay_separates_the_slots():
    control = plane(UpdateConfig(delay_ns=10 * SECOND_NS), replicas=3)
    update_to(control, "web:2")
    control.converge()
    assert sorted(images(control)) == ["web:1", "web:1", "web:2"]
    control.advance(9.9)
    control.converge()
    assert images(control).count("web:2") == 1
    control.advance(0.2)
    control.converge()
    assert images(control).count("web:2") == 2


def fail_new_tasks(control: ControlPlane, image: str = "web:2") -> None:
    """Tasks of an image never come up."""
    for _ in range(30):
        control.settle()
        bad = [task for task in control.live() if task.spec.container.image == image and not task.status.state.terminal]
        for task in bad:
            if task.status.state >= TaskState.ASSIGNED:
                control.report(task.id, TaskState.REJECTED, err="no such image")
        for task in control.tasks():
            if task.spec.container.image == image or task.status.state.terminal:
                continue
            wanted = TaskState.SHUTDOWN if task.desired > TaskState.RUNNING else TaskState.RUNNING
            if task.status.state != wanted and task.status.state >= TaskState.ASSIGNED:
                control.report(task.id, wanted)


def test_a_failed_update_pauses():
    control = plane(UpdateConfig(failure_action="pause"))
    update_to(control, "web:2")
    fail_new_tasks(control)
    assert state_of(control) == "paused"
    assert "due to failure or early termination of task" in control.state.services["s1"].update_status.message
    assert images(control).count("web:1") == 3


def test_a_failed_update_goes_on_where_the_user_says_so():
    control = plane(UpdateConfig(failure_action="continue"))
    update_to(control, "web:2")
    fail_new_tasks(control)
    assert "web:1" not in images(control)


def test_failures_up_to_the_ratio_are_borne():
    control = plane(UpdateConfig(failure_action="pause", max_failure_ratio=0.5))
    update_to(control, "web:2")
    failed = False
    for _ in range(100):
        control.settle()
        new = [task for task in control.live() if task.spec.container.image == "web:2"]
        if new and not failed and new[0].status.state >= TaskState.ASSIGNED:
            control.report(new[0].id, TaskState.FAILED)
            failed = True
        if not control.run_agents() and failed:
            break
    control.advance(6.0)
    assert state_of(control) == "completed"


def test_a_failed_update_rolls_back_and_a_failed_rollback_pauses():
    control = plane(UpdateConfig(failure_action="rollback"))
    before = control.state.services["s1"].spec
    version = control.state.services["s1"].meta.version
    update_to(control, "web:2")
    fail_new_tasks(control)
    stored = control.state.services["s1"]
    assert stored.spec == before
    assert stored.previous_spec is None
    assert stored.meta.version > version, "a client that read the failed specification is out of date"
    control.converge()
    control.advance(6.0)
    assert state_of(control) == "rollback_completed"
    assert images(control) == ["web:1"] * 4


def test_a_paused_update_stays_until_the_user_speaks():
    control = plane(UpdateConfig(failure_action="pause"))
    update_to(control, "web:2")
    fail_new_tasks(control)
    control.settle()
    index = control.index
    control.advance(60.0)
    assert state_of(control) == "paused"
    assert control.index == index
    update_to(control, "web:3")
    control.converge()
    control.advance(6.0)
    assert images(control) == ["web:3"] * 4
    assert state_of(control) == "completed"


def test_a_new_leader_carries_an_update_on():
    control = plane(UpdateConfig(parallelism=1, delay_ns=SECOND_NS))
    update_to(control, "web:2")
    control.converge()
    control.new_leader(ControlPlane().deciders)
    for _ in range(8):
        control.converge()
        control.advance(1.0)
    control.advance(6.0)
    assert images(control) == ["web:2"] * 4
    assert state_of(control) == "completed"


@pytest.mark.parametrize(
    ("constraint", "moves"),
    [pytest.param("node.id != n9", False, id="still suits"), pytest.param("node.id == n1", True, id="suits no more")],
)
def test_a_change_of_placement_alone_moves_only_what_it_must(constraint, moves):
    control = plane(replicas=3)
    before = {task.id for task in control.live()}
    update_to(control, "web:1", placement=Placement(constraints=(constraint,)))
    control.converge()
    control.advance(6.0)
    after = {task.id for task in control.live()}
    assert (after != before) == moves
    if moves:
        assert {task.node_id for task in control.running()} == {"n1"}


def test_force_update_replaces_everything():
    control = plane(replicas=2)
    before = {task.id for task in control.live()}
    update_to(control, "web:1", force_update=1)
    control.converge()
    assert not before & {task.id for task in control.live()}


def test_a_host_port_that_changes_replaces_tasks():
    control = plane(replicas=1)
    (old,) = control.live()
    stored = control.state.services["s1"]
    port = PortConfig(target_port=80, published_port=8080, publish_mode="host")
    endpoint = msgspec.structs.replace(stored.spec.endpoint, ports=(port,))
    spec = msgspec.structs.replace(stored.spec, endpoint=endpoint)
    control.must(Update(record=msgspec.structs.replace(stored, spec=spec), wanted=True))
    control.converge()
    (new,) = control.live()
    assert new.id != old.id
    assert new.ports == (port,)


def test_scaling_starts_no_update():
    control = plane(replicas=2)
    stored = control.state.services["s1"]
    mode = msgspec.structs.replace(stored.spec.mode, replicas=4)
    spec = msgspec.structs.replace(stored.spec, mode=mode)
    control.must(Update(record=msgspec.structs.replace(stored, spec=spec), wanted=True))
    control.converge()
    assert state_of(control) == ""
