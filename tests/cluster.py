"""A lab as tests drive it: calls, the docker command, and conditions with a deadline."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from shoal.cli.client import Client, ClientError
from shoal.lab import lab as labs
from shoal.lab import processes
from shoal.lab.plan import LabPlan

DEADLINE_S = 60.0

Json = dict[str, Any]


def eventually(look: Callable[[], Any], enough: Callable[[Any], bool] = bool, deadline_s: float = DEADLINE_S) -> Any:
    """What `look` gives once it is enough. A refusal or a broken connection of a client is no answer yet."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            found: Any = look()
            if enough(found):
                return found
        except (ClientError, OSError) as error:
            found = error
        assert time.monotonic() < end, f"after {deadline_s:.0f} s still: {found}"
        time.sleep(0.05)


class Cluster:
    """Hosts m1… and w1… of one lab."""

    def __init__(self, lab: LabPlan) -> None:
        self.lab = lab
        self.names = [host.name for host in lab.hosts]

    def client(self, host: str = "m1") -> Client:
        return Client(f"unix://{self.lab.socket(self.lab.host(host))}")

    def docker(self, *words: str, host: str = "m1", fails: bool = False, stdin: str | None = None) -> str:
        """What the docker command says. `fails`: it has to, and what it says on stderr is given."""
        done = self.docker_run(*words, host=host, stdin=stdin)
        assert bool(done.returncode) == fails, (words, done.returncode, done.stdout, done.stderr)
        return (done.stderr if fails else done.stdout).strip()

    def docker_run(self, *words: str, host: str = "m1", stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        environment |= {"DOCKER_HOST": self.client(host).host}
        return subprocess.run(["docker", *words], env=environment, capture_output=True, text=True, check=False,
                              timeout=DEADLINE_S, **({"input": stdin} if stdin is not None else
                                                     {"stdin": subprocess.DEVNULL}))

    def inside(self, host: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a host's namespaces."""
        init_pid = processes.init_of(self.lab.mark(self.lab.host(host)))
        assert init_pid is not None, f"{host} is off"
        return subprocess.run([*processes.entering(init_pid), *command], capture_output=True, text=True, check=False,
                              timeout=DEADLINE_S, stdin=subprocess.DEVNULL)

    # --- what happens to hosts ---

    def happen(self, what: str, *hosts: str) -> None:
        """cut, heal, kill, crash or start each of the hosts."""
        for host in hosts:
            getattr(labs, what)(self.lab, self.lab.host(host))

    def restore(self) -> None:
        """Every host on, linked and ready again."""
        for host in self.lab.hosts:
            labs.start(self.lab, host)
            labs.heal(self.lab, host)
        eventually(lambda: [state for _, state in self.nodes().values()], lambda states: set(states) == {"ready"}
                   and len(states) == len(self.names))
        eventually(lambda: self.leader())

    # --- what is there ---

    def any_manager(self) -> Client:
        """A client of a manager that answers for the swarm."""
        for host in self.lab.hosts:
            if host.manager:
                try:
                    self.client(host.name).call("GET", "/nodes")
                    return self.client(host.name)
                except (ClientError, OSError):
                    continue
        raise ClientError("no manager answers")

    def nodes(self) -> dict[str, tuple[str, str]]:
        """Host name → (node id, state)."""
        return {node["Description"]["Hostname"]: (node["ID"], node["Status"]["State"])
                for node in self.any_manager().call("GET", "/nodes")}

    def node_id(self, host: str) -> str:
        return self.nodes()[host][0]

    def leader(self) -> str:
        """The host that leads; "" while none does."""
        for node in self.any_manager().call("GET", "/nodes"):
            if (node.get("ManagerStatus") or {}).get("Leader"):
                return str(node["Description"]["Hostname"])
        return ""

    def network(self, name: str, **more: Any) -> str:
        body = {"Name": name, "Driver": "overlay", "Attachable": True, **more}
        return str(self.any_manager().call("POST", "/networks/create", body=body)["Id"])

    def service(self, name: str, replicas: int | None = 1, *, command: Sequence[str] = ("sleep", "100000"),
                networks: Sequence[str] = (), task: Json | None = None, container: Json | None = None,
                **more: Any) -> str:
        """Create a service of the busybox image; `replicas` None: a global one."""
        mode = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
        spec = {
            "Name": name, "Mode": mode, **more,
            "TaskTemplate": {
                "ContainerSpec": {"Image": "busybox", "Command": list(command), "Init": True, **(container or {})},
                "Networks": [{"Target": network} for network in networks], **(task or {}),
            },
        }
        return str(self.any_manager().call("POST", "/services/create", body=spec)["ID"])

    def update(self, name: str, change: Callable[[Json], None]) -> None:
        """Change a service's spec in place, as it is now; again where somebody else was faster."""

        def attempt() -> bool:
            found = self.any_manager().call("GET", f"/services/{name}")
            change(found["Spec"])
            version = {"version": found["Version"]["Index"]}
            self.any_manager().call("POST", f"/services/{found['ID']}/update", version, found["Spec"])
            return True

        eventually(attempt)

    def tasks(self, service: str, **filters: str) -> list[Json]:
        wanted = {"service": [service], **{key.replace("_", "-"): [value] for key, value in filters.items()}}
        found: list[Json] = self.any_manager().call("GET", "/tasks", {"filters": wanted})
        return found

    def running(self, service: str) -> list[Json]:
        """The tasks that run and should."""
        return [task for task in self.tasks(service, desired_state="running") if task["Status"]["State"] == "running"]

    def hosts_of(self, service: str) -> list[str]:
        """The hosts of the tasks that run, one for each task."""
        names = {node_id: name for name, (node_id, _) in self.nodes().items()}
        return sorted(names[task["NodeID"]] for task in self.running(service))

    def runs(self, service: str, count: int) -> list[Json]:
        """Wait until so many tasks run."""
        found: list[Json] = eventually(lambda: self.running(service), lambda tasks: len(tasks) == count)
        return found

    def logs(self, service: str) -> list[str]:
        """The lines of a service's stdout."""
        frames = self.any_manager().frames(f"/services/{service}/logs", {"stdout": True})
        return b"".join(data for _, data in frames).decode().splitlines()

    def sweep(self) -> None:
        """Remove every service, network and container that a test left."""
        client = self.any_manager()
        for service in client.call("GET", "/services"):
            client.call("DELETE", f"/services/{service['ID']}")
        for host in self.names:
            mine = self.client(host)
            for container in mine.call("GET", "/containers/json", {"all": True}):
                if "com.docker.swarm.task.id" not in container["Labels"]:
                    mine.call("DELETE", f"/containers/{container['Id']}", {"force": True, "v": True})
            eventually(lambda mine=mine: mine.call("GET", "/containers/json", {"all": True}), lambda left: not left)
        for network in client.call("GET", "/networks"):
            if network["Scope"] == "swarm" and not network["Ingress"]:
                eventually(lambda network=network: client.text("DELETE", f"/networks/{network['Id']}") == b"")
