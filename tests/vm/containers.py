"""Containers on one of the machines, by the API: begun, entered, looked at from outside."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.cli.client import ClientError, demultiplex
from tests.vm.machines import Machine

Json = dict[str, Any]


def create_container(machine: Machine, script: str, host: Json) -> Json:
    """What is answered: its Id, and Warnings."""
    made: Json = machine.client().call("POST", "/containers/create", body={
        "Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none", "Init": True, **host}})
    return made


def begin_container(machine: Machine, script: str, host: Json) -> str:
    made = str(create_container(machine, script, host)["Id"])
    machine.client().call("POST", f"/containers/{made}/start")
    return made


def run_container(machine: Machine, script: str, host: Json) -> tuple[int, str]:
    """Exit code and what it said, once it has ended; it is removed then."""
    made, client = begin_container(machine, script, host), machine.client()
    code = int(client.call("POST", f"/containers/{made}/wait")["StatusCode"])
    said = b"".join(data for _, data in client.frames(f"/containers/{made}/logs", {"stdout": True, "stderr": True}))
    remove_container(machine, made)
    return code, said.decode(errors="replace")


def refused_container(machine: Machine, script: str, host: Json) -> str:
    """Why it is not made, or not started; nothing is left of it."""
    made = ""
    with pytest.raises(ClientError) as refused:
        made = create_container(machine, script, host)["Id"]
        machine.client().call("POST", f"/containers/{made}/start")
    if made:
        remove_container(machine, made)
    return str(refused.value)


def remove_container(machine: Machine, container_id: str) -> None:
    machine.client().call("DELETE", f"/containers/{container_id}", {"force": True})


def execute(machine: Machine, container_id: str, *command: str, tty: bool = False) -> tuple[int, str]:
    """Run a command in a container: exit code and output."""
    client = machine.client()
    made = client.call("POST", f"/containers/{container_id}/exec",
                       body={"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, "Tty": tty})
    with client.hijack(f"/exec/{made['Id']}/start", body={"Detach": False, "Tty": tty}) as stream:
        output = b"".join(iter(lambda: stream.recv(65536), b"") if tty else (data for _, data in demultiplex(stream)))
    return int(client.call("GET", f"/exec/{made['Id']}/json")["ExitCode"]), output.decode(errors="replace")


def pid_of(machine: Machine, container_id: str) -> int:
    return int(machine.client().call("GET", f"/containers/{container_id}/json")["State"]["Pid"])


def cgroup(machine: Machine, pid: int) -> Any:
    """Reads files of the process's cgroup."""
    folder = machine.run(f"sed -n s/^0:://p /proc/{pid}/cgroup")
    assert folder not in ("", "/"), "the container has no cgroup of its own"
    return lambda name: machine.run(f"cat /sys/fs/cgroup{folder}/{name}")
