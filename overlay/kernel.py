"""The kernel's network objects: namespaces, links, sysctls, and what stands there now.

Everything here is synchronous and acts in the calling thread's network
namespace unless a namespace is named; `networks.py` runs it on one thread kept
for it. The lab makes its hosts with the same functions. Nothing here decides
what should exist: that is `plan.py`.

The only importer of pyroute2, which reads dumps. It is imported when first
needed: it takes 0.14 s, and a host that restores nothing never needs it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shoal.overlay import netlink
from shoal.overlay.netlink import Message
from shoal.overlay.rtnetlink import NetlinkError, Rtnetlink

CLONE_NEWNET = 0x40000000
_MS_BIND, _MNT_DETACH = 0x1000, 0x2
_SELF = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


# --- namespaces ---


def open_namespace(path: Path | str | None = None) -> int:
    """A descriptor of the namespace bound at `path`, or of the calling thread's own."""
    return os.open(path or _SELF, os.O_RDONLY | os.O_CLOEXEC)


def _enter(descriptor: int) -> None:
    _check(_libc.setns(descriptor, CLONE_NEWNET), "setns")


@contextlib.contextmanager
def inside(namespace: Path | str | int) -> Iterator[None]:
    """Run the block in another network namespace; this thread only.

    Nothing in the block may await or hand work to another thread.
    """
    home = open_namespace()
    there = namespace if isinstance(namespace, int) else open_namespace(namespace)
    try:
        _enter(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)
        if there is not namespace:
            os.close(there)


@contextlib.contextmanager
def new_namespace(path: Path) -> Iterator[None]:
    """Make a namespace, bind it at `path`, and run the block inside it.

    If the block fails, the namespace is gone again. Raises FileExistsError when
    something stands at `path`.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    home = open_namespace()
    try:
        try:
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
            try:
                _check(_libc.mount(_SELF.encode(), os.fsencode(path), b"none", _MS_BIND, None), f"bind {path}")
                yield
            finally:
                _enter(home)
        except BaseException:
            delete_namespace(path)
            raise
    finally:
        os.close(home)


def create_namespace(path: Path) -> None:
    """An empty namespace bound at `path`, its loopback up."""
    with new_namespace(path), Rtnetlink() as rtnl:
        rtnl.send([netlink.set_link(index=1, up=True)])


def delete_namespace(path: Path) -> None:
    """Unbind and unlink. What is in it goes when its last process has gone. No error where there is none."""
    while _libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        pass
    path.unlink(missing_ok=True)


def is_namespace(path: Path) -> bool:
    """Whether a live namespace is bound at `path` (a plain file is what a crash or a reboot leaves)."""
    try:
        descriptor = open_namespace(path)
    except OSError:
        return False
    try:
        with inside(descriptor):
            return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


# --- links, by name, for whoever sets up a few of them ---


class Links:
    """Links of one namespace: the calling thread's own, or the one bound at `namespace`."""

    def __init__(self, namespace: Path | str | None = None) -> None:
        if namespace is None:
            self.rtnl = Rtnetlink()
        else:
            with inside(namespace):
                self.rtnl = Rtnetlink()

    def close(self) -> None:
        self.rtnl.close()

    def __enter__(self) -> Links:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def index(self, name: str) -> int:
        """Raises NetlinkError (ENODEV) if there is no such link."""
        if index := self.rtnl.index_of(name):
            return index
        raise NetlinkError(f"look up link {name}", errno.ENODEV)

    def exists(self, name: str) -> bool:
        return self.rtnl.index_of(name) != 0

    def add_bridge(self, name: str, *, mac: str = "", mtu: int = 0) -> None:
        self.rtnl.send([netlink.new_bridge(name, mac=mac, mtu=mtu)])

    def add_veth(
        self, name: str, peer: str, *, peer_namespace: Path | str | None = None, master: str = "",
        mac: str = "", peer_mac: str = "", mtu: int = 1500,
    ) -> None:
        """A veth pair, both ends up, the peer in another namespace if one is given."""
        descriptor = open_namespace(peer_namespace) if peer_namespace else -1
        try:
            self.rtnl.send([netlink.new_veth(
                name, peer, peer_namespace_fd=descriptor, mac=mac, peer_mac=peer_mac, mtu=mtu,
                master=self.index(master) if master else 0,
            )])
            if descriptor < 0:
                self.rtnl.send([netlink.set_link(peer, up=True)])
                return
            with inside(descriptor), Rtnetlink() as inner:
                inner.send([netlink.set_link(peer, up=True)])
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def set(self, name: str, *, up: bool | None = None, mtu: int = 0, master: str = "") -> None:
        self.rtnl.send([netlink.set_link(name, up=up, mtu=mtu, master=self.index(master) if master else 0)])

    def add_address(self, name: str, address: str) -> None:
        self.rtnl.send([netlink.new_address(self.index(name), address)])

    def add_route(self, destination: str, *, gateway: str = "", link: str = "") -> None:
        self.rtnl.send([netlink.new_route(destination, gateway=gateway, index=self.index(link) if link else 0)])

    def delete(self, name: str) -> None:
        """No error where there is none."""
        self.rtnl.send([netlink.del_link(name)])

    def send(self, messages: list[Message]) -> None:
        self.rtnl.send(messages)


def write_sysctl(name: str, value: str) -> None:
    """Set a sysctl of the calling thread's namespace. Raises OSError."""
    descriptor = os.open("/proc/sys/" + name.replace(".", "/"), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def write_sysctls(sysctls: Mapping[str, str]) -> None:
    for name, value in sysctls.items():
        write_sysctl(name, value)


def without_ipv6(link: str = "default") -> None:
    """No IPv6 on `link`, or on links to come: no network here has it yet, and each would pay for its multicast."""
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        write_sysctl(f"net.ipv6.conf.{link}.disable_ipv6", "1")


def has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").exists()


def read_sysctl(name: str) -> str:
    return Path("/proc/sys", name.replace(".", "/")).read_text().strip()


# --- dumps: what stands in a namespace now ---


class LinkState(msgspec.Struct, frozen=True, kw_only=True):
    """A link as the kernel has it. `data` are its kind's own attributes, by their kernel names."""

    index: int
    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    up: bool = False
    master: int = 0
    addresses: tuple[str, ...] = ()
    data: dict[str, Any] = {}


def dump_links(namespace: Path | str | None = None) -> dict[str, LinkState]:
    """Every link of a namespace with its IPv4 addresses, by name."""
    from pyroute2 import IPRoute

    with _maybe_inside(namespace), IPRoute() as ipr:
        addresses: dict[int, list[str]] = {}
        for item in ipr.get_addr(family=2):
            addresses.setdefault(item["index"], []).append(f"{item.get('IFA_LOCAL')}/{item['prefixlen']}")
        found = {}
        for item in ipr.get_links():
            info = item.get("linkinfo")
            data = info.get("data") if info else None
            found[item.get("ifname")] = LinkState(
                index=item["index"], name=item.get("ifname"), kind=(info.get("kind") if info else "") or "",
                mac=item.get("address") or "", mtu=item.get("mtu") or 0, up=bool(item["flags"] & 1),
                master=item.get("master") or 0, addresses=tuple(sorted(addresses.get(item["index"], ()))),
                data=dict(data["attrs"]) if data and not isinstance(data, str) else {},
            )
        return found


def dump_fdb(namespace: Path | str, index: int) -> dict[str, str]:
    """MAC → host of a VXLAN device's forwarding table."""
    from pyroute2 import IPRoute

    with inside(namespace), IPRoute() as ipr:
        return {
            item.get("lladdr"): item.get("dst")
            for item in ipr.get_neighbours(family=netlink.AF_BRIDGE, ifindex=index)
            if item["ifindex"] == index and item.get("dst") and item.get("lladdr") != "00:00:00:00:00:00"
        }


def dump_neighbours(namespace: Path | str, index: int) -> dict[str, str]:
    """Address → MAC of the permanent IPv4 neighbour entries on a link."""
    from pyroute2 import IPRoute

    with inside(namespace), IPRoute() as ipr:
        return {
            item.get("dst"): item.get("lladdr")
            for item in ipr.get_neighbours(family=2, ifindex=index)
            if item["ifindex"] == index and item["state"] & netlink.NUD_PERMANENT and item.get("lladdr")
        }


def used_subnets() -> tuple[str, ...]:
    """Destinations of this namespace's IPv4 routes, the default ones left out.

    Read from /proc: a start that only wants this should not import pyroute2.
    """
    found = set()
    for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        destination, mask = int(fields[1], 16), int(fields[7], 16)
        if mask:
            octets = ".".join(str(byte) for byte in destination.to_bytes(4, "little"))
            found.add(f"{octets}/{mask.bit_count()}")
    return tuple(sorted(found))


@contextlib.contextmanager
def _maybe_inside(namespace: Path | str | None) -> Iterator[None]:
    if namespace is None:
        yield
    else:
        with inside(namespace):
            yield
