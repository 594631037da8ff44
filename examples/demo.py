"""The demonstration: five hosts on this machine, a service across them, and what happens when hosts die.

    make demo        # as root

Three managers and two workers come up as a lab. A web service of six replicas
answers with the name of its host; a client calls it by name over an overlay
network. Then a worker is powered off, then the leading manager. The exit code is
not 0 where anything of this does not happen. The lab is taken down in any case.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from shoal.api.errors import ShoalError
from shoal.cli.client import Client, ClientError
from shoal.cli.output import table
from shoal.lab import lab as labs
from shoal.lab.plan import LabPlan

NAME = "demo"
REPLICAS = 6
LIMIT_S = 60.0
"""Nothing here takes as long; a step that does has failed."""

WEB = "mkdir -p /www && echo $HOST > /www/index.html && exec httpd -f -p 80 -h /www"
CALLS = "while true; do timeout 2 wget -q -O - http://web/ || echo nobody; sleep 0.1; done"

Json = dict[str, Any]


class Failed(Exception):
    """The demonstration did not show what it should."""


def main() -> None:
    begin = time.monotonic()
    try:
        lab = labs.up(NAME, managers=3, workers=2)
        try:
            say(f"five hosts form a swarm after {time.monotonic() - begin:.1f} s")
            demonstrate(lab)
        finally:
            labs.down(NAME)
    except (Failed, ShoalError) as error:
        sys.exit(f"the demo failed: {error}")
    say("the lab is gone. All of it took "
        f"{time.monotonic() - begin:.0f} s. To look around by hand: .venv/bin/shoal lab up --managers 3 --workers 2")


def demonstrate(lab: LabPlan) -> None:
    client = at(lab, "m1")
    nodes = {node["ID"]: node["Description"]["Hostname"] for node in client.call("GET", "/nodes")}
    deploy(client)
    show(client, nodes)
    heard = wait_for("every replica's host to answer", lambda: answers(client), all_hosts(client, nodes))
    say("a client that calls http://web/ was answered by " + counted(heard))
    lose_a_worker(lab, client, nodes)
    lose_the_leader(lab, client)


def deploy(client: Client) -> None:
    """An overlay network, the web service and its client, running."""
    begin = time.monotonic()
    client.call("POST", "/networks/create", body={"Name": "shop", "Driver": "overlay"})
    client.call("POST", "/services/create", body=spec("web", WEB, REPLICAS, ["HOST={{.Node.Hostname}}"]))
    client.call("POST", "/services/create", body=spec("client", CALLS, 1, constraints=["node.hostname==m3"]))
    wait_for(f"{REPLICAS} replicas", lambda: len(running(client, "web")), lambda count: count == REPLICAS)
    wait_for("the client", lambda: len(running(client, "client")), lambda count: count == 1)
    say(f"web ({REPLICAS} replicas) and client run after {time.monotonic() - begin:.1f} s:")


def spec(name: str, script: str, replicas: int, env: Sequence[str] = (), constraints: Sequence[str] = ()) -> Json:
    return {
        "Name": name,
        "Mode": {"Replicated": {"Replicas": replicas}},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox", "Command": ["sh", "-c", script], "Env": list(env), "Init": True},
            "Networks": [{"Target": "shop"}],
            "Placement": {"Constraints": list(constraints)},
        },
    }


def lose_a_worker(lab: LabPlan, client: Client, nodes: dict[str, str]) -> None:
    """Power off w2: its replicas have to run elsewhere, and the client to be answered by those that live."""
    lost = next(node for node, name in nodes.items() if name == "w2")
    had = sum(task["NodeID"] == lost for task in running(client, "web"))
    say(f"power off w2, which runs {had} replica{'s' if had != 1 else ''} …")
    begin = time.monotonic()
    labs.crash(lab, lab.host("w2"))
    wait_for("the replicas to run elsewhere", lambda: sum(task["NodeID"] != lost for task in running(client, "web")),
             lambda count: count == REPLICAS)
    say(f"all {REPLICAS} replicas run again, none on w2, {time.monotonic() - begin:.1f} s after it died:")
    show(client, nodes)
    before = len(lines(client))
    heard = wait_for("20 more answers", lambda: Counter(lines(client)[before:]), lambda found: found.total() >= 20)
    say("the client is answered by " + counted(heard))
    if heard["w2"] > 1:  # one line may have been under way
        raise Failed("the client still hears the host that is off")


def lose_the_leader(lab: LabPlan, client: Client) -> None:
    """Power off the leader: the next write has to succeed at another manager."""
    leader = next(node["Description"]["Hostname"] for node in client.call("GET", "/nodes")
                  if (node.get("ManagerStatus") or {}).get("Leader"))
    other = at(lab, next(host.name for host in lab.hosts if host.manager and host.name != leader))
    say(f"power off the leader, {leader} …")
    begin = time.monotonic()
    labs.crash(lab, lab.host(leader))
    wait_for("a write to succeed", lambda: scaled(other, REPLICAS + 2), lambda done: done)
    say(f"web was scaled to {REPLICAS + 2} by another manager, {time.monotonic() - begin:.1f} s after the leader died")
    wait_for("the new replicas", lambda: len(running(other, "web")), lambda count: count >= REPLICAS + 2)


# --- asking ---


def at(lab: LabPlan, host: str) -> Client:
    return Client(f"unix://{lab.socket(lab.host(host))}")


def running(client: Client, service: str) -> list[Json]:
    """The tasks of a service that run and should. [] while no manager can answer."""
    try:
        tasks = client.call("GET", "/tasks", {"filters": {"service": [service], "desired-state": ["running"]}})
    except ClientError:
        return []
    return [task for task in tasks if task["Status"]["State"] == "running"]


def scaled(client: Client, replicas: int) -> bool:
    """Whether the service could be scaled. A refusal is no failure while there is no leader."""
    try:
        found = client.call("GET", "/services/web")
        found["Spec"]["Mode"]["Replicated"]["Replicas"] = replicas
        client.call("POST", f"/services/{found['ID']}/update", {"version": found["Version"]["Index"]}, found["Spec"])
    except ClientError:
        return False
    return True


def lines(client: Client) -> list[str]:
    """What the client service has written."""
    frames = client.frames("/services/client/logs", {"stdout": True})
    return b"".join(data for _, data in frames).decode().split()


def answers(client: Client) -> Counter[str]:
    return Counter(lines(client))


def all_hosts(client: Client, nodes: dict[str, str]) -> Callable[[Counter[str]], bool]:
    """Whether each host with a replica has been heard."""
    wanted = {nodes[task["NodeID"]] for task in running(client, "web")}
    return lambda heard: wanted <= heard.keys()


def wait_for(what: str, look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """What `look` gives once it is enough. Raises Failed."""
    deadline = time.monotonic() + LIMIT_S
    while not enough(found := look()):
        if time.monotonic() > deadline:
            raise Failed(f"waited {LIMIT_S:.0f} s for {what}; found {found}")
        time.sleep(0.05)
    return found


# --- telling ---


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def counted(heard: Counter[str]) -> str:
    return ", ".join(f"{name} ({count}×)" for name, count in sorted(heard.items()))


def show(client: Client, nodes: dict[str, str]) -> None:
    """Where everything runs."""
    rows = []
    for service in ("web", "client"):
        for task in sorted(running(client, service), key=lambda each: each["Slot"]):
            address = task["NetworksAttachments"][-1]["Addresses"][0]
            rows.append([f"{service}.{task['Slot']}", nodes[task["NodeID"]], address, task["Status"]["State"]])
    table(["TASK", "HOST", "ADDRESS", "STATE"], rows)


if __name__ == "__main__":
    main()
