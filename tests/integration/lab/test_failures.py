"""What dies, and how the cluster heals: workers, links, daemons, leaders, everything."""

from __future__ import annotations

import pytest

from tests.cluster import eventually
from tests.integration.lab.test_networks import HOST, WEB, attach

pytestmark = [pytest.mark.root, pytest.mark.lab]

FETCH = "for i in $(seq 12); do timeout 2 wget -q -O - http://web/; done"


def test_a_crashed_worker_is_replaced_and_comes_back_empty(cluster):
    cluster.network("shop")
    cluster.service("web", 5, command=WEB, container=HOST, networks=["shop"])
    cluster.runs("web", 5)
    _, run = attach(cluster, "m2", "shop")
    cluster.happen("crash", "w2")
    eventually(lambda: cluster.hosts_of("web"), lambda hosts: len(hosts) == 5 and "w2" not in hosts)
    assert cluster.nodes()["w2"][1] == "down"
    answered = eventually(lambda: run("sh", "-c", FETCH)[1].split(), lambda found: len(found) == 12)
    assert "w2" not in answered
    cluster.happen("start", "w2")
    eventually(lambda: cluster.nodes()["w2"][1], lambda state: state == "ready")
    eventually(lambda: cluster.client("w2").call("GET", "/containers/json"), lambda left: not left)
    assert len(cluster.running("web")) == 5


def test_a_worker_behind_a_cut_is_replaced_and_stops_its_own_when_healed(cluster):
    cluster.service("web", 5)
    cluster.runs("web", 5)
    cluster.happen("cut", "w1")
    eventually(lambda: cluster.hosts_of("web"), lambda hosts: len(hosts) == 5 and "w1" not in hosts)
    assert len(cluster.client("w1").call("GET", "/containers/json")) == 1, "containers live on behind a cut"
    cluster.happen("heal", "w1")
    eventually(lambda: cluster.nodes()["w1"][1], lambda state: state == "ready")
    eventually(lambda: cluster.client("w1").call("GET", "/containers/json"), lambda left: not left)


def test_a_killed_daemon_leaves_its_containers_alone(cluster):
    cluster.service("web", 1, task={"Placement": {"Constraints": ["node.hostname==w1"]}},
                    command=["sh", "-c", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.05; done"])
    task, = cluster.runs("web", 1)
    eventually(lambda: len(cluster.logs("web")), lambda count: count > 3)
    pid = cluster.client("w1").call("GET", f"/containers/{_container(task)}/json")["State"]["Pid"]
    cluster.happen("kill", "w1")
    assert cluster.inside("w1", "test", "-d", f"/proc/{pid}").returncode == 0
    cluster.happen("start", "w1")
    eventually(lambda: [each["ID"] for each in cluster.running("web")], lambda ids: ids == [task["ID"]])
    shown = cluster.client("w1").call("GET", f"/containers/{_container(task)}/json")["State"]
    assert (shown["Running"], shown["Pid"]) == (True, pid)
    before = len(cluster.logs("web"))
    lines = eventually(lambda: cluster.logs("web"), lambda found: len(found) > before + 5)
    assert lines == [f"line {number}" for number in range(len(lines))], "no line is lost or doubled"


def test_what_ended_while_the_daemon_was_down_is_reported_with_its_exit_code(cluster):
    cluster.service("ending", 1, command=["sh", "-c", "until test -e /tmp/go; do sleep 0.05; done; exit 7"],
                    task={"RestartPolicy": {"Condition": "none"},
                          "Placement": {"Constraints": ["node.hostname==w1"]}})
    task, = cluster.runs("ending", 1)
    pid = cluster.client("w1").call("GET", f"/containers/{_container(task)}/json")["State"]["Pid"]
    cluster.happen("kill", "w1")
    cluster.inside("w1", "touch", f"/proc/{pid}/root/tmp/go")
    eventually(lambda: cluster.inside("w1", "test", "-d", f"/proc/{pid}").returncode != 0)
    cluster.happen("start", "w1")
    found = eventually(lambda: cluster.tasks("ending")[0]["Status"], lambda status: status["State"] == "failed")
    assert found["ContainerStatus"]["ExitCode"] == 7


def _container(task):
    return task["Status"]["ContainerStatus"]["ContainerID"]


def test_a_crashed_leader_is_followed_by_another_and_nothing_acknowledged_is_lost(cluster):
    cluster.service("web", 3)
    cluster.runs("web", 3)
    old = cluster.leader()
    cluster.happen("crash", old)
    made = eventually(lambda: cluster.network("after"))
    assert cluster.leader() not in ("", old)
    assert made in [each["Id"] for each in cluster.any_manager().call("GET", "/networks")]
    assert [each["Spec"]["Name"] for each in cluster.any_manager().call("GET", "/services")] == ["web"]
    cluster.happen("start", old)
    eventually(lambda: cluster.nodes()[old][1], lambda state: state == "ready")
    eventually(lambda: made in [each["Id"] for each in cluster.client(old).call("GET", "/networks")])


def test_a_leader_behind_a_cut_is_deposed_and_follows_when_healed(cluster):
    old = cluster.leader()
    others = [name for name in ("m1", "m2", "m3") if name != old]
    cluster.happen("cut", old)
    eventually(lambda: cluster.client(others[0]).call("POST", "/networks/create",
                                                      body={"Name": "beyond", "Driver": "overlay"}))
    cluster.happen("heal", old)
    eventually(lambda: "beyond" in [each["Name"] for each in cluster.client(old).call("GET", "/networks")])


def test_killed_managers_come_back_again_and_again(cluster):
    """SIGKILL to a manager host's processes at whatever moment; in the end nothing acknowledged is gone."""
    made = []
    for number, victim in enumerate(["m1", "m2", "m3", "m1", "m3"]):
        made.append(eventually(lambda number=number: cluster.network(f"net{number}")))
        cluster.happen("kill", victim)
        cluster.happen("start", victim)
    cluster.restore()
    for host in ("m1", "m2", "m3"):
        eventually(lambda host=host: {each["Id"] for each in cluster.client(host).call("GET", "/networks")},
                   lambda listed: set(made) <= listed)


def test_all_managers_lost_and_restarted(cluster):
    cluster.network("shop")
    cluster.service("web", 4, command=WEB, container=HOST, networks=["shop"],
                    task={"Placement": {"Constraints": ["node.role==worker"]}})
    before = {task["ID"] for task in cluster.runs("web", 4)}
    _, run = attach(cluster, "w1", "shop")
    cluster.happen("crash", "m1", "m2", "m3")
    answered = eventually(lambda: run("sh", "-c", FETCH)[1].split(), lambda found: set(found) == {"w1", "w2"})
    assert len(answered) == 12, "without managers containers go on, and names are answered"
    cluster.happen("start", "m1", "m2", "m3")
    cluster.restore()
    assert {task["ID"] for task in cluster.runs("web", 4)} == before, "nothing was moved"


def test_promotion_and_demotion(cluster):
    role(cluster, "w1", "manager")
    eventually(lambda: cluster.client("w1").call("GET", "/nodes"))
    eventually(lambda: manager_status(cluster, "w1").get("Reachability"), lambda word: word == "reachable")
    role(cluster, "w1", "worker")
    eventually(lambda: manager_status(cluster, "w1"), lambda status: not status)
    cluster.service("web", 5)
    cluster.runs("web", 5)


def manager_status(cluster, host):
    return cluster.any_manager().call("GET", f"/nodes/{cluster.node_id(host)}").get("ManagerStatus") or {}


def role(cluster, host, word):
    def attempt():
        node = cluster.any_manager().call("GET", f"/nodes/{cluster.node_id(host)}")
        cluster.any_manager().call("POST", f"/nodes/{node['ID']}/update", {"version": node["Version"]["Index"]},
                                   {**node["Spec"], "Role": word})
        return True

    eventually(attempt)
