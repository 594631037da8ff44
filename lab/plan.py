"""What a lab of a given shape consists of. Pure: names, addresses, paths, commands of `ip`."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument

SUBNET = "10.99.0"
"""Every lab uses the same addresses: its hub is a namespace of its own."""

HUB_ADDRESS = f"{SUBNET}.254"
MAX_HOSTS = 100
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,30}$")


class HostPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One host. `port` is the name of its link's end in the hub."""

    name: str
    manager: bool
    address: str
    mac: str

    @property
    def port(self) -> str:
        return f"h-{self.name}"


class LabPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A lab: its hosts, and where it keeps what it has.

    Everything lies under `run` and `data`, and in the cgroup `cgroup` of each
    hierarchy; `down` needs to know nothing else.
    """

    name: str
    hosts: tuple[HostPlan, ...]
    run: str
    data: str

    @property
    def cgroup(self) -> str:
        return f"/shoal-lab/{self.name}"

    @property
    def hub(self) -> Path:
        """The file that the hub's network namespace is mounted on."""
        return Path(self.run) / "hub.net"

    def host(self, name: str) -> HostPlan:
        """The host of this name. Raises InvalidArgument."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise InvalidArgument(f"lab {self.name} has no host {name}; it has {', '.join(h.name for h in self.hosts)}")

    def run_root(self, host: HostPlan) -> Path:
        return Path(self.run) / host.name

    def data_root(self, host: HostPlan) -> Path:
        return Path(self.data) / host.name

    def socket(self, host: HostPlan) -> Path:
        return self.run_root(host) / "shoal.sock"

    def mark(self, host: HostPlan) -> str:
        """What every process of the host carries in its environment as SHOAL_LAB_HOST."""
        return f"{self.run}/{host.name}"


def plan(name: str, managers: int, workers: int, *, run: Path, data: Path) -> LabPlan:
    """A lab of hosts m1…, w1…. `run` and `data` are the folders of all labs. Raises InvalidArgument."""
    if not _NAME.match(name):
        raise InvalidArgument(f"lab name {name!r} is not allowed: use up to 31 of a-z, 0-9 and -")
    if managers < 1 or workers < 0 or managers + workers > MAX_HOSTS:
        raise InvalidArgument(
            f"a lab has at least 1 manager and at most {MAX_HOSTS} hosts, not {managers} managers and {workers} workers"
        )
    names = [(f"m{i}", True) for i in range(1, managers + 1)] + [(f"w{i}", False) for i in range(1, workers + 1)]
    hosts = tuple(
        HostPlan(name=host, manager=manager, address=f"{SUBNET}.{number}", mac=f"02:99:0a:63:00:{number:02x}")
        for number, (host, manager) in enumerate(names, start=1)
    )
    return LabPlan(name=name, hosts=hosts, run=str(run / name), data=str(data / name))


def hub_commands() -> list[str]:
    """`ip` commands that make the hub, run inside its namespace."""
    return [
        "link set lo up",
        "link add br0 type bridge forward_delay 0",
        f"addr add {HUB_ADDRESS}/24 dev br0",
        "link set br0 up",
    ]


def link_commands(host: HostPlan, init_pid: int) -> list[str]:
    """`ip` commands that join a host to the hub, run inside the hub. `init_pid` is the host's process 1."""
    return [
        f"link add {host.port} type veth peer name eth0 netns {init_pid} address {host.mac}",
        f"link set {host.port} master br0 up",
    ]


def host_commands(host: HostPlan) -> list[str]:
    """`ip` commands that bring up a host's end, run inside the host."""
    return [
        "link set lo up",
        f"addr add {host.address}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {HUB_ADDRESS}",
    ]
