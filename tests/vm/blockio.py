"""Weights of block devices: what the kernel has of them without the BFQ scheduler, and with it."""

from __future__ import annotations

from tests.vm.containers import cgroup, create_container, pid_of, refused_container, remove_container
from tests.vm.hosts import Hosts
from tests.vm.machines import Machine

DISK = "/dev/vda"
WEIGHT, OF_DISK = 300, 200
WEIGHTS = {"BlkioWeight": WEIGHT, "BlkioWeightDevice": [{"Path": DISK, "Weight": OF_DISK}]}
NO_DEVICES = "WARNING: No io.weight (per device) support"
DISCARDED = ["Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
             "Weight-device discarded."]
IN_IO_WEIGHT = 1 + (WEIGHT - 10) * 9999 // 990
"""What runtimes make of it for the file that is there without BFQ."""


def schedule(machine: Machine, name: str) -> None:
    machine.run(f"echo {name} > /sys/block/vda/queue/scheduler")


def without_bfq(machine: Machine) -> None:
    """The container's own weight holds; one for a single device is discarded, and that is said."""
    client = machine.client()
    assert NO_DEVICES in client.call("GET", "/info")["Warnings"]
    made = create_container(machine, "exec sleep 1000", WEIGHTS)
    assert made["Warnings"] == DISCARDED
    shown = client.call("GET", f"/containers/{made['Id']}/json")["HostConfig"]
    assert (shown["BlkioWeight"], shown["BlkioWeightDevice"]) == (WEIGHT, [])
    client.call("POST", f"/containers/{made['Id']}/start")
    assert cgroup(machine, pid_of(machine, made["Id"]))("io.weight") == f"default {IN_IO_WEIGHT}"
    remove_container(machine, made["Id"])


def with_bfq(hosts: Hosts, machine: Machine) -> None:
    """Both hold; the first also after systemd has read its units again. Of a disk without BFQ the other is an error."""
    machine.run("modprobe bfq")
    schedule(machine, "bfq")
    client = machine.client()
    assert NO_DEVICES not in (client.call("GET", "/info")["Warnings"] or ())
    made = create_container(machine, "exec sleep 1000", WEIGHTS)
    assert made["Warnings"] == []
    shown = client.call("GET", f"/containers/{made['Id']}/json")["HostConfig"]
    assert {key: shown[key] for key in WEIGHTS} == WEIGHTS
    client.call("POST", f"/containers/{made['Id']}/start")
    group = cgroup(machine, pid_of(machine, made["Id"]))
    disk = machine.run("cat /sys/block/vda/dev")
    assert group("io.bfq.weight").splitlines() == [f"default {WEIGHT}", f"{disk} {OF_DISK}"]
    client.call("POST", f"/containers/{made['Id']}/update", body={"BlkioWeight": 2 * WEIGHT})
    assert group("io.bfq.weight").splitlines() == [f"default {2 * WEIGHT}", f"{disk} {OF_DISK}"]
    if hosts.way.init == "systemd":
        machine.run("systemctl daemon-reload")
        assert group("io.bfq.weight").splitlines()[0] == f"default {2 * WEIGHT}"
    remove_container(machine, made["Id"])
    schedule(machine, "mq-deadline")
    assert "peration not supported" in refused_container(machine, "exec sleep 1000", WEIGHTS)
