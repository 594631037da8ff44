"""Services on five real hosts: placement, updates, drain, and why something does not run."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from shoal.cli.client import ClientError
from tests.cluster import eventually

pytestmark = [pytest.mark.root, pytest.mark.lab]


def pending_reasons(cluster, service):
    return {task["Status"].get("Err", "") for task in cluster.tasks(service) if task["Status"]["State"] == "pending"}


def test_replicas_spread_over_the_hosts_and_scale(cluster):
    cluster.service("web", 5)
    cluster.runs("web", 5)
    assert cluster.hosts_of("web") == cluster.names
    web = cluster.any_manager().call("GET", "/services/web")["ID"]

    cluster.update("web", lambda spec: spec["Mode"]["Replicated"].update(Replicas=10))
    cluster.runs("web", 10)
    assert set(Counter(cluster.hosts_of("web")).values()) == {2}

    cluster.update("web", lambda spec: spec["Mode"]["Replicated"].update(Replicas=2))
    cluster.runs("web", 2)
    cluster.any_manager().call("DELETE", "/services/web")
    for manager in (name for name in cluster.names if name.startswith("m")):  # each of them, whichever leads
        eventually(lambda manager=manager: told_of(cluster, manager, web),
                   lambda told: told[0] == ("create", None) and told[-1] == ("remove", None)
                   and {("update", "10"), ("update", "2")} <= set(told))
    eventually(lambda: [mine["Id"] for host in cluster.names
                        for mine in cluster.client(host).call("GET", "/containers/json", {"all": True})],
               lambda left: not left)


def told_of(cluster, host, service_id):
    """(action, new number of replicas) of each event of the swarm about this service, as this host tells them."""
    query = {"since": 1, "until": time.time(), "filters": {"scope": ["swarm"], "service": [service_id]}}
    return [(event["Action"], event["Actor"]["Attributes"].get("replicas.new"))
            for event in cluster.client(host).messages("GET", "/events", query)]


def test_a_global_service_has_a_task_on_each_host(cluster):
    cluster.service("agent", None)
    cluster.runs("agent", 5)
    assert cluster.hosts_of("agent") == cluster.names


def test_constraints_and_labels_choose_hosts(cluster):
    client = cluster.any_manager()
    node = client.call("GET", "/nodes/w1")
    labelled = {**node["Spec"], "Labels": {"disk": "ssd"}}
    client.call("POST", f"/nodes/{node['ID']}/update", {"version": node["Version"]["Index"]}, labelled)
    cluster.service("workers", 4, task={"Placement": {"Constraints": ["node.role==worker"]}})
    cluster.service("fast", 2, task={"Placement": {"Constraints": ["node.labels.disk==ssd"]}})
    cluster.runs("workers", 4)
    cluster.runs("fast", 2)
    assert cluster.hosts_of("workers") == ["w1", "w1", "w2", "w2"]
    assert cluster.hosts_of("fast") == ["w1", "w1"]

    node = client.call("GET", "/nodes/w1")
    client.call("POST", f"/nodes/{node['ID']}/update", {"version": node["Version"]["Index"]},
                {**node["Spec"], "Labels": {}})
    eventually(lambda: pending_reasons(cluster, "fast"),
               lambda found: found == {"no suitable node (scheduling constraints not satisfied on 5 nodes)"})


def test_a_task_that_cannot_be_placed_says_why(cluster):
    resources = {"Reservations": {"MemoryBytes": 1 << 50}}
    cluster.service("big", 1, task={"Resources": resources})
    eventually(lambda: pending_reasons(cluster, "big"),
               lambda found: found == {"no suitable node (insufficient resources on 5 nodes)"}
               or found == {"no suitable node (insufficient memory on 5 nodes)"})
    cluster.service("few", 7, task={"Placement": {"MaxReplicas": 1}})
    cluster.runs("few", 5)
    reasons = eventually(lambda: pending_reasons(cluster, "few"))
    assert len(reasons) == 1 and "max replicas per node limit" in reasons.pop()


def test_drain_moves_tasks_and_active_takes_new_ones(cluster):
    cluster.service("web", 5)
    cluster.runs("web", 5)
    set_availability(cluster, "w2", "drain")
    eventually(lambda: cluster.hosts_of("web"), lambda hosts: len(hosts) == 5 and "w2" not in hosts)
    eventually(lambda: cluster.client("w2").call("GET", "/containers/json"), lambda left: not left)
    set_availability(cluster, "w2", "active")
    cluster.update("web", lambda spec: spec["Mode"]["Replicated"].update(Replicas=6))
    eventually(lambda: cluster.hosts_of("web"), lambda hosts: len(hosts) == 6 and "w2" in hosts)


def set_availability(cluster, host, word):
    def attempt():
        node = cluster.any_manager().call("GET", f"/nodes/{cluster.node_id(host)}")
        cluster.any_manager().call("POST", f"/nodes/{node['ID']}/update", {"version": node["Version"]["Index"]},
                                   {**node["Spec"], "Availability": word})
        return True

    eventually(attempt)


def test_an_update_replaces_tasks_and_a_rollback_brings_the_old_ones_back(cluster):
    cluster.service("web", 3, command=["sh", "-c", "echo version $V; sleep 100000"], container={"Env": ["V=1"]})
    cluster.runs("web", 3)
    cluster.update("web", lambda spec: spec["TaskTemplate"]["ContainerSpec"].update(Env=["V=2"]))

    def versions():
        return [env for task in cluster.running("web") for env in task["Spec"]["ContainerSpec"]["Env"]]

    eventually(versions, lambda found: found == ["V=2"] * 3)
    eventually(lambda: cluster.any_manager().call("GET", "/services/web")["UpdateStatus"]["State"],
               lambda state: state == "completed")
    found = cluster.any_manager().call("GET", "/services/web")
    cluster.any_manager().call("POST", f"/services/{found['ID']}/update",
                               {"version": found["Version"]["Index"], "rollback": "previous"}, found["Spec"])
    eventually(versions, lambda found: found == ["V=1"] * 3)
    assert set(eventually(lambda: cluster.logs("web"))) <= {"version 1", "version 2"}


def test_a_task_that_ends_is_tried_again_as_its_policy_says(cluster):
    policy = {"RestartPolicy": {"Condition": "on-failure", "Delay": 0, "MaxAttempts": 2}}
    cluster.service("failing", 1, command=["sh", "-c", "exit 3"], task=policy)
    eventually(lambda: [task["Status"]["State"] for task in cluster.tasks("failing")],
               lambda states: states == ["failed"] * 3)
    assert {task["Status"]["ContainerStatus"]["ExitCode"] for task in cluster.tasks("failing")} == {3}
    assert {task["Status"]["Err"] for task in cluster.tasks("failing")} == {"task: non-zero exit (3)"}


def test_an_image_that_no_host_has_is_said_in_the_task(cluster):
    cluster.service("ghost", 1, container={"Image": "no-such-image:1"},
                    task={"RestartPolicy": {"Condition": "none"}})
    found = eventually(lambda: [task["Status"] for task in cluster.tasks("ghost")
                                if task["Status"]["State"] == "rejected"])
    assert "No such image: no-such-image:1" in found[0]["Err"]


def test_limits_reach_the_containers_and_templates_are_filled(cluster):
    cluster.service("limited", 1, container={"Env": ["ON={{.Node.Hostname}}", "SLOT={{.Task.Slot}}"]},
                    task={"Resources": {"Limits": {"MemoryBytes": 64 << 20, "NanoCPUs": 500_000_000, "Pids": 50}},
                          "Placement": {"Constraints": ["node.hostname==w1"]}})
    task, = cluster.runs("limited", 1)
    shown = cluster.client("w1").call("GET", f"/containers/{task['Status']['ContainerStatus']['ContainerID']}/json")
    assert {"ON=w1", "SLOT=1"} <= set(shown["Config"]["Env"])
    limits = shown["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (64 << 20, 500_000_000, 50)


@pytest.mark.parametrize(("body", "status", "says"), [
    pytest.param({"Name": "x", "TaskTemplate": {}}, 400, "missing runtime", id="no container"),
    pytest.param({"Name": "-bad-", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}, 400, "name",
                 id="bad name"),
    pytest.param({"Name": "taken", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}, 409,
                 "taken already exists", id="name"),
    pytest.param({"Name": "x", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"},
                                                "Networks": [{"Target": "nowhere"}]}}, 404, "nowhere", id="network"),
])
def test_a_refused_service_changes_nothing(cluster, body, status, says):
    cluster.service("taken", 0)
    before = cluster.any_manager().call("GET", "/services")
    with pytest.raises(ClientError, match=says) as refused:
        cluster.any_manager().call("POST", "/services/create", body=body)
    assert refused.value.code == status
    assert cluster.any_manager().call("GET", "/services") == before


def test_followers_and_workers_answer_as_docker_does(cluster):
    follower = next(name for name in ("m1", "m2", "m3") if name != cluster.leader())
    made = cluster.client(follower).call("POST", "/services/create", body={
        "Name": "by-follower", "TaskTemplate": {"ContainerSpec": {"Image": "busybox", "Command": ["sleep", "1000"]}}})
    assert [each["ID"] for each in cluster.client(cluster.leader()).call("GET", "/services")] == [made["ID"]]
    with pytest.raises(ClientError, match="This node is not a swarm manager") as refused:
        cluster.client("w1").call("GET", "/services")
    assert refused.value.code == 503
