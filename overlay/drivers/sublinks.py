"""macvlan and ipvlan: links of sandboxes directly on one of the host's, the parent. Runs on the network thread only.

The host itself reaches nobody on its parent's sub-links: the kernel keeps them
apart. The parent is the user's own, a VLAN sub-interface that is made if its name
says which ("eth0.10"), or a dummy of ours where none was named.
"""

from __future__ import annotations

import errno

from shoal.api.errors import InvalidArgument, NotImplementedHere
from shoal.overlay import netlink
from shoal.overlay.localspecs import dummy_name, vlan_of
from shoal.overlay.netlink import Message
from shoal.overlay.records import LocalNetwork
from shoal.overlay.rtnetlink import NetlinkError, Rtnetlink

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}


def ensure_parent(rtnl: Rtnetlink, network: LocalNetwork) -> bool:
    """Returns whether it had to be made. Raises InvalidArgument where it is not there and cannot be."""
    parent = network.link
    if rtnl.index_of(parent):
        return False
    if parent == dummy_name(network.driver, network.id):
        _make_dummy(rtnl, parent)
        return True
    vlan = vlan_of(parent)
    if vlan is None:
        raise InvalidArgument(f"the parent interface {parent} is not there, and its name says no VLAN to make of "
                              "another (as eth0.10 does)")
    link, tag = vlan
    index = rtnl.index_of(link)
    if not index:
        raise InvalidArgument(f"failed to find master interface {link} on the Docker host: Link not found")
    try:
        rtnl.send([netlink.new_vlan(parent, parent=index, vlan=tag)])
    except NetlinkError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise NotImplementedHere(f"the parent interface {parent} is not there, and this host's kernel has no VLAN "
                                 "sub-interfaces (8021q)") from error
    return True


def _make_dummy(rtnl: Rtnetlink, name: str) -> None:
    try:
        rtnl.send([netlink.new_dummy(name)])
    except NetlinkError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        rtnl.send([netlink.new_bridge(name)])  # without ports it leads nowhere either, and every kernel has it


def link(kind: str, name: str, parent: int, mac: str, mtu: int, mode: str, namespace_fd: int) -> Message:
    """The link of a sandbox, made there, down. An MTU above the parent's is refused by the kernel."""
    if kind == "ipvlan":
        return netlink.new_ipvlan(name, parent=parent, namespace_fd=namespace_fd, mtu=mtu)
    if kind == "macvlan":
        return netlink.new_macvlan(name, parent=parent, namespace_fd=namespace_fd, mac=mac, mtu=mtu,
                                   mode=MACVLAN_MODES[mode], up=False)
    raise NetlinkError(f"make a link of kind {kind}", errno.EOPNOTSUPP)
