"""The routes over a store that applies at once."""

import json

import msgspec
import pytest

from shoal.api.objects import ContainerStatus, Network, NetworkAttachment, Service, Task, TaskStatus
from shoal.api.specs import ContainerSpec, NetworkAttachmentSpec, NetworkSpec, Placement, ServiceSpec, TaskSpec
from shoal.api.states import NodeState, Role, TaskState
from shoal.manager.ca.tokens import token_for
from shoal.manager.controlapi.errors import api_errors
from shoal.manager.controlapi.routes import routes
from shoal.manager.store.changes import Create, SetNodeStatus, Update
from tests.unit.manager.controlapi_store import CLUSTER, MANAGER, WORKER, Swarm, client_of, node

NET = "n" * 25


def service_body(name="web", **template):
    return {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}, **template}}


@pytest.fixture
def swarm():
    return Swarm()


@pytest.fixture
async def client(swarm):
    async with client_of(routes(swarm.context), api_errors) as http:
        yield Caller(http)


class Caller:
    """(status, decoded body) of a call."""

    def __init__(self, http):
        self.http = http

    async def __call__(self, method, path, body=None, headers=None, **query):
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        params = {key: json.dumps(value) if isinstance(value, dict) else str(value) for key, value in query.items()}
        headers = {**({} if data is None else {"Content-Type": "application/json"}), **(headers or {})}
        async with self.http.request(method, path, data=data, params=params, headers=headers) as answer:
            raw = await answer.read()
            if not raw:
                return answer.status, None
            assert answer.content_type == "application/json"
            return answer.status, json.loads(raw)

    async def created(self, path, body):
        status, answer = await self("POST", path, body)
        assert status == 201, answer
        return answer.get("ID") or answer["Id"]


# --- services ---


async def test_who_spreads_over_what_is_no_label_is_told(client):
    body = service_body(Placement={"Preferences": [
        {"Spread": {"SpreadDescriptor": each}} for each in ("node.labels.zone", "node.role")]})
    status, answer = await client("POST", "/services/create", body)
    assert status == 201
    assert [each.split(" has no effect")[0] for each in answer["Warnings"]] == ["placement preference 'node.role'"]
    _, shown = await client("GET", "/services/web")
    assert shown["Spec"]["TaskTemplate"]["Placement"] == body["TaskTemplate"]["Placement"]


async def test_a_service_is_created_found_and_removed(swarm, client):
    service_id = await client.created("/services/create", service_body(RestartPolicy={"Condition": "none"}))
    assert len(service_id) == 25
    for reference in (service_id, "web", service_id[:9]):
        status, shown = await client("GET", f"/services/{reference}")
        assert (status, shown["ID"]) == (200, service_id)
    assert shown["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"] == "none"
    assert shown["Version"]["Index"] == swarm.store.view().services[service_id].meta.version > 0
    assert (await client("DELETE", "/services/web")) == (200, None)
    assert await client("GET", "/services/web") == (404, {"message": "service web not found"})
    assert (await client("DELETE", "/services/web"))[0] == 404


async def test_a_service_without_a_name_gets_one(swarm, client):
    first = await client.created("/services/create", service_body(name=""))
    second = await client.created("/services/create", service_body(name=""))
    names = {swarm.store.view().services[each].spec.name for each in (first, second)}
    assert len(names) == 2 and all("_" in name for name in names)


async def test_a_name_is_taken_once(swarm, client):
    await client.created("/services/create", service_body())
    before = swarm.store.view()
    status, answer = await client("POST", "/services/create", service_body())
    assert status == 409 and "service web already exists" in answer["message"]
    assert swarm.store.view() is before


async def test_a_request_that_is_tried_again_is_applied_once(swarm, client):
    headers = {"X-Shoal-Request-Id": "r1"}
    first = await client("POST", "/services/create", service_body(), headers)
    second = await client("POST", "/services/create", service_body(), headers)
    assert first == second and first[0] == 201 and len(swarm.store.view().services) == 1
    version = swarm.store.view().services[first[1]["ID"]].meta.version
    body, headers = {**service_body(), "Labels": {"a": "b"}}, {"X-Shoal-Request-Id": "r2"}
    assert (await client("POST", "/services/web/update", body, headers, version=version))[0] == 200
    assert (await client("POST", "/services/web/update", body, headers, version=version))[0] == 200
    stored = swarm.store.view().services[first[1]["ID"]]
    assert stored.previous_spec is not None and stored.previous_spec.labels == {}  # it was applied once
    for _ in range(2):
        assert (await client("DELETE", "/services/web", headers={"X-Shoal-Request-Id": "r3"}))[0] == 200


async def test_update_scale_and_rollback(swarm, client):
    service_id = await client.created("/services/create", service_body())

    def stored():
        return swarm.store.view().services[service_id]

    created = stored()
    body = {**service_body(), "Mode": {"Replicated": {"Replicas": 5}}}
    assert (await client("POST", "/services/web/update", body, version=created.meta.version))[0] == 200
    scaled = stored()
    assert scaled.spec.mode.replicas == 5 and scaled.spec_version == created.spec_version
    assert scaled.meta.version > created.meta.version
    assert await client("POST", "/services/web/update", body, version=created.meta.version) == (
        500, {"message": "rpc error: code = Unknown desc = update out of sequence"})
    body["TaskTemplate"] = {"ContainerSpec": {"Image": "busybox:2"}}
    assert (await client("POST", f"/services/{service_id}/update", body, version=scaled.meta.version))[0] == 200
    changed = stored()
    assert changed.spec_version > scaled.spec_version and changed.update_status is None
    status, _ = await client("POST", "/services/web/update", body, version=changed.meta.version, rollback="previous")
    assert status == 200
    back = stored()
    assert (back.spec, back.previous_spec) == (scaled.spec, changed.spec)
    assert back.update_status.state == "rollback_started" and back.spec_version > changed.spec_version


@pytest.mark.parametrize(
    ("body", "query", "status", "says"),
    [
        (b"", {}, 400, "EOF"),
        (b"{", {}, 400, "invalid JSON"),
        (b"[]", {}, 400, "invalid JSON"),
        (b"[" * 100_000, {}, 400, "invalid JSON"),
        (b'{"Name": "web\\u0000"}', {}, 400, "a NUL character"),
        (service_body(name="other"), {}, 501, "renaming"),
        ({**service_body(), "Mode": {"Global": {}}}, {}, 501, "mode change"),
        (service_body(Networks=[{"Target": "nowhere"}]), {}, 404, "network nowhere not found"),
        (service_body(Networks=[{"Target": "none"}]), {}, 400, "cannot be used with services"),
        (service_body(Networks=[{"Target": "host"}, {"Target": "bridge"}]), {}, 400, "cannot be combined"),
        ({**service_body(), "Surprise": {"A": 1}}, {}, 400, "unknown field Surprise"),
        (service_body(), {"version": "x"}, 400, "invalid version"),
        (service_body(), {"version": ""}, 400, "invalid version"),
        (service_body(), {"version": 1}, 500, "out of sequence"),
        (service_body(), {"rollback": "previous"}, 400, "does not have a previous spec"),
        (service_body(), {"rollback": "next"}, 400, "rollback option"),
        (service_body(), {"registryAuthFrom": "me"}, 400, "registryAuthFrom"),
    ],
)  # fmt: skip
async def test_a_bad_update_changes_nothing(swarm, client, body, query, status, says):
    service_id = await client.created("/services/create", service_body())
    before = swarm.store.view()
    version = before.services[service_id].meta.version
    answer = await client("POST", "/services/web/update", body, **{"version": version, **query})
    assert answer[0] == status and says in answer[1]["message"]
    assert swarm.store.view() is before
    assert (await client("POST", "/services/none/update", service_body(), version=version))[0] == 404


async def test_a_loop_that_was_faster_costs_a_retry_not_the_update(swarm, client):
    service_id = await client.created("/services/create", service_body())
    read = swarm.store.view().services[service_id]
    swarm.store.before = [[Update(record=msgspec.structs.replace(read, spec_version=99))]]  # wanted=False
    body = {**service_body(), "Labels": {"a": "b"}}
    assert (await client("POST", "/services/web/update", body, version=read.meta.version))[0] == 200
    assert swarm.store.view().services[service_id].spec.labels == {"a": "b"}


async def test_a_user_who_was_faster_wins(swarm, client):
    service_id = await client.created("/services/create", service_body())
    read = swarm.store.view().services[service_id]
    theirs = msgspec.structs.replace(read, spec=msgspec.structs.replace(read.spec, labels={"theirs": ""}))
    swarm.store.before = [[Update(record=theirs, wanted=True)]]
    status, answer = await client("POST", "/services/web/update", service_body(), version=read.meta.version)
    assert status == 500 and "out of sequence" in answer["message"]
    assert swarm.store.view().services[service_id].spec.labels == {"theirs": ""}


async def test_a_leader_that_is_behind_catches_up_before_it_refuses(swarm, client):
    service_id = await client.created("/services/create", service_body())
    behind = swarm.store.view()
    swarm.store.apply(Update(record=behind.services[service_id], wanted=True))
    newest = swarm.store.view()
    swarm.store.lag(behind)
    version = newest.services[service_id].meta.version
    assert (await client("POST", "/services/web/update", service_body(), version=version))[0] == 200


async def test_a_network_is_stored_by_id(swarm, client):
    swarm.store.apply(Create(record=Network(id=NET, spec=NetworkSpec(name="front"))))
    service_id = await client.created("/services/create", service_body(Networks=[{"Target": "front"}]))
    assert swarm.store.view().services[service_id].spec.task.networks[0].target == NET
    twice = service_body("two", Networks=[{"Target": "front"}, {"Target": NET}])
    assert (await client("POST", "/services/create", twice))[0] == 400


def running_task(task_id, service_id, state=TaskState.RUNNING, desired=TaskState.RUNNING, **fields):
    container = ContainerStatus(container_id="c" * 64, pid=7) if state >= TaskState.STARTING else None
    return Task(
        id=task_id, service_id=service_id, service_name="web", slot=1, node_id=WORKER, desired=desired,
        spec=TaskSpec(container=ContainerSpec(image="busybox")),
        status=TaskStatus(state=state, timestamp=1234.5, message="started", container=container), **fields,
    )  # fmt: skip


async def test_services_are_listed_and_filtered_with_their_status(swarm, client):
    web = await client.created("/services/create", {**service_body(), "Mode": {"Replicated": {"Replicas": 3}}})
    glob = await client.created(
        "/services/create", {**service_body("g"), "Mode": {"Global": {}}, "Labels": {"tier": "a"}})
    swarm.store.apply(
        Create(record=running_task("t1", web)),
        Create(record=running_task("t2", web, TaskState.FAILED, TaskState.SHUTDOWN)),
        Create(record=running_task("t3", glob, TaskState.PENDING)),
    )
    found = (await client("GET", "/services", status="true"))[1]
    counts = {each["ID"]: each["ServiceStatus"] for each in found}
    assert counts == {
        web: {"RunningTasks": 1, "DesiredTasks": 3, "CompletedTasks": 0},
        glob: {"RunningTasks": 0, "DesiredTasks": 1, "CompletedTasks": 0},
    }

    async def listed(**filters):
        return {each["Spec"]["Name"] for each in (await client("GET", "/services", filters=filters))[1]}

    assert await listed(name=["we"]) == {"web"} and await listed(mode=["global"]) == {"g"}
    assert await listed(label=["tier=a"]) == {"g"} and await listed(label={"tier": True}) == {"g"}
    assert await listed(id=[web]) == {"web"} and await listed(name=["x"]) == set()
    assert (await client("GET", "/services", filters={"colour": ["red"]}))[0] == 400
    assert (await client("GET", "/services", filters={"mode": ["odd"]}))[0] == 400
    assert (await client("GET", "/services", filters="nonsense"))[0] == 400
    older = await client("GET", "/services", headers={"X-Shoal-Api-Version": "1.40"}, status="true")
    assert "ServiceStatus" not in older[1][0]


# --- tasks ---


async def test_tasks_are_shown_as_the_specification_says(swarm, client):
    swarm.store.apply(
        Create(record=Network(id=NET, spec=NetworkSpec(name="front"), vni=4097)),
        Create(record=Service(id="s1", spec=ServiceSpec(name="web", labels={"app": "x"}, task=TaskSpec()))),
        Create(record=running_task("t1", "s1", attachments=(
            NetworkAttachment(network_id=NET, addresses=("10.0.1.3/24",)),))),
        Create(record=running_task("t2", "s1", TaskState.SHUTDOWN, TaskState.SHUTDOWN)),
    )  # fmt: skip
    status, task = await client("GET", "/tasks/t1")
    assert status == 200
    assert (task["ServiceID"], task["Slot"], task["NodeID"], task["DesiredState"]) == ("s1", 1, WORKER, "running")
    assert task["Status"] == {
        "Timestamp": "1970-01-01T00:20:34.500000000Z", "State": "running", "Message": "started",
        "ContainerStatus": {"ContainerID": "c" * 64, "PID": 7, "ExitCode": 0}, "PortStatus": {},
    }  # fmt: skip
    (attachment,) = task["NetworksAttachments"]
    assert attachment["Addresses"] == ["10.0.1.3/24"] and attachment["Network"]["Spec"]["Name"] == "front"
    assert attachment["Network"]["DriverState"]["Options"]["com.docker.network.driver.overlay.vxlanid_list"] == "4097"

    async def listed(**filters):
        status, found = await client("GET", "/tasks", filters=filters)
        return [each["ID"] for each in found] if status == 200 else status

    assert await listed() == ["t1", "t2"]
    assert await listed(**{"desired-state": ["running"]}) == ["t1"]
    assert await listed(service=["web"]) == ["t1", "t2"] and await listed(service=["none"]) == 404
    assert await listed(node=["host-w"]) == ["t1", "t2"] and await listed(node=[MANAGER]) == []
    assert await listed(node=["self"]) == [] and await listed(node=["nobody"]) == 404
    assert await listed(name=["web.1.t2"]) == ["t2"] and await listed(id=["t1"]) == ["t1"]
    assert await listed(label=["app=x"]) == ["t1", "t2"] and await listed(label=["app=y"]) == []
    assert await listed(**{"desired-state": ["napping"]}) == 400
    assert (await client("GET", "/tasks/zz"))[0] == 404
    of_worker = await client("GET", "/tasks", headers={"X-Shoal-Node-Id": WORKER}, filters={"node": ["self"]})
    assert len(of_worker[1]) == 2


@pytest.mark.parametrize(("changes", "up_to_date"), [
    pytest.param({}, True, id="the same, also after a rollback"),
    pytest.param({"placement": Placement(constraints=("node.role == worker",))}, True, id="its node will do"),
    pytest.param({"placement": Placement(constraints=("node.role == manager",))}, False, id="it has to move"),
    pytest.param({"force_update": 1}, False, id="it is to be replaced"),
])
async def test_tasks_that_an_update_leaves_as_they_are_count_as_up_to_date(swarm, client, changes, up_to_date):
    """`docker service update` and `rollback` wait for these."""
    task = running_task("t1", "s1")
    spec = msgspec.structs.replace(task.spec, **changes)
    swarm.store.apply(
        Create(record=Service(id="s1", spec=ServiceSpec(name="web", task=spec), spec_version=task.spec_version + 7)),
        Create(record=task))
    _, found = await client("GET", "/tasks", filters={"service": ["web"], "_up-to-date": ["true"]})
    assert [each["ID"] for each in found] == ["t1"] * up_to_date


async def test_a_long_list_is_whole_and_keeps_each_task_s_own_specification(swarm, client):
    def numbered(number):
        task = running_task(f"t{number:04}", "s1")
        container = msgspec.structs.replace(task.spec.container, image=f"busybox:{number % 3}")
        return msgspec.structs.replace(task, spec=msgspec.structs.replace(task.spec, container=container))

    swarm.store.apply(*(Create(record=numbered(number)) for number in range(601)))
    found = (await client("GET", "/tasks"))[1]
    assert [(each["ID"], each["Spec"]["ContainerSpec"]["Image"]) for each in found] == [
        (f"t{number:04}", f"busybox:{number % 3}") for number in range(601)]


# --- nodes ---


async def test_nodes_are_shown_with_their_part_in_raft(swarm, client):
    status, shown = await client("GET", "/nodes")
    assert status == 200 and [each["ID"] for each in shown] == [MANAGER, WORKER]
    assert shown[0]["ManagerStatus"] == {"Leader": True, "Reachability": "reachable", "Addr": "192.0.2.1:2377"}
    assert "ManagerStatus" not in shown[1] and shown[1]["Status"] == {"State": "ready", "Addr": "192.0.2.1"}
    assert shown[1]["Description"]["TLSInfo"]["TrustRoot"].startswith("-----BEGIN CERTIFICATE")
    swarm.membership.unreachable.add(MANAGER)
    assert (await client("GET", "/nodes/self"))[1]["ManagerStatus"]["Reachability"] == "unreachable"
    assert [each["ID"] for each in (await client("GET", "/nodes", filters={"role": ["worker"]}))[1]] == [WORKER]
    assert (await client("GET", "/nodes", filters={"role": ["king"]}))[0] == 400
    assert await client("GET", "/nodes/nobody") == (404, {"message": "node nobody not found"})


async def test_node_update(swarm, client):
    def stored():
        return swarm.store.view().nodes[WORKER]

    body = {"Labels": {"zone": "a"}, "Role": "manager", "Availability": "drain"}
    assert (await client("POST", f"/nodes/{WORKER}/update", body, version=stored().meta.version))[0] == 200
    assert (stored().spec.labels, stored().spec.role, stored().spec.availability) == (
        {"zone": "a"}, Role.MANAGER, "drain")
    assert stored().role is Role.WORKER  # until it has the certificate
    assert (await client("POST", f"/nodes/{WORKER}/update", body, version=1))[0] == 500
    for bad in ({"Role": "king"}, {"Availability": "maybe"}, {"Labels": []}, {"Labels": {"a": 1}}, {"Colour": "red"}):
        before = swarm.store.view()
        assert (await client("POST", f"/nodes/{WORKER}/update", bad, version=stored().meta.version))[0] == 400
        assert swarm.store.view() is before


async def test_demotion_keeps_a_manager_and_a_quorum(swarm, client):
    def demote():
        version = swarm.store.view().nodes[MANAGER].meta.version
        return client("POST", f"/nodes/{MANAGER}/update", {"Role": "worker", "Availability": "active"}, version=version)

    status, answer = await demote()
    assert status == 400 and "last manager" in answer["message"]
    others = ["x" * 25, "y" * 25]
    swarm.store.apply(*(Create(record=node(each, Role.MANAGER)) for each in others))
    swarm.membership.members = [MANAGER, *others]
    swarm.membership.unreachable.add(others[0])
    status, answer = await demote()
    assert status == 400 and "loss of quorum" in answer["message"]
    swarm.membership.unreachable.clear()
    assert (await demote())[0] == 200
    assert swarm.store.view().nodes[MANAGER].spec.role is Role.WORKER


async def test_node_removal(swarm, client):
    status, answer = await client("DELETE", f"/nodes/{MANAGER}", force=1)
    assert status == 400 and "must be demoted" in answer["message"]
    status, answer = await client("DELETE", f"/nodes/{WORKER}")
    assert status == 400 and answer["message"].endswith(f"desc = node {WORKER} is not down and can't be removed")
    status_down = msgspec.structs.replace(swarm.store.view().nodes[WORKER].status, state=NodeState.DOWN)
    swarm.store.apply(SetNodeStatus(id=WORKER, status=status_down))
    assert (await client("DELETE", f"/nodes/{WORKER}"))[0] == 200
    assert WORKER not in swarm.store.view().nodes and (await client("DELETE", f"/nodes/{WORKER}"))[0] == 404
    swarm.store.apply(Create(record=node("z" * 25)))
    assert (await client("DELETE", "/nodes/host-z", force="true"))[0] == 200


async def test_a_node_that_was_given_a_name_is_still_found_by_its_hostname(swarm, client):
    swarm.store.apply(Create(record=node("z" * 25)))
    _, before = await client("GET", "/nodes/host-z")
    spec = {"Name": "storage", "Role": "worker", "Availability": "active"}
    assert (await client("POST", "/nodes/host-z/update", spec, version=before["Version"]["Index"]))[0] == 200
    for reference in ("host-z", "storage", "z" * 25, "zzz"):
        status, shown = await client("GET", f"/nodes/{reference}")
        assert (status, shown["ID"], shown["Spec"]["Name"]) == (200, "z" * 25, "storage"), reference


# --- networks ---


def network_body(name="front", **fields):
    return {"Name": name, "Driver": "overlay", **fields}


def pool(subnet):
    return {"Driver": "default", "Config": [{"Subnet": subnet}]}


async def test_networks(swarm, client):
    network_id = await client.created("/networks/create", network_body(Attachable=True, IPAM=pool("10.7.0.0/24")))
    for reference in (network_id, "front", network_id[:8]):
        status, shown = await client("GET", f"/networks/{reference}")
        assert (status, shown["Id"], shown["Scope"], shown["Attachable"]) == (200, network_id, "swarm", True)
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.7.0.0/24"}]
    assert await client("POST", "/networks/create", network_body()) == (
        409, {"message": "network with name front already exists"})
    overlap = await client("POST", "/networks/create", network_body("other", IPAM=pool("10.7.0.128/25")))
    assert overlap[0] == 409 and "front" in overlap[1]["message"]
    no_subnet = {"Config": [{"Gateway": "1.2.3.4"}]}
    for bad in (pool("10.8.0.0"), pool("10.8.0.0/31"), pool("fd00::/64"), pool("x"), no_subnet):
        assert (await client("POST", "/networks/create", network_body("other", IPAM=bad)))[0] == 400, bad
    assert len(swarm.store.view().networks) == 1
    assert (await client("GET", "/networks/front", scope="local"))[0] == 404
    found = await client("GET", "/networks", filters={"name": ["fro"], "driver": ["overlay"], "dangling": ["true"]})
    assert [each["Id"] for each in found[1]] == [network_id]
    assert (await client("GET", "/networks", filters={"dangling": ["false"]}))[1] == []
    assert (await client("DELETE", "/networks/front")) == (204, None)
    assert (await client("DELETE", "/networks/front"))[0] == 404


@pytest.mark.parametrize(("service", "desired", "status"), [
    pytest.param("s1", TaskState.RUNNING, 400, id="runs"),
    pytest.param("", TaskState.RUNNING, 400, id="a container"),
    pytest.param("s1", TaskState.SHUTDOWN, 204, id="is to stop"),
    pytest.param("gone", TaskState.RUNNING, 204, id="its service was removed just now"),
])
async def test_a_network_is_held_by_tasks_that_are_to_run(swarm, client, service, desired, status):
    place = NetworkAttachment(network_id=NET, addresses=("10.0.1.3/24",))
    swarm.store.apply(
        Create(record=Network(id=NET, spec=NetworkSpec(name="front"), vni=4097)),
        Create(record=Service(id="s1", spec=ServiceSpec(name="web", task=TaskSpec()))),
        Create(record=running_task("t1", service, TaskState.RUNNING, desired, attachments=(place,))),
    )  # fmt: skip
    assert (await client("DELETE", f"/networks/{NET}"))[0] == status


async def test_a_network_in_use_stays(swarm, client):
    network_id = await client.created("/networks/create", network_body())
    await client.created("/services/create", service_body(Networks=[{"Target": "front"}]))
    status, answer = await client("DELETE", "/networks/front")
    assert status == 400 and f"network {network_id} is in use by service" in answer["message"]
    await client("DELETE", "/services/web")
    attachment = Task(id="a1", node_id=WORKER, spec=TaskSpec(
        attachment="c1", networks=(NetworkAttachmentSpec(target=network_id),)))  # fmt: skip
    swarm.store.apply(Create(record=attachment))
    status, answer = await client("DELETE", "/networks/front")
    assert status == 400 and "in use by task a1" in answer["message"]
    assert (await client("GET", "/networks/front", verbose="true"))[1]["Services"] == {}


# --- the swarm ---


async def test_the_swarm_and_its_tokens(swarm, client):
    status, shown = await client("GET", "/swarm")
    cluster = swarm.store.view().cluster
    assert (status, shown["ID"], shown["JoinTokens"]["Worker"]) == (200, CLUSTER, token_for(cluster, Role.WORKER))
    version = shown["Version"]["Index"]
    assert (await client("POST", "/swarm/update", shown["Spec"], version=version, rotateWorkerToken="true"))[0] == 200
    after = (await client("GET", "/swarm"))[1]
    assert after["JoinTokens"]["Worker"] != shown["JoinTokens"]["Worker"]
    assert after["JoinTokens"]["Manager"] == shown["JoinTokens"]["Manager"] and after["Spec"] == shown["Spec"]
    assert (await client("POST", "/swarm/update", shown["Spec"], version=version))[0] == 500
    assert (await client("POST", "/swarm/update", {"Dispatcher": 3}, version=version))[0] == 400
    now = after["Version"]["Index"]
    assert (await client("POST", "/swarm/update", {}, version=now, rotateManagerUnlockKey="1"))[0] == 501
    rotate = {**after["Spec"], "CAConfig": {"ForceRotate": 1}}
    assert (await client("POST", "/swarm/update", rotate, version=now))[0] == 501
    assert (await client("GET", "/swarm"))[1] == after


async def test_summary_unlock_secrets_and_what_is_not_there(swarm, client):
    status, summary = await client("GET", "/internal/swarm-summary")
    assert (status, summary["Nodes"], summary["Managers"]) == (200, 2, 1)
    assert summary["Cluster"]["ID"] == CLUSTER and "JoinTokens" not in summary["Cluster"]
    assert (await client("GET", "/swarm/unlockkey")) == (200, {"UnlockKey": ""})
    assert (await client("POST", "/swarm/unlock", {"UnlockKey": "x"}))[0] == 409
    for kind in ("secrets", "configs"):
        assert await client("GET", f"/{kind}") == (200, [])
        assert (await client("POST", f"/{kind}/create", {"Name": "x"}))[0] == 501
        assert (await client("GET", f"/{kind}/x"))[0] == 404
    assert await client("GET", "/nothing") == (404, {"message": "page not found"})
    assert await client("PUT", "/services") == (404, {"message": "page not found"})


async def test_a_command_that_raft_cannot_carry_is_refused(swarm, client):
    before = swarm.store.view()
    body = service_body()
    body["Labels"] = {str(number): "x" * 1000 for number in range(1100)}
    status, answer = await client("POST", "/services/create", body)
    assert status == 413 and "bytes" in answer["message"] and swarm.store.view() is before


async def test_an_odd_version_header_is_refused(client):
    for text in ("one", "1", "1.x", ".5"):
        assert (await client("GET", "/services", headers={"X-Shoal-Api-Version": text}, status=1))[0] == 400


async def test_a_body_of_another_type_is_refused(client):
    plain = {"Content-Type": "text/plain"}
    status, answer = await client("POST", "/services/create", service_body(), plain)
    assert status == 400 and "must be 'application/json'" in answer["message"]
