"""An NFS server on one machine, and `local` volumes of others that are mounted from it."""

from __future__ import annotations

import re

from tests.vm.containers import Json, begin_container, refused_container, remove_container, run_container
from tests.vm.hosts import Hosts
from tests.vm.machines import SUBNET, Machine

SHARE = "/srv/share"
SERVE = f"""
mkdir -p {SHARE} /run/rpcbind && modprobe nfsd && rpcbind -w
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
exportfs -o rw,no_root_squash,no_subtree_check,fsid=0 {SUBNET}.0/24:{SHARE} && rpc.nfsd 2 && rpc.mountd
echo Y > /proc/fs/nfsd/v4_end_grace
"""
"""The share is the root of what NFSv4 sees. Nobody has to wait for clients of the time before."""

OPTIONS = {"4": ("/", "vers=4,rw"), "3": (SHARE, "vers=3,nolock,rw"), "4.2": ("/", "vers=4.2,rw")}
"""By version: where it lies, and with which options it is mounted."""

IMPATIENT = ",timeo=20,retrans=1"
SILENT = r"failed to mount local volume: .*(No route to host|Connection timed out|was not mounted in)"


def shares(hosts: Hosts) -> None:
    """What one container writes another reads elsewhere; nothing stays mounted when they have ended."""
    server, writer, reader = hosts.machines.all
    server.run(SERVE)
    for machine, version, script, said in ((writer, "4", "echo kept > /data/file", ""),
                                           (reader, "3", "cat /data/file", "kept\n")):
        assert run_container(machine, script, at(volume(machine, server, version))) == (0, said)
        gone(hosts, machine)


def falls_silent(hosts: Hosts) -> None:
    """A mount from it fails in time, and says why; what is mounted goes with its container; the daemons go on."""
    server, holder, late = hosts.machines.all
    held = [begin_container(holder, "exec sleep 1000", at(volume(holder, server, version))) for version in OPTIONS]
    assert len(mounts(holder).splitlines()) == len(held)
    wanted = volume(late, server, "4.2", IMPATIENT)
    hosts.machines.cut(server)
    said = refused_container(late, "true", at(wanted))
    assert re.search(SILENT, said), said
    for container_id in held:
        remove_container(holder, container_id)
    for machine in (holder, late):
        gone(hosts, machine)
        assert run_container(machine, "echo on", {}) == (0, "on\n")
        remove_volumes(machine)
    hosts.machines.heal(server)
    server.run("rpc.nfsd 0; exportfs -ua")


def gone(hosts: Hosts, machine: Machine) -> None:
    hosts.eventually(lambda: mounts(machine), lambda text: text == "")


def volume(machine: Machine, server: Machine, version: str, more: str = "") -> str:
    """Make one. Nothing is asked of the server for that."""
    path, options = OPTIONS[version]
    name = f"nfs{version}"
    machine.client().call("POST", "/volumes/create", body={"Name": name, "DriverOpts": {
        "type": "nfs", "device": f":{path}", "o": f"addr={server.address},{options}{more}"}})
    return name


def remove_volumes(machine: Machine) -> None:
    client = machine.client()
    for each in client.call("GET", "/volumes")["Volumes"]:
        client.call("DELETE", f"/volumes/{each['Name']}")


def at(volume: str) -> Json:
    return {"Binds": [f"{volume}:/data"]}


def mounts(machine: Machine) -> str:
    """What is mounted from NFS servers."""
    return machine.run("grep -E '^[^ ]+ [^ ]+ nfs4? ' /proc/mounts", check=False)
