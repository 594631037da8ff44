"""What the contract test runs against: one host in a swarm of its own, with an object of each noun under a known name.

Requests change and remove what they name, so `Bed.mend` puts everything back; it is called between operations.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from docker.transport import UnixHTTPAdapter

from tests.integration.daemon.host import CGROUPS, Machine, until

HOST = "http://localhost"  # each request goes to the socket
BASE = f"{HOST}/v1.50"
TIMEOUT_S = 20.0
ADDRESS = "10.213.0.1:2377"

STILL, RUNNING, PAUSED, OVER = "contract-still", "contract-running", "contract-paused", "contract-over"
VOLUME, NETWORK, OVERLAY, SERVICE, TAG = (
    "contract-volume", "contract-network", "contract-overlay", "contract-service", "contract:tag")
COMMANDS = {STILL: ["true"], RUNNING: ["sleep", "100000"], PAUSED: ["sleep", "100000"],
            OVER: ["sh", "-c", "echo out; echo err >&2; touch /changed; exit 3"]}
STATES = {STILL: "created", RUNNING: "running", PAUSED: "paused", OVER: "exited"}


class Bed:
    """The host and a session of requests to it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount(HOST, UnixHTTPAdapter(f"http+unix://{machine.socket}", timeout=TIMEOUT_S))
        self.exec_id = ""

    def call(self, method: str, path: str, body: Any = None, *, ok: Sequence[int] = (), **more: Any) -> Any:
        """A request that has to work (or give one of `ok`); its JSON."""
        answer = self.session.request(method, BASE + path, json=body, timeout=TIMEOUT_S, **more)
        assert answer.status_code < 400 or answer.status_code in ok, (method, path, answer.status_code, answer.text)
        return json.loads(answer.content) if answer.content.startswith((b"{", b"[", b'"')) else None

    def found(self) -> None:
        """Make the host a swarm's only manager: it listens on an address that nothing else of the machine has."""
        added = self.machine.inside(
            "sh", "-c", "ip link add contract0 type veth peer contract1 && ip link set contract0 up && "
            "ip link set contract1 up && ip addr add 10.213.0.1/24 dev contract0")
        assert added.returncode == 0, added.stderr
        self.call("POST", "/swarm/init", {"ListenAddr": ADDRESS, "AdvertiseAddr": ADDRESS})

    def thaw(self) -> None:
        """Let paused containers end: what is frozen cannot be killed."""
        for state in (CGROUPS / "freezer" / self.machine.cgroup).rglob("freezer.state"):
            state.write_text("THAWED")
        for frozen in (CGROUPS / self.machine.cgroup).rglob("cgroup.freeze"):
            frozen.write_text("0")

    def mend(self) -> None:
        """Each noun is there again, in its state."""
        if self.session.get(f"{BASE}/images/busybox/json", timeout=TIMEOUT_S).status_code == 404:
            self.machine.load_image()
        self.call("POST", "/images/busybox/tag", params={"repo": "contract", "tag": "tag"})
        self.call("POST", "/volumes/create", {"Name": VOLUME, "Labels": {"contract": "1"}})
        self._mend_networks()
        for name, command in COMMANDS.items():
            self._mend_container(name, command)
        self._mend_service()
        self._mend_node()
        made = self.call("POST", f"/containers/{RUNNING}/exec", {"Cmd": ["true"], "AttachStdout": True})
        self.exec_id = made["Id"]

    def _mend_networks(self) -> None:
        there = {network["Name"] for network in self.call("GET", "/networks")}
        for name, driver in ((NETWORK, "bridge"), (OVERLAY, "overlay")):
            if name not in there:
                attachable = driver == "overlay"
                self.call("POST", "/networks/create", {"Name": name, "Driver": driver, "Attachable": attachable})

    def _mend_container(self, name: str, command: Sequence[str]) -> None:
        answer = self.session.get(f"{BASE}/containers/{name}/json", timeout=TIMEOUT_S)
        if answer.status_code == 200 and answer.json()["State"]["Status"] == STATES[name]:
            return
        self.call("DELETE", f"/containers/{name}?force=1", ok=(404, 409))
        body = {"Image": "busybox", "Cmd": command, "Labels": {"contract": "1"}}
        until(lambda: self.call("POST", f"/containers/create?name={name}", body, ok=(409,)).get("Id"), f"make {name}")
        if name != STILL:
            self.call("POST", f"/containers/{name}/start")
        if name == PAUSED:
            self.call("POST", f"/containers/{name}/pause")
        if name == OVER:
            self.call("POST", f"/containers/{name}/wait")

    def _mend_service(self) -> None:
        answer = self.session.get(f"{BASE}/services/{SERVICE}", timeout=TIMEOUT_S)
        if answer.status_code == 404:
            container = {"Image": "busybox", "Command": ["sleep", "100000"], "Init": True}
            self.call("POST", "/services/create", {
                "Name": SERVICE, "Mode": {"Replicated": {"Replicas": 1}},
                "TaskTemplate": {"ContainerSpec": container, "Networks": [{"Target": OVERLAY}]}})
        until(self.tasks, "the service has a task")

    def _mend_node(self) -> None:
        node = self.call("GET", "/nodes")[0]
        if node["Spec"]["Availability"] != "active":
            spec = {**node["Spec"], "Availability": "active", "Role": "manager"}
            self.call("POST", f"/nodes/{node['ID']}/update", spec, params={"version": node["Version"]["Index"]})

    def tasks(self) -> list[Any]:
        found: list[Any] = self.call("GET", "/tasks", params={"filters": json.dumps({"service": [SERVICE]})})
        return found

    def version(self, path: str) -> int:
        return int(self.call("GET", path)["Version"]["Index"])

    def names(self) -> Mapping[str, Sequence[str]]:
        """First part of a path → what may be named after it."""
        task = self.tasks()
        return {
            "containers": (*STATES,), "exec": (self.exec_id,), "images": ("busybox", TAG), "volumes": (VOLUME,),
            "networks": (NETWORK, OVERLAY, "bridge", "host", "none"), "services": (SERVICE,),
            "tasks": [each["ID"] for each in task[:1]], "nodes": ("self",),
        }


def tar(**files: bytes) -> bytes:
    """A tar archive of files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
