"""Ports, links, VXLAN devices and the firewall."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from shoal.cli.doctor import firewall
from shoal.cli.doctor.checks.network import PORTS
from shoal.cli.doctor.facts import Chain, Link, Port, Vxlans
from shoal.cli.doctor.gather.openfiles import OpenFiles
from shoal.cli.doctor.gather.reading import output, text

_OWN_LINKS = ("lo", "shoal", "br-", "docker", "veth", "wg", "virbr", "cni", "flannel", "vxlan")
_LISTEN = "0A"
_OWN_NAMESPACE = re.compile(r"/netns/ov-\d+ .* - nsfs ")
"""Of a mount. The network namespace of an overlay network, as `overlay.drivers.overlay` pins it."""


def ports(opened: OpenFiles) -> Iterator[Port]:
    for number, protocol in PORTS:
        if inodes := list(_sockets(number, protocol)):
            holder = opened.sockets.get(inodes[0], "")
            yield Port(number, protocol, holder, ours=_is_shoal(holder))


def _sockets(number: int, protocol: str) -> Iterator[str]:
    """The inodes of the sockets that have this port, listening where it is TCP."""
    for version in ("", "6"):
        for line in text(Path(f"/proc/net/{protocol}{version}")).splitlines()[1:]:
            words = line.split()
            if int(words[1].rpartition(":")[2], 16) == number and (protocol == "udp" or words[3] == _LISTEN):
                yield words[9]


def _is_shoal(command: str) -> bool:
    """Whether a command line is that of a daemon or manager of ours, wherever its files lie."""
    words = command.split()[:4]
    return any(Path(word).name == "shoald" for word in words) or bool({"shoal.daemon", "shoal.manager"} & set(words))


def vxlans() -> Vxlans:
    """Shoal's devices stand in namespaces of their own; what stands in this one is somebody else's."""
    listed = output(["ip", "-details", "-json", "link", "show", "type", "vxlan"]) or "[]"
    others = {link["ifname"]: link["linkinfo"]["info_data"].get("port", 0) for link in json.loads(listed) if link}
    return Vxlans(ours=bool(_OWN_NAMESPACE.search(text(Path("/proc/self/mountinfo")))), others=others)


def links() -> Iterator[Link]:
    """Those that may lead to other hosts: up, and not made by a container engine."""
    for folder in sorted(Path("/sys/class/net").iterdir()):
        if folder.name.startswith(_OWN_LINKS) or (folder / "master").exists():
            continue  # what stands in a bridge or a bond is not what hosts reach each other over
        if text(folder / "operstate").strip() not in ("up", "unknown"):
            continue
        if (mtu := text(folder / "mtu").strip()).isdecimal():
            yield Link(folder.name, int(mtu))


def chains() -> tuple[Chain, ...] | None:
    """None where they cannot be read. Needs root."""
    if shutil.which("nft") is None:
        return None
    try:
        return firewall.chains(json.loads(output(["nft", "--json", "list", "ruleset"])))
    except json.JSONDecodeError:
        return None


def legacy_iptables() -> tuple[str, ...]:
    return tuple(text(Path("/proc/net/ip_tables_names")).split())
