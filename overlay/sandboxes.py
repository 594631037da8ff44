"""Sandboxes in the kernel: made, changed, taken away. Runs on the network thread only.

A sandbox is built in one go: the namespace, its links made from outside, then
what must be done inside. What fails half-way leaves nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.overlay import conntrack, hosttable, kernel, netlink, sandboxtable
from shoal.overlay.drivers import bridge, sublinks
from shoal.overlay.drivers.overlay import OverlayLinks
from shoal.overlay.files import RESOLVER
from shoal.overlay.netlink import Message
from shoal.overlay.nft import Nft, NftError
from shoal.overlay.plan import ForwardOp, lost_backends
from shoal.overlay.records import LocalNetwork
from shoal.overlay.rtnetlink import NetlinkError, Rtnetlink
from shoal.overlay.sandboxtable import ServiceOp

_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}


_KEPT_CONTEXTS = 128
"""libnftables contexts kept open for sandboxes (170 KiB each); beyond it one is opened for each change."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """One link of a sandbox: a veth into bridge `master`, a macvlan on the VXLAN device of `vni`, or on `parent`."""

    link: str
    mac: str
    addresses: tuple[str, ...]  # with prefix length
    mtu: int = 1500
    sysctls: dict[str, str] = {}  # of this link, set before its addresses
    host_link: str = ""
    master: str = ""
    isolated: bool = False
    hairpin: bool = False  # it reaches its own published ports
    vni: int = 0
    parent: str = ""  # a link of the host
    kind: str = ""  # on `parent`: macvlan or ipvlan
    mode: str = ""
    made_as: str = ""  # its first name: no link of the host may have it, and most have an eth0


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """A whole sandbox as it is to be built. `services` is None where no resolver runs in it."""

    path: str
    ends: tuple[End, ...] = ()
    gateways: tuple[str, ...] = ()  # of the default routes, one for each family
    sysctls: dict[str, str] = {}
    services: dict[str, tuple[str, ...]] | None = None


class ClusterStep(msgspec.Struct, frozen=True, kw_only=True):
    """What changed on one overlay network of this host. `paths`: its sandboxes."""

    vni: int
    forward: tuple[ForwardOp, ...] = ()
    services: tuple[ServiceOp, ...] = ()
    paths: tuple[str, ...] = ()
    long: bool = False  # their tables have many services


class DnsSockets(msgspec.Struct):
    """The resolver's sockets, opened inside a sandbox."""

    udp: socket.socket
    tcp: socket.socket
    port: int

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


class Plumber:
    """Everything this package does to the kernel for sandboxes and bridges."""

    def __init__(self, netns_root: Path) -> None:
        self.netns_root = netns_root
        self.rtnl = Rtnetlink()
        self.host_nft = Nft()
        self._indexes: dict[str, int] = {}
        self.overlays = OverlayLinks(netns_root)
        self._contexts: dict[str, Nft] = {}

    def close(self) -> None:
        self.rtnl.close()
        self.overlays.close()
        self._contexts.clear()

    # --- sandboxes ---

    def build(self, wiring: Wiring, host_rules: str = "", udp_ports: Collection[int] = ()) -> DnsSockets | None:
        """Make the sandbox; `host_rules` are run in the host's namespace last. Undone if anything fails.

        `udp_ports`: those of the host that these rules lead on. Who sent there before would go on to send to the
        host, for as long as it sends, were that flow not forgotten.
        """
        path = Path(wiring.path)
        dns: DnsSockets | None = None
        try:
            with kernel.new_namespace(path):
                inner = Rtnetlink()
                inner.send([netlink.set_link(index=1, up=True)])
                kernel.without_ipv6()
                kernel.write_sysctls(_SYSCTLS)
                if wiring.services is not None:
                    dns = open_dns()
                    self._nft(wiring.path).run(sandboxtable.rules(dns.port, wiring.services))
            with inner:
                if wiring.ends:
                    self._link(path, wiring.ends)
                    _configure(inner, path, wiring.ends, wiring.gateways)
            if wiring.sysctls:
                with kernel.inside(path):
                    _set_sysctls(wiring.sysctls)
            if host_rules:
                self.host_nft.run(host_rules)
            if udp_ports:
                _forget(lambda flow: flow.udp_port in udp_ports and flow.to == flow.by)
        except BaseException:
            if dns:
                dns.close()
            self.raze(path, [end.host_link for end in wiring.ends if end.host_link])
            raise
        return dns

    def raze(self, path: Path, host_links: Sequence[str], host_rules: str = "", flows_of: str = "") -> None:
        """Take a sandbox away. Its links go with the namespace, once the last process in it is gone.

        Deleting a link oneself takes 20 ms, holding a lock that all others need;
        the kernel clears namespaces several at a time, in the background. Until then
        its bridge ports are closed, or they would answer for an address given anew.
        `flows_of`: an address whose tracked flows on the host are to be forgotten.
        """
        if host_rules:
            with contextlib.suppress(NftError):  # the table was written anew without them
                self.host_nft.run(host_rules)
        if host_links:
            self.rtnl.send([netlink.close_port(link) for link in host_links])
        if flows_of:
            _forget(lambda flow: flow.by == flows_of)
        self._contexts.pop(str(path), None)
        kernel.delete_namespace(path)

    def extend(
        self, path: Path, end: End, gateways: Sequence[str], services: Mapping[str, tuple[str, ...]] | None,
    ) -> DnsSockets | None:
        """Add a link to a sandbox that is up; its default routes lead to `gateways` then.

        With `services`, give it a resolver and those VIPs.
        """
        self._link(path, [end])
        dns: DnsSockets | None = None
        try:
            with kernel.inside(path), Rtnetlink() as inner:
                _configure(inner, path, [end], gateways)
                if services is not None:
                    dns = open_dns()
                    self._nft(str(path)).run(sandboxtable.rules(dns.port, services))
        except BaseException:
            if dns:
                dns.close()
            self.shrink(path, end.link, end.host_link, ())
            raise
        return dns

    def shrink(self, path: Path, link: str, host_link: str, gateways: Sequence[str]) -> None:
        """Take a link from a sandbox; then its default routes lead to `gateways`."""
        if host_link:
            self.rtnl.send([netlink.del_link(host_link)])
        with kernel.inside(path), Rtnetlink() as inner:
            if not host_link:
                inner.send([netlink.del_link(link)])
            inner.send([netlink.new_route("default", gateway=gateway) for gateway in gateways])

    def change_services(self, paths: Sequence[str], ops: Sequence[ServiceOp], *, long: bool) -> list[str]:
        """Carry `ops` out in each sandbox, and end the flows to backends that left.

        Returns the paths where that failed: their tables must be written anew.
        """
        text = sandboxtable.commands(ops)
        lost = lost_backends(ops)
        failed = []
        for path in paths:
            try:
                with kernel.inside(path):
                    self._nft(path).run(text, remember=long)
                    if lost:
                        conntrack.forget(lambda flow: (flow.to, flow.by) in lost)
            except (NftError, OSError):
                failed.append(path)
        return failed

    def change_cluster(self, steps: Sequence[ClusterStep]) -> list[str]:
        """Carry out what a message of the managers changed, network by network. Returns failures as above."""
        failed = []
        for step in steps:
            if step.forward:
                self.overlays.forward(step.vni, step.forward)
            if step.services:
                failed += self.change_services(step.paths, step.services, long=step.long)
        return failed

    def rewrite_services(self, path: str, dns_port: int, services: Mapping[str, tuple[str, ...]]) -> None:
        with kernel.inside(path):
            self._nft(path).run(sandboxtable.table(dns_port, services))

    def _nft(self, path: str) -> Nft:
        """The context of the sandbox at `path`, which the calling thread is in."""
        context = self._contexts.get(path)
        if context is None:
            context = Nft()
            if len(self._contexts) < _KEPT_CONTEXTS:
                self._contexts[path] = context
        return context

    def reopen_dns(self, path: Path, port: int) -> DnsSockets:
        """The resolver's sockets again after a restart, on the port that the sandbox's rules name."""
        with kernel.inside(path):
            return open_dns(port)

    def _link(self, path: Path, ends: Sequence[End]) -> None:
        descriptor = kernel.open_namespace(path)
        try:
            on_host: list[Message] = []
            for end in ends:
                if end.vni:
                    self.overlays.add_macvlan(end.vni, end.link, end.mac, end.mtu, descriptor)
                elif end.parent:
                    on_host.append(sublinks.link(end.kind, end.made_as, self.index(end.parent), end.mac, end.mtu,
                                                 end.mode, descriptor))
                else:
                    on_host.append(netlink.new_veth(
                        end.host_link, end.link, peer_namespace_fd=descriptor, peer_mac=end.mac,
                        mtu=end.mtu, master=self.index(end.master)))
                    if end.isolated or end.hairpin:
                        on_host.append(netlink.set_port(end.host_link, isolated=end.isolated, hairpin=end.hairpin))
            if on_host:
                self.rtnl.send(on_host)
        finally:
            os.close(descriptor)

    # --- bridges and the host's own rules ---

    def index(self, link: str) -> int:
        """The index of one of the host's links, remembered. Raises NetlinkError (ENODEV)."""
        found = self._indexes.get(link) or self.rtnl.index_of(link)
        if not found:
            raise NetlinkError(f"look up link {link}", errno.ENODEV)
        self._indexes[link] = found
        return found

    def ensure_bridge(self, network: LocalNetwork) -> bool:
        """The bridge of `network`, up, with its gateway addresses. Returns whether it had to be made.

        Leaves none of its own after an error.
        """
        self._indexes.pop(network.link, None)
        return bridge.ensure(self.rtnl, network)

    def ensure_parent(self, network: LocalNetwork) -> bool:
        """The parent of a macvlan or ipvlan network. Returns whether it had to be made."""
        self._indexes.pop(network.link, None)
        return sublinks.ensure_parent(self.rtnl, network)

    def remove_link(self, link: str) -> None:
        """A bridge, or a parent, of our making."""
        self._indexes.pop(link, None)
        self.rtnl.send([netlink.del_link(link)])

    def lead_ports(self, old_rules: str, new_rules: str, host_link: str, flows_of: str) -> None:
        """Published ports lead elsewhere: the rules before and after, and the port of the bridge they come to."""
        if old_rules:
            with contextlib.suppress(NftError):  # the table was written anew without them
                self.host_nft.run(old_rules)
        if host_link:
            self.rtnl.send([netlink.set_port_hairpin(host_link)])
        if new_rules:
            self.host_nft.run(new_rules)
        if flows_of:
            _forget(lambda flow: flow.by == flows_of)

    def host_rules(self, commands: str) -> None:
        self.host_nft.run(commands)

    def dropping_chains(self) -> list[str]:
        """Chains of other programs that drop what they do not know of the packets the host forwards."""
        return hosttable.dropping_chains(self.host_nft.run("list chains"))

    def sweep(self, keep_paths: set[str], keep_links: set[str]) -> None:
        """Remove what a crash left: namespaces and veth ends that no record names."""
        for path in self.netns_root.iterdir():
            if str(path) not in keep_paths:
                kernel.delete_namespace(path)
        for line in Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]:
            link = line.partition(":")[0].strip()
            if is_host_link(link) and link not in keep_links:
                self.rtnl.send([netlink.del_link(link)])


def is_host_link(name: str) -> bool:
    """Whether `name` is one that this package gives to a veth's end on the host."""
    return len(name) == 8 and name[0] == "v" and all(letter in "0123456789abcdef" for letter in name[1:])


def _forget(match: Callable[[conntrack.Flow], bool]) -> None:
    """Forget tracked flows of the host; where its kernel tracks none, there are none."""
    with contextlib.suppress(OSError):
        conntrack.forget(match)


def _configure(inner: Rtnetlink, path: Path, ends: Sequence[End], gateways: Sequence[str]) -> None:
    """Links up, with their addresses, and the default routes."""
    inner.send([netlink.rename_link(inner.index_of(end.made_as), end.link) for end in ends if end.made_as])
    if wanted := {name: value for end in ends for name, value in end.sysctls.items()}:
        with kernel.inside(path):
            _set_sysctls(wanted)
    messages = []
    for end in ends:
        index = inner.index_of(end.link)
        messages.append(netlink.set_link(index=index, up=True))
        messages += [netlink.new_address(index, address) for address in end.addresses]
    messages += [netlink.new_route("default", gateway=gateway) for gateway in gateways]
    inner.send(messages)


def _set_sysctls(sysctls: Mapping[str, str]) -> None:
    """What a client asks for. Raises InvalidArgument where it is not of the network, or the kernel refuses it."""
    for name, value in sysctls.items():
        if not name.startswith("net."):
            raise InvalidArgument(f"sysctl {name} is not one of a network namespace")
        try:
            kernel.write_sysctl(name, value)
        except OSError as error:
            raise InvalidArgument(f"sysctl {name} cannot be set to {value!r}: {error.strerror}") from error


def open_dns(port: int = 0) -> DnsSockets:
    """The resolver's two sockets, on one port, in the thread's namespace. With 0, the kernel's choice."""
    for _ in range(16):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind((RESOLVER, port))
            chosen = udp.getsockname()[1]
            tcp.bind((RESOLVER, chosen))
            tcp.listen(8)
            return DnsSockets(udp, tcp, chosen)
        except OSError as error:
            udp.close()
            tcp.close()
            if port or error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no free port on {RESOLVER} for the resolver")
