"""A swarm's life on a stock kernel: cgroup v2, two OCI runtimes, power that fails. Each test goes on from the last.

Both ways to start shoald go through all of it: by hand on a bare init, and as a systemd unit.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from shoal.api.membership import MANAGER_PORT
from shoal.cli.client import STDOUT, ClientError
from tests.vm import apparmor, blockio, nfs
from tests.vm.containers import begin_container, cgroup, execute, pid_of, remove_container
from tests.vm.hosts import RUNTIMES, Hosts
from tests.vm.machines import Machine, each

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

NET = "shop"
CONFINED = ("for it in 1 self; do [ $it = 1 ] || echo --; cat /proc/$it/cgroup; "
            "cat /proc/$it/attr/current; grep -E '^(Cap|NoNewPrivs|Seccomp|Groups)' /proc/$it/status; done 2>&1")
"""What holds for the container's first process, and what for an exec."""
WEB = "mkdir -p /www && echo $HOST > /www/index.html && exec httpd -f -p 80 -h /www"
RESOLVE = "nslookup web | sed -n '/^Name/,$ s/^Address[^:]*: *//p'"
CALLS = (f'until vip=$({RESOLVE}) && [ -n "$vip" ]; do sleep 1; done; '
         'while true; do timeout 20 wget -q -O - "http://$vip/" || echo nobody; sleep 1; done')
LATELY_S = 20.0
MIB = 1 << 20
LIMITS = {"NanoCPUs": 200_000_000, "MemoryBytes": 64 * MIB, "Pids": 30}

Json = dict[str, Any]


def test_daemons_start(hosts: Hosts) -> None:
    """cgroup v2 and the runtime of each are in `docker info`; no host is degraded."""
    with hosts.step("start shoald on three machines"):
        hosts.start()
    for name in hosts.names:
        info = hosts.wait_for_daemon(name)
        assert info["CgroupVersion"] == "2"
        assert info["DefaultRuntime"] == RUNTIMES[name]
        assert info["Name"] == name
        assert info["CgroupDriver"] == ("systemd" if hosts.way.init == "systemd" else "cgroupfs")
    with hosts.step("load an image on each"):
        hosts.load_image()


def test_both_runtimes_do_what_docker_commands_ask(hosts: Hosts) -> None:
    """exec with and without a terminal, pause, update, stats, top, stop, and a program that is not there."""
    with hosts.step("a container's life on each host"):
        each(hosts.machines.all, lambda machine: lead_a_life(hosts, machine))


def lead_a_life(hosts: Hosts, machine: Machine) -> None:
    client = machine.client()
    made = begin_container(machine, "trap 'exit 5' TERM; while true; do sleep 0.2; done",
                           {"Memory": 32 * MIB, "SecurityOpt": ["apparmor=unconfined"]})
    path = f"/containers/{made}"
    group = cgroup(machine, pid_of(machine, made))
    assert execute(machine, made, "sh", "-c", "echo said; exit 7", tty=True) == (7, "said\r\n")
    assert execute(machine, made, "sh", "-c", "echo said; exit 8") == (8, "said\n")
    code, said = execute(machine, made, "sh", "-c", CONFINED)
    of_init, of_exec = said.split("--\n")
    assert (code, of_exec) == (0, of_init)
    assert "Seccomp:\t2" in of_exec
    spawner = machine.run("pgrep -fc [c]ontainers.spawner", check=False)
    assert spawner == ("1" if client.call("GET", "/info")["DefaultRuntime"] == "runc" else "0")
    client.call("POST", f"{path}/pause")
    assert "frozen 1" in group("cgroup.events")
    client.call("POST", f"{path}/unpause")
    hosts.eventually(lambda: group("cgroup.events"), lambda text: "frozen 0" in text)
    client.call("POST", f"{path}/update", body={"Memory": 48 * MIB, "MemorySwap": 48 * MIB, "PidsLimit": 40})
    assert (group("memory.max"), group("pids.max")) == (str(48 * MIB), "40")
    stats = client.call("GET", f"{path}/stats", {"stream": False})
    assert stats["memory_stats"]["limit"] == 48 * MIB
    assert 0 < stats["memory_stats"]["usage"] < 48 * MIB
    assert stats["pids_stats"]["limit"] == 40
    assert any("sleep" in " ".join(row) for row in client.call("GET", f"{path}/top")["Processes"])
    client.call("POST", f"{path}/stop")
    assert client.call("GET", f"{path}/json")["State"]["ExitCode"] == 5
    client.call("DELETE", path)

    missing = client.call("POST", "/containers/create", body={"Image": "busybox", "Cmd": ["nosuch"]})["Id"]
    with pytest.raises(ClientError, match=r"nosuch.*not found") as refused:
        client.call("POST", f"/containers/{missing}/start")
    assert refused.value.code == 400
    assert client.call("GET", f"/containers/{missing}/json")["State"]["ExitCode"] == 127
    client.call("DELETE", f"/containers/{missing}")


def test_containers_stand_on_vlans_of_the_machines_network(hosts: Hosts) -> None:
    """macvlan and ipvlan on sub-interfaces that shoald makes and removes: modules that a stock kernel has."""
    pair = [hosts.machine("vm1"), hosts.machine("vm2")]
    for driver, vlan in (("macvlan", 10), ("ipvlan", 20)):
        with hosts.step(f"{driver} on a VLAN of two machines"):
            first, second = (on_vlan(machine, driver, vlan, 10 + number) for number, machine in enumerate(pair))
            code, said = execute(pair[1], second, "ping", "-c", "1", "-W", "5", f"10.77.{vlan}.10")
            assert code == 0, said
        for machine, made in zip(pair, (first, second), strict=True):
            machine.client().call("DELETE", f"/containers/{made}", {"force": True})
            machine.client().call("DELETE", f"/networks/{driver}")
            assert f".{vlan}" not in machine.run("ls /sys/class/net")


def on_vlan(machine: Machine, driver: str, vlan: int, last: int) -> str:
    """A container on a network whose parent is a VLAN of the machines' network."""
    client = machine.client()
    client.call("POST", "/networks/create", body={
        "Name": driver, "Driver": driver, "Options": {"parent": f"eth1.{vlan}"},
        "IPAM": {"Config": [{"Subnet": f"10.77.{vlan}.0/24"}]}})
    made: str = client.call("POST", "/containers/create", body={
        "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": driver},
        "NetworkingConfig": {"EndpointsConfig": {driver: {"IPAMConfig": {"IPv4Address": f"10.77.{vlan}.{last}"}}}},
    })["Id"]
    client.call("POST", f"/containers/{made}/start")
    return made


def test_a_named_apparmor_profile_denies(hosts: Hosts) -> None:
    with hosts.step("AppArmor: a profile that denies, and one that is not there"):
        each(hosts.machines.all, apparmor.denies)


def test_weights_of_block_devices_are_what_the_scheduler_has(hosts: Hosts) -> None:
    with hosts.step("weights without BFQ, then with it"):
        each(hosts.machines.all, blockio.without_bfq)
        each(hosts.machines.all, lambda machine: blockio.with_bfq(hosts, machine))


def test_volumes_are_mounted_from_an_nfs_server(hosts: Hosts) -> None:
    with hosts.step("vm1 exports, a container on vm2 writes by NFSv4, one on vm3 reads by NFSv3"):
        nfs.shares(hosts)


def test_an_nfs_server_that_is_silent_stops_nobody(hosts: Hosts) -> None:
    with hosts.step("an NFS server is cut off"):
        nfs.falls_silent(hosts)


def test_one_manager_and_two_workers_form_a_swarm(hosts: Hosts) -> None:
    vm1 = hosts.machine("vm1")
    listen = {"ListenAddr": f"0.0.0.0:{MANAGER_PORT}"}
    with hosts.step("swarm init"):
        spec = {"Dispatcher": {"HeartbeatPeriod": hosts.heartbeat_ns}}
        hosts.client("vm1").call("POST", "/swarm/init", body={**listen, "AdvertiseAddr": vm1.address, "Spec": spec})
    swarm = hosts.client("vm1").call("GET", "/swarm")
    assert swarm["Spec"]["Dispatcher"]["HeartbeatPeriod"] == hosts.heartbeat_ns

    def join(machine: Machine) -> None:
        machine.client().call("POST", "/swarm/join", body={
            **listen, "AdvertiseAddr": machine.address, "RemoteAddrs": [f"{vm1.address}:{MANAGER_PORT}"],
            "JoinToken": swarm["JoinTokens"]["Worker"]})

    with hosts.step("two workers join"):
        each([hosts.machine("vm2"), hosts.machine("vm3")], join)
        hosts.all_ready()


def test_a_service_is_reached_by_name_through_its_vip(hosts: Hosts) -> None:
    """Over VXLAN: a client on each host hears all three; `web` is one address, `tasks.web` three."""
    with hosts.step("network, web service of three replicas, a client on each host"):
        hosts.network(NET)
        hosts.service("web", 3, command=("sh", "-c", WEB), networks=[NET],
                      container={"Env": ["HOST={{.Node.Hostname}}"]})
        hosts.service("client", None, command=("sh", "-c", CALLS), networks=[NET])
        hosts.runs("web", 3)
        hosts.runs("client", 3)
    assert hosts.hosts_of("web") == ["vm1", "vm2", "vm3"]
    with hosts.step("the clients hear all three"):
        answered_by_those_of_web(hosts)
    found = hosts.any_manager().call("GET", "/services/web")
    vip = found["Endpoint"]["VirtualIPs"][0]["Addr"].partition("/")[0]
    own = {task["NetworksAttachments"][0]["Addresses"][0].partition("/")[0] for task in hosts.running("web")}
    assert resolved(hosts, "web") == {vip}
    assert resolved(hosts, "tasks.web") == own


def resolved(hosts: Hosts, name: str) -> set[str]:
    """What the client on vm2 resolves a name to."""
    task, = (task for task in hosts.running("client") if task["NodeID"] == hosts.node_id("vm2"))
    code, output = execute(hosts.machine("vm2"), task["Status"]["ContainerStatus"]["ContainerID"], "nslookup", name)
    assert code == 0, output
    answer = output.partition("Name:")[2]
    return {line.split()[-1] for line in answer.splitlines() if line.startswith("Address")}


def test_a_services_limits_stand_in_cgroup_v2(hosts: Hosts) -> None:
    with hosts.step("a limited task on each host, read back"):
        hosts.service("limited", None, task={"Resources": {"Limits": LIMITS}})
        tasks = hosts.runs("limited", 3)
        names = {node_id: name for name, (node_id, _) in hosts.nodes().items()}
        for task in tasks:
            group = cgroup(hosts.machine(names[task["NodeID"]]), task["Status"]["ContainerStatus"]["PID"])
            assert group("memory.max") == str(64 * MIB)
            assert group("cpu.max") == "20000 100000"
            assert group("pids.max") == "30"
        hosts.any_manager().call("DELETE", "/services/limited")


def test_limits_are_enforced_by_both_runtimes(hosts: Hosts) -> None:
    with hosts.step("memory, CPU and PIDs exhausted on each host"):
        each(hosts.machines.all, lambda machine: exhaust(hosts, machine))


def exhaust(hosts: Hosts, machine: Machine) -> None:
    client = machine.client()
    hog = begin_container(machine, "exec dd if=/dev/zero of=/dev/null bs=200M count=1",
                          {"Memory": 24 * MIB, "MemorySwap": 24 * MIB})
    ended = client.call("POST", f"/containers/{hog}/wait")
    state = client.call("GET", f"/containers/{hog}/json")["State"]
    assert ended["StatusCode"] == 137, state
    assert state["OOMKilled"], state

    forks = begin_container(machine, "(for i in $(seq 30); do sleep 1000 & done); exec sleep 1000", {"PidsLimit": 10})
    group = cgroup(machine, pid_of(machine, forks))
    hosts.eventually(lambda: group("pids.events"), lambda text: int(text.split()[1]) > 0)
    assert int(group("pids.current")) <= 10

    spins = begin_container(machine, "while true; do true; done", {"NanoCpus": 100_000_000})
    group = cgroup(machine, pid_of(machine, spins))
    throttled = "nr_throttled "
    hosts.eventually(lambda: group("cpu.stat"), lambda text: int(text.partition(throttled)[2].split()[0]) > 5)
    for container_id in (hog, forks, spins):
        remove_container(machine, container_id)
        assert machine.run(f"find /sys/fs/cgroup -name '*{container_id}*'") == ""


def test_containers_outlive_a_restart_of_shoald(hosts: Hosts) -> None:
    """On all three at once: same processes afterwards, same tasks, and clients are answered all the while.

    (By the VIP. Names are answered by shoald, and are again when it is back.)
    """
    before, named = processes(hosts), resolved(hosts, "web")
    tasks = {task["ID"] for task in hosts.running("web")}
    begin = now(hosts)
    with hosts.step("restart shoald on all three"):
        each(hosts.machines.all, hosts.way.restart)
        for name in hosts.names:
            hosts.wait_for_daemon(name)
        hosts.all_ready()
    assert processes(hosts) == before
    assert resolved(hosts, "web") == named
    hosts.eventually(lambda: heard(hosts, begin), lambda lines: len(lines) > 10)
    assert "nobody" not in heard(hosts, begin)
    assert {task["ID"] for task in hosts.running("web")} == tasks


def processes(hosts: Hosts) -> dict[str, list[tuple[str, int]]]:
    """Of each host: container ids and their first processes."""
    found = {}
    for name in hosts.names:
        listed = hosts.client(name).call("GET", "/containers/json")
        found[name] = sorted((one["Id"], pid_of(hosts.machine(name), one["Id"])) for one in listed)
    return found


def test_a_worker_loses_its_power(hosts: Hosts) -> None:
    with hosts.step("power off worker vm3, its task runs elsewhere"):
        hosts.machine("vm3").power_off()
        hosts.eventually(lambda: hosts.hosts_of("web"), lambda names: len(names) == 3 and "vm3" not in names, 30)
    answered_by_those_of_web(hosts)
    with hosts.step("vm3 is back"):
        hosts.boot("vm3")
        hosts.all_ready()
    of_web = {"filters": {"label": ["com.docker.swarm.service.name=web"]}}
    hosts.eventually(lambda: hosts.client("vm3").call("GET", "/containers/json", of_web), lambda found: found == [])


def answered_by_those_of_web(hosts: Hosts) -> None:
    """Until the clients have lately been answered by each host that runs a task of web, and by no others.

    Where these run may change meanwhile: a manager that comes back says what it last knew.
    """
    ahead = now(hosts) - time.time()
    hosts.eventually(lambda: (heard(hosts, time.time() + ahead - LATELY_S), set(hosts.hosts_of("web"))),
                     lambda found: len(found[0]) > 5 and set(found[0]) == found[1], 20)


def now(hosts: Hosts) -> float:
    """The time of the machines, which are emulated and may be late."""
    return float(hosts.machine("vm2").run("date +%s.%N"))


def heard(hosts: Hosts, since: float) -> list[str]:
    """What the clients were answered. (That logs of a lost host are missing is said on another stream.)"""
    frames = hosts.any_manager().frames("/services/client/logs", {"stdout": True, "since": f"{since:.3f}"})
    return b"".join(data for stream, data in frames if stream == STDOUT).decode().split()


def test_workers_become_managers(hosts: Hosts) -> None:
    with hosts.step("promote both workers"):
        for name in ("vm2", "vm3"):
            promote(hosts, name)
            hosts.eventually(lambda name=name: manager_status(hosts, name).get("Reachability"),
                             lambda word: word == "reachable", 20)


def promote(hosts: Hosts, name: str) -> None:
    def attempt() -> bool:
        node = hosts.any_manager().call("GET", f"/nodes/{hosts.node_id(name)}")
        node["Spec"]["Role"] = "manager"
        hosts.any_manager().call("POST", f"/nodes/{node['ID']}/update", {"version": node["Version"]["Index"]},
                                 node["Spec"])
        return True

    hosts.eventually(attempt)


def manager_status(hosts: Hosts, name: str) -> Json:
    found: Json = hosts.any_manager().call("GET", f"/nodes/{hosts.node_id(name)}").get("ManagerStatus") or {}
    return found


def test_the_leader_loses_its_power(hosts: Hosts) -> None:
    lost = hosts.eventually(hosts.leader)
    left = set(hosts.names) - {lost}
    with hosts.step("power off the leader, another manager takes a write"):
        hosts.machine(lost).power_off()
        hosts.update("web", lambda spec: spec["Mode"]["Replicated"].update(Replicas=4))
    with hosts.step("four replicas run on the other two"):
        hosts.eventually(lambda: hosts.hosts_of("web"), lambda names: len(names) == 4 and set(names) == left, 30)
        answered_by_those_of_web(hosts)
    with hosts.step("the lost leader is back, as a manager"):
        hosts.boot(lost)
        hosts.all_ready()
        hosts.eventually(lambda: manager_status(hosts, lost).get("Reachability"), lambda word: word == "reachable")


def test_all_three_boot_again(hosts: Hosts) -> None:
    """By hand: the power fails. systemd: an administrator's reboot, before which containers stop as they wish."""
    vm1 = hosts.machine("vm1")
    orderly = begin_container(vm1, "trap 'exit 5' TERM; while true; do sleep 0.2; done", {})
    vm1.run("sync")  # a power cut undoes what was not written yet, also that it has started
    with hosts.step("all three go down"):
        each(hosts.machines.all, hosts.way.reboot)
    with hosts.step("boot all three"):
        hosts.boot()
    with hosts.step("every service is back"):
        hosts.all_ready(within_s=30)
        hosts.runs("web", 4)
        hosts.runs("client", 3)
        answered_by_those_of_web(hosts)
    state = vm1.client().call("GET", f"/containers/{orderly}/json")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 5 if hosts.way.comes_back else 255)
    vm1.client().call("DELETE", f"/containers/{orderly}")


def test_a_firewall_that_drops_forwarded_packets_is_named(hosts: Hosts) -> None:
    """And overlay traffic, which no host forwards, goes on."""
    vm3 = hosts.machine("vm3")
    vm3.run("nft 'table inet strict { chain passing { type filter hook forward priority 0; policy drop; }; }'")
    with hosts.step("restart shoald behind a strict firewall"):
        hosts.way.restart(vm3)
        hosts.wait_for_daemon("vm3")
        hosts.all_ready()
        hosts.eventually(lambda: hosts.way.log(vm3, 400),
                         lambda text: 'event=forwarding-dropped chain="inet strict passing"' in text)
    answered_by_those_of_web(hosts)
    vm3.run("nft delete table inet strict")


def test_what_the_swarm_made_goes_with_it(hosts: Hosts) -> None:
    with hosts.step("remove the services and leave the swarm"):
        hosts.sweep()
        for name in ("vm3", "vm2", "vm1"):
            hosts.client(name).call("POST", "/swarm/leave", {"force": True})
    for name in hosts.names:
        assert hosts.client(name).call("GET", "/containers/json", {"all": True}) == []
        assert hosts.client(name).call("GET", "/info")["Swarm"]["LocalNodeState"] == "inactive"
        left = "ls /run/shoal/netns 2>/dev/null; pgrep -a conmon; pgrep -a catatonit"
        assert hosts.machine(name).run(left, check=False) == ""
