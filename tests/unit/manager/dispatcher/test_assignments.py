"""What each node gets, as tables of facts."""

import sys
from typing import Any

import msgspec
import pytest

from shoal.api.messages import Assignments
from shoal.api.objects import NetworkAttachment, Task, TaskStatus
from shoal.api.specs import ContainerSpec, NetworkAttachmentSpec, TaskSpec
from shoal.api.states import NodeState, TaskState
from shoal.manager.dispatcher.assignments import Leaving
from shoal.manager.store.changes import Create, Update
from tests.unit.manager.dispatcher.records import Cluster, network, node, service, task

S = TaskState


def three_nodes(*records: Any) -> Cluster:
    """n1 and n2 share network w1; n3 has nothing of it."""
    return Cluster(node("n1"), node("n2"), node("n3"), network("w1"), network("w2", 2), service("s1", "w1"), *records)


def ids(records: Any) -> list[str]:
    return sorted(each.id for each in records)


@pytest.mark.parametrize(
    ("state", "desired", "told"),
    [
        pytest.param(S.NEW, S.RUNNING, False, id="has-no-address-yet"),
        pytest.param(S.PENDING, S.RUNNING, False, id="global-not-yet-confirmed"),
        pytest.param(S.ASSIGNED, S.READY, True, id="to-be-prepared"),
        pytest.param(S.RUNNING, S.RUNNING, True, id="runs"),
        pytest.param(S.RUNNING, S.SHUTDOWN, True, id="to-be-stopped"),
        pytest.param(S.FAILED, S.SHUTDOWN, True, id="history: its container is kept"),
        pytest.param(S.SHUTDOWN, S.REMOVE, True, id="to-be-forgotten"),
        pytest.param(S.PENDING, S.SHUTDOWN, False, id="given-up-before-anybody-heard"),
    ],
)
def test_which_tasks_a_node_gets(state, desired, told):
    cluster = three_nodes(task("t1", "n1", "w1", state=state, desired=desired))
    assert ids(cluster.assigner.complete("n1").tasks) == (["t1"] if told else [])
    assert cluster.assigner.complete("n2") == Assignments(sequence=0, complete=True)


@pytest.mark.parametrize(
    ("state", "desired", "node_state", "endpoint", "healthy"),
    [
        pytest.param(S.ASSIGNED, S.RUNNING, NodeState.READY, True, False, id="not-yet"),
        pytest.param(S.RUNNING, S.RUNNING, NodeState.READY, True, True, id="runs"),
        pytest.param(S.RUNNING, S.SHUTDOWN, NodeState.READY, True, False, id="drains"),
        pytest.param(S.RUNNING, S.RUNNING, NodeState.DOWN, True, False, id="node-down"),
        pytest.param(S.RUNNING, S.RUNNING, NodeState.UNKNOWN, True, True, id="node-unknown"),
        pytest.param(S.COMPLETE, S.RUNNING, NodeState.READY, False, False, id="has-ended"),
        pytest.param(S.SHUTDOWN, S.SHUTDOWN, NodeState.READY, False, False, id="was-stopped"),
    ],
)
def test_endpoints_and_backends_follow_the_task(state, desired, node_state, endpoint, healthy):
    cluster = three_nodes(task("t1", "n1", "w1", state=state, desired=desired), task("t2", "n2", "w1"))
    cluster.apply(cluster.node_state("n1", node_state))
    cluster.round()
    told = cluster.assigner.complete("n2")
    found = {each.id: each for each in told.endpoints}
    assert ("t1" in found) == endpoint
    if endpoint:
        assert (found["t1"].healthy, found["t1"].address, found["t1"].node_addr) == (healthy, "10.0.1.1", "192.0.2.1")
        assert (found["t1"].names, found["t1"].service_name) == (("name-s1.1.t1",), "name-s1")
    (backed,) = told.services
    assert (backed.vip, backed.backends) == ("10.0.1.201", ("10.0.1.1",) if healthy else ())


def test_a_node_hears_of_its_networks_only():
    cluster = three_nodes(service("s2", "w2"), task("t1", "n1", "w1"), task("t2", "n2", "w1"),
                          task("t3", "n3", "w2", service_id="s2"))
    first = cluster.assigner.complete("n1")
    assert (ids(first.tasks), ids(first.networks), ids(first.endpoints), ids(first.services)) == (
        ["t1"], ["w1"], ["t1", "t2"], ["s1"])
    third = cluster.assigner.complete("n3")
    assert (ids(third.tasks), ids(third.networks), ids(third.endpoints), ids(third.services)) == (
        ["t3"], ["w2"], ["t3"], ["s2"])


def test_a_change_reaches_the_nodes_of_its_networks_and_nobody_else():
    cluster = three_nodes(task("t1", "n1", "w1"), task("t2", "n2", "w1"), task("t3", "n3", "w2"))
    for each in ("n1", "n2", "n3"):
        cluster.assigner.complete(each)
    cluster.apply(cluster.status("t1", S.RUNNING, "c" * 64))
    found = cluster.round().differences
    assert sorted(found) == ["n1", "n2"]
    assert found["n1"].tasks == (), "its status is its own news"
    assert found["n2"].endpoints[0].healthy
    assert found["n2"].endpoints[0].names == ("name-s1.1.t1", "c" * 12)
    assert found["n2"].services[0].backends == ("10.0.1.1",)
    cluster.apply(cluster.status("t3", S.ACCEPTED))
    assert cluster.round().differences == {}


def test_who_is_not_connected_costs_nothing_and_gets_everything_later():
    cluster = three_nodes(task("t1", "n1", "w1"))
    cluster.assigner.complete("n1")
    cluster.assigner.disconnect("n1")
    cluster.apply(cluster.status("t1", S.RUNNING))
    assert cluster.round().differences == {}
    assert cluster.assigner.complete("n1").tasks[0].status.state is S.RUNNING


def test_a_first_task_brings_the_network_and_the_last_one_takes_it_away():
    cluster = three_nodes(task("t2", "n2", "w1", state=S.RUNNING))
    cluster.assigner.complete("n1")
    cluster.apply(Create(record=task("t1", "n1", "w1")))
    came = cluster.round().differences["n1"]
    assert (ids(came.tasks), ids(came.networks), ids(came.endpoints), ids(came.services)) == (
        ["t1"], ["w1"], ["t1", "t2"], ["s1"])
    cluster.apply(cluster.status("t1", S.FAILED))
    left = cluster.round().differences["n1"]
    assert (left.removed_networks, left.endpoints, left.tasks, left.removed_tasks) == (("w1",), (), (), ())
    cluster.apply(cluster.gone("task", "t1"))
    assert cluster.round().differences["n1"].removed_tasks == ("t1",)


def test_a_task_leaves_the_backends_at_once_and_the_network_when_it_has_stopped():
    cluster = three_nodes(task("t1", "n1", "w1", state=S.RUNNING), task("t2", "n2", "w1", state=S.RUNNING))
    for each in ("n1", "n2"):
        cluster.assigner.complete(each)
    cluster.apply(cluster.want("t1", S.SHUTDOWN))
    found = cluster.round()
    assert found.leaving == (Leaving("t1", "n1", ("w1",)),)
    assert [each.desired for each in found.differences["n1"].tasks] == [S.SHUTDOWN]
    told = found.differences["n2"]
    assert (told.endpoints[0].healthy, told.services[0].backends, told.removed_endpoints) == (
        False, ("10.0.1.2",), ())
    cluster.apply(cluster.status("t1", S.SHUTDOWN))
    later = cluster.round()
    assert (later.leaving, later.differences["n2"].removed_endpoints) == ((), (("w1", "t1"),))


def test_a_node_that_is_down_takes_its_backends_with_it_and_moves_with_its_address():
    cluster = three_nodes(task("t1", "n1", "w1", state=S.RUNNING), task("t2", "n2", "w1", state=S.RUNNING))
    cluster.assigner.complete("n2")
    cluster.apply(cluster.node_state("n1", NodeState.DOWN))
    told = cluster.round().differences["n2"]
    assert (ids(told.endpoints), told.services[0].backends) == (["t1"], ("10.0.1.2",))
    cluster.apply(cluster.node_state("n1", NodeState.READY, "192.0.2.77"))
    told = cluster.round().differences["n2"]
    assert (told.endpoints[0].node_addr, told.services[0].backends) == ("192.0.2.77", ("10.0.1.1", "10.0.1.2"))
    cluster.apply(cluster.gone("node", "n1"))
    assert cluster.round().differences["n2"].removed_endpoints == (("w1", "t1"),)


@pytest.mark.parametrize(
    ("mode", "vip", "backends"),
    [pytest.param("vip", "10.0.1.201", ("10.0.1.1",), id="vip"), pytest.param("dnsrr", "", ("10.0.1.1",), id="dnsrr")],
)
def test_services(mode, vip, backends):
    cluster = Cluster(node("n1"), network("w1"), service("s1", "w1", mode=mode, aliases=("web",)),
                      task("t1", "n1", "w1", state=S.RUNNING))
    (told,) = cluster.assigner.complete("n1").services
    assert (told.name, told.aliases, told.vip, told.backends) == ("name-s1", ("web",), vip, backends)
    cluster.apply(cluster.gone("service", "s1"))
    assert cluster.round().differences["n1"].removed_services == (("w1", "s1"),)


def test_a_service_without_its_vip_is_not_told_yet():
    waits = msgspec.structs.replace(service("s1", "w1"), endpoint=service("s1").endpoint)
    cluster = Cluster(node("n1"), network("w1"), waits, task("t1", "n1", "w1"))
    assert cluster.assigner.complete("n1").services == ()
    stored = cluster.view.services["s1"]
    cluster.apply(Update(record=msgspec.structs.replace(stored, endpoint=service("s1", "w1").endpoint)))
    assert cluster.round().differences["n1"].services[0].vip == "10.0.1.201"


def test_a_network_changes_for_those_on_it():
    cluster = three_nodes(task("t1", "n1", "w1"))
    for each in ("n1", "n2"):
        cluster.assigner.complete(each)
    stored = cluster.view.networks["w1"]
    labelled = msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, labels={"a": "b"}))
    cluster.apply(Update(record=labelled))
    found = cluster.round().differences
    assert list(found) == ["n1"] and found["n1"].networks[0].labels == {"a": "b"}


@pytest.mark.parametrize(("option", "mtu"), [("", 1450), ("9000", 9000), ("big", 1450), ("0", 1450)])
def test_the_mtu_is_the_user_s_or_the_underlay_s(option, mtu):
    options = {"com.docker.network.driver.mtu": option} if option else {}
    cluster = Cluster(node("n1"), network("w1", driver_opts=options), task("t1", "n1", "w1"))
    assert cluster.assigner.complete("n1").networks[0].mtu == mtu


def test_an_attachment_answers_to_its_container_s_names():
    place = NetworkAttachment(network_id="w1", addresses=("10.0.1.9/24",), aliases=("box", "db"), mac="02")
    attached = Task(id="a1", node_id="n1", attachments=(place,), status=TaskStatus(state=S.RUNNING),
                    spec=TaskSpec(attachment="d" * 64, networks=(NetworkAttachmentSpec(target="w1"),)))
    cluster = three_nodes(attached)
    told = cluster.assigner.complete("n1")
    assert told.endpoints[0].names == ("box", "db", "d" * 12) and told.endpoints[0].healthy
    assert ids(told.tasks) == ["a1"]


@pytest.mark.parametrize(("hostname", "names"), [("db", ("name-s1.1.t1", "db")), ("{{.Node.ID}}", ("name-s1.1.t1",))])
def test_hostnames_are_names_but_templates_are_not(hostname, names):
    spec = TaskSpec(container=ContainerSpec(image="i", hostname=hostname))
    cluster = three_nodes(msgspec.structs.replace(task("t1", "n1", "w1"), spec=spec))
    assert cluster.assigner.complete("n1").endpoints[0].names == names


def test_a_view_is_taken_in_by_steps_and_nobody_is_told_half_of_it():
    cluster = three_nodes(*(task(f"t{number}", "n1") for number in range(1, 30)))
    cluster.assigner.load(cluster.view)
    steps = 0
    while not cluster.assigner.ready:
        cluster.assigner.flush(cluster.view, 10)
        steps += 1
    assert steps == 3 and len(cluster.assigner.complete("n1").tasks) == 29


def calls_of(work) -> int:
    """How many functions a piece of work calls."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def change_in(nodes: int, tasks_each: int) -> tuple[int, list[str]]:
    """One of a cluster's tasks comes to run: the calls that it takes, and who hears of it. Networks have ten nodes."""
    records: list[Any] = [node(f"n{number}") for number in range(nodes)]
    for number in range(0, nodes, 10):
        records += [network(f"w{number // 10}", number // 10 % 250), service(f"s{number // 10}", f"w{number // 10}")]
    for number in range(nodes * tasks_each):
        home = number % nodes
        records.append(task(f"t{number}", f"n{home}", f"w{home // 10}", service_id=f"s{home // 10}"))
    cluster = Cluster()
    for record in records:
        cluster.store.memory.apply(cluster.store.index, _creation(cluster, record))
    cluster.assigner.load(cluster.view)
    cluster.watch.drain()
    cluster.round()
    for number in range(nodes):
        cluster.assigner.complete(f"n{number}")
    cluster.apply(cluster.status("t3", S.RUNNING))
    found: dict[str, Assignments] = {}
    return calls_of(lambda: found.update(cluster.round().differences)), sorted(found)


def _creation(cluster: Cluster, record: Any) -> bytes:
    from shoal.manager.store.changes import Command, encode_command

    cluster.store.index += 1
    return encode_command(Command(request_id=record.id, changes=(Create(record=record),), at=1.0))


def test_cost_grows_with_what_changed_not_with_the_cluster():
    small, big = change_in(10, 10), change_in(1000, 10)
    assert small[1] == big[1] == [f"n{number}" for number in range(10)]
    assert big[0] == small[0]
