"""Which node a task gets, and the words for it when there is none."""

import msgspec
import pytest

from shoal.api.errors import InvalidArgument
from shoal.api.objects import Node, Task, TaskStatus
from shoal.api.specs import (
    SECOND_NS,
    ContainerSpec,
    EndpointSpec,
    Mount,
    Placement,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    TaskSpec,
)
from shoal.api.states import Availability, NodeState, Role, TaskState
from shoal.manager.scheduler.constraints import node_satisfies, parse_constraints
from shoal.manager.scheduler.nodeset import MANY_FAILURES, NodeSet
from shoal.manager.scheduler.scheduler import group_of, place
from shoal.manager.store.changes import Create, Delete, SetNodeStatus, SetTaskStatus, Update
from tests.fakes.controlplane import ControlPlane, cluster, node, service

MIB = 1 << 20


def nodes(*records: Node) -> NodeSet:
    known = NodeSet()
    for record in records:
        known.put(record)
    return known


def task(task_id: str = "t1", service_id: str = "s1", **fields: object) -> Task:
    spec = {key: fields.pop(key) for key in ("placement", "resources", "container") if key in fields}
    spec.setdefault("container", ContainerSpec(image="web"))
    return Task(
        id=task_id, service_id=service_id, slot=1, spec=TaskSpec(**spec), status=TaskStatus(state=TaskState.PENDING),
        **fields,
    )


def reserving(memory_mib: int = 0, cpus: int = 0, **generic: int) -> ResourceRequirements:
    return ResourceRequirements(
        reservations=Resources(memory_bytes=memory_mib * MIB, nano_cpus=cpus * SECOND_NS, generic=generic)
    )


def held(task_id: str, node_id: str, service_id: str = "s1", **fields: object) -> Task:
    return msgspec.structs.replace(
        task(task_id, service_id, **fields), node_id=node_id, status=TaskStatus(state=TaskState.RUNNING)
    )


SMALL = {"memory_bytes": 100 * MIB}
DRAINED = {"availability": Availability.DRAIN}


@pytest.mark.parametrize(
    ("candidate", "records", "reason"),
    [
        pytest.param(task(), [], "no suitable node", id="no nodes"),
        pytest.param(
            task(), [node("a", **DRAINED)], "no suitable node (1 node not available for new tasks)", id="drained"
        ),
        pytest.param(
            task(resources=reserving(memory_mib=200)),
            [node("a", **SMALL), node("b", **SMALL), node("c", **SMALL), node("d", **DRAINED),
             node("e", state=NodeState.DOWN)],
            "no suitable node (insufficient memory on 3 nodes; 2 nodes not available for new tasks)",
            id="memory, and not available",
        ),
        pytest.param(
            task(resources=reserving(cpus=8)), [node("a")], "no suitable node (insufficient CPU on 1 node)", id="cpu"
        ),
        pytest.param(
            task(resources=reserving(gpu=1)), [node("a")], "no suitable node (insufficient gpu on 1 node)", id="generic"
        ),
        pytest.param(
            task(placement=Placement(constraints=("node.labels.zone == b",))),
            [node("a", labels={"zone": "a"}), node("b")],
            "no suitable node (scheduling constraints not satisfied on 2 nodes)",
            id="constraint",
        ),
        pytest.param(
            task(placement=Placement(platforms=(Platform(architecture="arm64", os="linux"),))),
            [node("a")],
            "no suitable node (unsupported platform on 1 node)",
            id="platform",
        ),
        pytest.param(
            task(container=ContainerSpec(
                image="web", mounts=(Mount(type="volume", options={"DriverConfig": {"Name": "nfs"}}),)
            )),
            [node("a")],
            "no suitable node (missing plugin on 1 node)",
            id="plugin",
        ),
    ],
)  # fmt: skip
def test_why_there_is_no_node(candidate, records, reason):
    placement = place([candidate], nodes(*records))
    assert placement.left == (candidate,)
    assert placement.reason == reason


def test_a_host_port_is_given_once_per_node():
    ports = (PortConfig(target_port=80, published_port=8080, publish_mode="host"),)
    known = nodes(node("a"), node("b"))
    placement = place([task(f"t{number}", ports=ports) for number in range(3)], known)
    assert sorted(each.node_id for each in placement.assigned) == ["a", "b"]
    assert placement.reason == "no suitable node (host-mode port already in use on 2 nodes)"


def test_max_replicas_per_node():
    placement = place(
        [task(f"t{number}", placement=Placement(max_replicas=2)) for number in range(5)], nodes(node("a"), node("b"))
    )
    assert len(placement.assigned) == 4
    assert placement.reason == "no suitable node (max replicas per node limit exceed)"


def test_memory_is_not_given_twice_within_one_call():
    placement = place(
        [task(f"t{number}", resources=reserving(memory_mib=40)) for number in range(6)],
        nodes(node("a", **SMALL), node("b", **SMALL)),
    )
    assert len(placement.assigned) == 4
    assert placement.reason == "no suitable node (insufficient memory on 2 nodes)"


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        pytest.param([], "a", id="equal: the lowest id"),
        pytest.param([("x", "a", "s1")], "b", id="fewest of the service"),
        pytest.param([("x", "a", "s2"), ("y", "b", "s1")], "c", id="then fewest in all"),
        pytest.param([("x", "a", "s2"), ("y", "c", "s2"), ("z", "b", "s1")], "a", id="the service counts before all"),
    ],
)
def test_order_of_nodes(taken, chosen):
    known = nodes(node("a"), node("b"), node("c"))
    for task_id, node_id, service_id in taken:
        known.hold(held(task_id, node_id, service_id))
    assert place([task()], known).assigned[0].node_id == chosen


def test_a_node_where_it_failed_often_comes_last_until_that_is_long_ago():
    known = nodes(node("a"), node("b"))
    known.hold(held("x", "b"))
    for _ in range(MANY_FAILURES):
        known.get("a").failed(group_of(task()), 100.0)
    assert place([task("t1")], known, now=110.0).assigned[0].node_id == "b"
    known.release("b", "t1")
    assert place([task("t1")], known, now=401.0).assigned[0].node_id == "a"


@pytest.mark.parametrize(
    ("preferences", "count", "expected"),
    [
        pytest.param((), 4, {"a": 1, "b": 1, "c": 1, "d": 1}, id="none"),
        pytest.param(("node.labels.zone",), 4, {"a": 1, "b": 1, "d": 2}, id="one zone has one node"),
        pytest.param(("node.labels.rack",), 4, {"a": 1, "b": 1, "c": 1, "d": 1}, id="no label: one branch"),
        pytest.param(("node.hostname", "com.example.zone"), 4, {"a": 1, "b": 1, "c": 1, "d": 1}, id="not a label"),
        pytest.param(("node.id", "node.labels.zone"), 2, {"a": 1, "d": 1}, id="beside one that is"),
    ],
)
def test_spread(preferences, count, expected):
    known = nodes(*(node(key, labels={"zone": "1"}) for key in "abc"), node("d", labels={"zone": "2"}))
    tasks = [task(f"t{number}", placement=Placement(preferences=preferences)) for number in range(count)]
    got: dict[str, int] = {}
    for each in place(tasks, known).assigned:
        got[each.node_id] = got.get(each.node_id, 0) + 1
    assert got == expected


def test_spread_counts_what_runs_on_nodes_that_are_full():
    known = nodes(node("a", labels={"zone": "1"}, memory_bytes=0), node("b", labels={"zone": "1"}),
                  node("c", labels={"zone": "2"}))  # fmt: skip
    known.hold(held("x", "a"))
    placed = place([task(resources=reserving(memory_mib=1), placement=Placement(preferences=("node.labels.zone",)))],
                   known)  # fmt: skip
    assert placed.assigned[0].node_id == "c"


FIRST = Node(
    id="Node1",
    role=Role.MANAGER,
    spec=node("x", labels={"zone": "a", "Empty": ""}).spec,
    description=msgspec.structs.replace(node("x").description, hostname="Host-1", engine_labels={"disk": "SSD"}),
    status=node("x", addr="192.0.2.7").status,
)


@pytest.mark.parametrize(
    ("expression", "satisfied"),
    [
        ("node.id == node1", True),
        ("node.id != Node1", False),
        ("node.hostname==host-1", True),
        ("node.role == manager", True),
        ("node.role != manager", False),
        ("node.ip == 192.0.2.7", True),
        ("node.ip == 192.0.2.0/24", True),
        ("node.ip != 192.0.2.0/24", False),
        ("node.ip == 2001:db8::/32", False),
        ("node.platform.os == linux", True),
        ("node.platform.arch == x86_64", True),
        ("node.labels.zone == A", True),
        ("node.labels.Zone == a", False),
        ("node.labels.missing != a", True),
        ("engine.labels.disk == ssd", True),
        ("NODE.LABELS.zone != b", True),
    ],
)
def test_constraints(expression, satisfied):
    assert node_satisfies((expression,), FIRST) == satisfied


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("node.id", "expected one operator"),
        ("node.id = a", "expected one operator"),
        ("== a", "key '' is invalid"),
        ("node.id == ", "value '' is invalid"),
        ("node.id == a>b", "value 'a>b' is invalid"),
        ("node.colour == red", "key 'node.colour' is unknown"),
        ("node.ip == 300.0.0.1", "is no IP address"),
    ],
)
def test_constraints_that_make_no_sense_are_refused(expression, complaint):
    with pytest.raises(InvalidArgument, match=".*" + complaint.replace("(", r"\(")):
        parse_constraints([expression])
    assert not node_satisfies((expression,), FIRST)


def plane(*records: object) -> ControlPlane:
    control = ControlPlane()
    control.must(Create(record=cluster()), *(Create(record=record) for record in records))
    control.settle()
    return control


def errors(control: ControlPlane) -> set[str]:
    return {each.status.err for each in control.live()}


def test_a_task_without_a_node_says_why_and_goes_once_there_is_room():
    control = plane(node("a", **SMALL), service(replicas=2, memory_bytes=80 * MIB))
    waiting = next(each for each in control.live() if not each.node_id)
    assert waiting.status.state == TaskState.PENDING
    assert waiting.status.message == "pending task scheduling"
    assert waiting.status.err == "no suitable node (insufficient memory on 1 node)"
    index = control.index
    control.advance(60.0)
    assert control.index == index, "nothing changed: nothing is said again"
    control.must(Create(record=node("b", **SMALL)))
    control.settle()
    assert {each.node_id for each in control.live()} == {"a", "b"}
    assert errors(control) == {""}


def test_the_reason_follows_the_nodes():
    control = plane(node("a", **SMALL), service(memory_bytes=200 * MIB))
    assert errors(control) == {"no suitable node (insufficient memory on 1 node)"}
    status = control.state.nodes["a"].status
    control.must(SetNodeStatus(id="a", status=msgspec.structs.replace(status, state=NodeState.DOWN)))
    control.settle()
    assert errors(control) == {"no suitable node (1 node not available for new tasks)"}


def test_room_that_a_task_gives_back_is_used():
    control = plane(node("a", **SMALL), service("s1", memory_bytes=80 * MIB), service("s2", memory_bytes=80 * MIB))
    control.converge()
    first = "s1" if control.running("s1") else "s2"
    control.must(Delete(table="service", id=first))
    control.converge()
    assert control.running("s2" if first == "s1" else "s1")


def test_many_tasks_without_a_node_take_several_turns_and_each_says_why():
    control = plane(node("a", **SMALL), service(replicas=2500, memory_bytes=200 * MIB))
    assert errors(control) == {"no suitable node (insufficient memory on 1 node)"}
    assert control.largest_decision <= control.limit


def test_a_task_with_a_node_is_only_confirmed():
    control = plane(node("a"), node("b"), service(kind="global"))
    assert {each.status.message for each in control.live()} == {
        "scheduler confirmed task can run on preassigned node"
    }


def test_a_refused_assignment_gives_the_room_back():
    control = plane(node("a", **SMALL), service(replicas=1, memory_bytes=80 * MIB))
    control.must(Create(record=msgspec.structs.replace(service("s2", memory_bytes=80 * MIB))))
    control.settle()
    control.must(Delete(table="service", id="s1"))
    control.converge()
    (second,) = control.running("s2")
    stored = control.state.tasks[second.id]
    scheduler = control.deciders[-1]
    change = Update(record=msgspec.structs.replace(stored, id="ghost", node_id="a"))
    outcome = control.commit(change)
    scheduler.refused([(change, outcome.refusals[0])])
    control.settle()
    assert len(control.running("s2")) == 1


def test_host_mode_ports_come_from_the_service():
    port = PortConfig(target_port=80, published_port=8080, publish_mode="host")
    control = plane(node("a"), service(replicas=2, endpoint=EndpointSpec(ports=(port,))))
    assert errors(control) == {"", "no suitable node (host-mode port already in use on 1 node)"}


def test_a_status_that_comes_late_frees_the_room_all_the_same():
    control = plane(node("a", **SMALL), service(memory_bytes=80 * MIB))
    control.converge()
    control.must(Delete(table="service", id="s1"))
    control.must(Create(record=service("s2", memory_bytes=80 * MIB)))
    control.settle()
    assert not control.live("s2")[0].node_id, "the old one has not stopped yet"
    (old,) = control.tasks("s1")
    control.must(SetTaskStatus(id=old.id, status=TaskStatus(state=TaskState.SHUTDOWN)))
    control.settle()
    assert control.live("s2")[0].node_id == "a"


def test_a_task_that_waits_for_its_own_node_takes_no_room_on_it():
    control = ControlPlane()
    control.must(Create(record=cluster()), Create(record=node("a", **SMALL)))
    control.must(Create(record=service(kind="global", memory_bytes=80 * MIB)))
    control.turn(1)  # the orchestrator takes in the view
    control.turn(1)
    assert control.live(), "created before the scheduler has heard of the node"
    control.converge()
    assert control.running()


def test_room_that_a_refused_assignment_gives_back_is_used():
    control = plane(node("a", **SMALL))
    control.must(Create(record=service("s1", memory_bytes=80 * MIB)))
    while not control.live("s1"):
        control.turn(0)
    scheduler = len(control.deciders) - 1
    assert control.decide(scheduler)
    (first,) = control.live("s1")
    control.must(Update(record=msgspec.structs.replace(first, desired=TaskState.REMOVE)))
    control.must(Create(record=service("s2", memory_bytes=80 * MIB)))
    while not control.live("s2"):
        control.turn(0)
    control.deciders[scheduler].observe(control._pending[scheduler], control.state, control.now)
    control._pending[scheduler] = []
    control.commit(*control.deciders[scheduler].decide(control.state, control.now, 200).changes)
    assert control.live("s2")[0].status.err, "the room is still counted as taken"
    control.land(scheduler)
    control.must(Delete(table="service", id="s1"))
    control.settle()
    assert control.live("s2")[0].node_id == "a"
