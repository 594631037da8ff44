"""For each operation, requests that have to succeed, so that every shape of the specification is seen filled in.

They name the objects of `tests.contract.bed`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shoal.lab.image import archive
from tests.contract.bed import NETWORK, OVER, OVERLAY, PAUSED, RUNNING, SERVICE, STILL, VOLUME, Bed, tar

Json = dict[str, Any]


@dataclass(frozen=True)
class Good:
    """One request. What depends on the host is made by `given`."""

    path: Json = field(default_factory=dict)
    query: Json = field(default_factory=dict)
    body: Any = None
    status: int = 200
    media_type: str = "application/json"
    given: Callable[[Bed], Json] | None = None  # replaces fields


def container(name: str, /, *, status: int = 200, **query: Any) -> Good:
    return Good(path={"id": name}, query=query, status=status)


def filters(**wanted: list[str]) -> Json:
    return {"filters": json.dumps(wanted)}


def _own_node(bed: Bed) -> Json:
    node = bed.call("GET", "/nodes")[0]
    return {"path": {"id": node["ID"]}, "query": {"version": node["Version"]["Index"]}, "body": node["Spec"]}


def _own_swarm(bed: Bed) -> Json:
    found = bed.call("GET", "/swarm")
    return {"query": {"version": found["Version"]["Index"]}, "body": found["Spec"]}


def _own_service(bed: Bed) -> Json:
    found = bed.call("GET", f"/services/{SERVICE}")
    return {"query": {"version": found["Version"]["Index"]}, "body": {**found["Spec"], "Labels": {"a": "b"}}}


def _task(bed: Bed) -> Json:
    return {"path": {"id": bed.tasks()[0]["ID"]}}


def _exec(bed: Bed) -> Json:
    return {"path": {"id": bed.exec_id}}


def _left_exec(bed: Bed) -> Json:
    made = bed.call("POST", f"/containers/{RUNNING}/exec", {"Cmd": ["sleep", "5"], "Tty": True})
    bed.call("POST", f"/exec/{made['Id']}/start", {"Detach": True, "Tty": True})
    return {"path": {"id": made["Id"]}}


def _terminal(bed: Bed) -> Json:
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Tty": True}
    bed.call("POST", "/containers/create?name=contract-terminal", body, ok=(409,))
    bed.call("POST", "/containers/contract-terminal/start")
    return {}


def _connected(bed: Bed) -> Json:
    bed.call("POST", f"/networks/{NETWORK}/connect", {"Container": RUNNING}, ok=(403, 409))
    return {}


def _unconnected(bed: Bed) -> Json:
    bed.call("POST", f"/networks/{NETWORK}/disconnect", {"Container": RUNNING, "Force": True}, ok=(403, 404, 409, 500))
    return {}


def _lately(bed: Bed) -> Json:
    """All that happened so far; it is something."""
    return {"query": {"since": "1", "until": f"{time.time():.9f}"}}


def _without(path: str) -> Callable[[Bed], Json]:
    """What the request makes is not there yet."""

    def given(bed: Bed) -> Json:
        bed.call("DELETE", path, ok=(404,))
        return {}

    return given


MADE = "/containers/contract-made?v=1"
FULL_CONTAINER = {
    "Image": "busybox", "Cmd": ["sleep", "60"], "Env": ["A=1"], "Labels": {"a": "b"}, "WorkingDir": "/tmp",
    "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/anonymous": {}}, "StopSignal": "SIGINT", "StopTimeout": 3,
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Retries": 2}, "Tty": False, "OpenStdin": True,
    "HostConfig": {
        "Binds": [f"{VOLUME}:/volume:ro"], "Tmpfs": {"/scratch": "size=1m"}, "Memory": 64 << 20, "NanoCpus": 500000000,
        "PidsLimit": 100, "PortBindings": {"80/tcp": [{"HostPort": "18080"}]}, "CapAdd": ["NET_ADMIN"], "Init": True,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}, "Ulimits": [{"Name": "nofile", "Soft": 64,
        "Hard": 64}], "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}, "Dns": ["10.213.0.53"],
        "ExtraHosts": ["there:10.213.0.9"],
    },
    "NetworkingConfig": {"EndpointsConfig": {NETWORK: {"Aliases": ["other"]}}},
}
FULL_SERVICE = {
    "Name": "contract-full", "Labels": {"a": "b"}, "Mode": {"Replicated": {"Replicas": 0}},
    "TaskTemplate": {
        "ContainerSpec": {"Image": "busybox", "Command": ["sleep", "60"], "Env": ["A=1"], "Labels": {"a": "b"},
                          "Mounts": [{"Type": "volume", "Source": "made", "Target": "/made"}],
                          "DNSConfig": {"Nameservers": ["10.213.0.53"]}, "StopGracePeriod": 1000000000},
        "Resources": {"Limits": {"MemoryBytes": 64 << 20}, "Reservations": {"NanoCPUs": 1000000}},
        "RestartPolicy": {"Condition": "any", "Delay": 1000000000, "MaxAttempts": 3},
        "Placement": {"Constraints": ["node.role == manager"], "MaxReplicas": 2}, "Networks": [{"Target": OVERLAY}],
    },
    "UpdateConfig": {"Parallelism": 1, "Delay": 1000000000, "FailureAction": "pause", "Order": "start-first"},
    "EndpointSpec": {"Mode": "vip", "Ports": [
        {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 18081, "PublishMode": "host"}]},
}

GOOD: dict[str, list[Good]] = {
    "GET /containers/json": [Good(query={"all": True, "size": True}),
                             Good(query={"all": True, **filters(label=["contract=1"])})],
    "POST /containers/create": [
        Good(query={"name": "contract-made"}, body=body, status=201, given=_without(MADE))
        for body in ({"Image": "busybox"}, FULL_CONTAINER)],
    "GET /containers/{id}/json": [container(name, size=True)
                                  for name in (STILL, RUNNING, PAUSED, OVER, "contract-made")],
    "GET /containers/{id}/top": [container(RUNNING), container(RUNNING, ps_args="aux")],
    "GET /containers/{id}/logs": [container(OVER, stdout=True, stderr=True, timestamps=True, tail="1")],
    "GET /containers/{id}/changes": [container(OVER), container(STILL)],
    "GET /containers/{id}/export": [container(OVER)],
    "GET /containers/{id}/stats": [container(RUNNING, stream=False),
                                   container(OVER, stream=False, **{"one-shot": True})],
    "POST /containers/{id}/resize": [Good(path={"id": "contract-terminal"}, query={"h": 10, "w": 20}, given=_terminal)],
    "POST /containers/{id}/start": [container(STILL, status=204), container(RUNNING, status=304)],
    "POST /containers/{id}/stop": [container(RUNNING, status=204, t=0), container(OVER, status=304)],
    "POST /containers/{id}/restart": [container(RUNNING, status=204, t=0)],
    "POST /containers/{id}/kill": [container(RUNNING, status=204, signal="SIGUSR1")],
    "POST /containers/{id}/update": [Good(path={"id": RUNNING}, body={"Memory": 128 << 20, "MemorySwap": -1})],
    "POST /containers/{id}/rename": [container(STILL, status=204, name="contract-renamed"),
                                     container("contract-renamed", status=204, name=STILL)],
    "POST /containers/{id}/pause": [container(RUNNING, status=204)],
    "POST /containers/{id}/unpause": [container(PAUSED, status=204)],
    "POST /containers/{id}/wait": [container(OVER), container(STILL, condition="not-running")],
    "DELETE /containers/{id}": [container(STILL, status=204, v=True), container(RUNNING, status=204, force=True)],
    "HEAD /containers/{id}/archive": [container(OVER, path="/etc")],
    "GET /containers/{id}/archive": [container(OVER, path="/changed")],
    "PUT /containers/{id}/archive": [Good(path={"id": STILL}, query={"path": "/"}, body=tar(file=b"x"),
                                          media_type="application/x-tar")],
    "POST /containers/prune": [Good(query=filters(label=["contract=1"])), Good(query=filters(label=["nothing"]))],
    "GET /images/json": [Good(), Good(query={"all": True, "digests": True, "shared-size": True, "manifests": True})],
    "POST /build/prune": [Good()],
    "POST /commit": [Good(query={"container": OVER}, body={"Env": ["A=1"]}, status=201)],
    "POST /images/create": [
        Good(query={"fromSrc": "-", "repo": "contract", "tag": "imported"}, body=tar(file=b"x"),
             media_type="application/octet-stream")],
    "GET /images/{name}/json": [Good(path={"name": "busybox"})],
    "GET /images/{name}/history": [Good(path={"name": "busybox"})],
    "POST /images/{name}/tag": [Good(path={"name": "busybox"}, query={"repo": "contract", "tag": "other"}, status=201)],
    "DELETE /images/{name}": [Good(path={"name": "contract:tag"})],
    "POST /images/prune": [Good()],
    "GET /info": [Good()],
    "GET /version": [Good()],
    "GET /_ping": [Good()],
    "HEAD /_ping": [Good()],
    "GET /events": [Good(query={"since": "1", "until": "1"}, given=_lately), Good(query={"until": "1"})],
    "GET /system/df": [Good(), Good(query={"type": ["image"]})],
    "GET /images/{name}/get": [Good(path={"name": "busybox"})],
    "GET /images/get": [Good(query={"names": ["busybox"]})],
    "POST /images/load": [Good(body=archive()[0], media_type="application/x-tar", query={"quiet": True})],
    "POST /containers/{id}/exec": [Good(path={"id": RUNNING}, status=201, body={"Cmd": ["true"], "Env": ["A=1"]})],
    "POST /exec/{id}/resize": [Good(query={"h": 10, "w": 10}, given=_left_exec)],
    "GET /exec/{id}/json": [Good(given=_exec), Good(given=_left_exec)],
    "GET /volumes": [Good(), Good(query=filters(label=["contract"]))],
    "POST /volumes/create": [Good(body={"Name": "contract-other", "Labels": {"a": "b"}}, status=201),
                             Good(body={}, status=201)],
    "GET /volumes/{name}": [Good(path={"name": VOLUME})],
    "DELETE /volumes/{name}": [Good(path={"name": VOLUME}, status=204, given=_without(MADE))],
    "POST /volumes/prune": [Good(query=filters(all=["true"]))],
    "GET /networks": [Good(), Good(query=filters(driver=["bridge"]))],
    "GET /networks/{id}": [Good(path={"id": NETWORK}, given=_connected),
                           Good(path={"id": OVERLAY}, query={"verbose": True}), Good(path={"id": "bridge"}),
                           Good(path={"id": "host"})],
    "DELETE /networks/{id}": [Good(path={"id": NETWORK}, status=204, given=_unconnected)],
    "POST /networks/create": [
        Good(body={"Name": "contract-other"}, status=201, given=_without("/networks/contract-other")),
        Good(body={"Name": "contract-other", "Driver": "bridge", "Internal": True, "Labels": {"a": "b"}, "Options": {
            "com.docker.network.driver.mtu": "1400"}, "IPAM": {"Config": [{"Subnet": "10.214.0.0/24",
            "Gateway": "10.214.0.1", "AuxiliaryAddresses": {"a": "10.214.0.9"}}, {"Subnet": "fd14::/64"}]},
            "EnableIPv6": True}, status=201, given=_without("/networks/contract-other"))],
    "POST /networks/{id}/connect": [Good(path={"id": NETWORK}, body={"Container": RUNNING, "EndpointConfig": {
        "Aliases": ["one"], "Links": [f"{OVER}:two"], "GwPriority": 3, "DriverOpts": {"a": "b"}}},
        given=_unconnected)],
    "POST /networks/{id}/disconnect": [Good(path={"id": NETWORK}, body={"Container": RUNNING}, given=_connected)],
    "POST /networks/prune": [Good(query=filters(label=["nothing"]))],
    "GET /plugins": [Good()],
    "GET /nodes": [Good()],
    "GET /nodes/{id}": [Good(path={"id": "self"})],
    "POST /nodes/{id}/update": [Good(given=_own_node)],
    "GET /swarm": [Good()],
    "POST /swarm/update": [Good(given=_own_swarm)],
    "GET /services": [Good(query={"status": True}), Good(query=filters(name=[SERVICE]))],
    "POST /services/create": [Good(body=FULL_SERVICE, status=201, given=_without("/services/contract-full"))],
    "GET /services/{id}": [Good(path={"id": SERVICE}), Good(path={"id": SERVICE}, query={"insertDefaults": True}),
                           Good(path={"id": "contract-full"})],
    "DELETE /services/{id}": [Good(path={"id": SERVICE})],
    "POST /services/{id}/update": [Good(path={"id": SERVICE}, given=_own_service)],
    "GET /services/{id}/logs": [Good(path={"id": SERVICE}, query={"stdout": True})],
    "GET /tasks": [Good(), Good(query=filters(service=[SERVICE]))],
    "GET /tasks/{id}": [Good(given=_task)],
    "GET /tasks/{id}/logs": [Good(query={"stdout": True}, given=_task)],
    "GET /secrets": [Good()],
    "GET /configs": [Good()],
}
