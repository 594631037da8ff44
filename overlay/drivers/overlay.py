"""Overlay networks in the kernel. Runs on the network thread only.

For each network on this host a namespace `ov-<vni>` holds one VXLAN device that
neither learns nor floods; endpoints are macvlan links on it, in the sandboxes.
Where frames go is told by static entries, planned in `plan.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from shoal.overlay import kernel, netlink
from shoal.overlay.netlink import Message
from shoal.overlay.plan import (
    DropFdb,
    DropNeighbour,
    Forwarding,
    ForwardOp,
    SetFdb,
    SetNeighbour,
    plan_forwarding,
)
from shoal.overlay.rtnetlink import NetlinkError, Rtnetlink

_INDEX = 16
"""Index of the VXLAN device: above whatever the kernel may put into a new namespace by itself."""


class OverlayLinks:
    """The VXLAN devices of this host, by VNI."""

    def __init__(self, netns_root: Path) -> None:
        self._root = netns_root
        self._live: dict[int, Rtnetlink] = {}

    def path(self, vni: int) -> Path:
        return self._root / f"ov-{vni}"

    def close(self) -> None:
        for rtnl in self._live.values():
            rtnl.close()
        self._live.clear()

    def make(self, host: Rtnetlink, vni: int, local: str, port: int, mtu: int) -> None:
        """The network's namespace and device. Leaves nothing after an error."""
        path = self.path(vni)
        kernel.delete_namespace(path)
        with kernel.new_namespace(path):
            rtnl = Rtnetlink()
            rtnl.send([netlink.set_link(index=1, up=True)])
            kernel.without_ipv6()
        descriptor = kernel.open_namespace(path)
        try:
            host.send([netlink.new_vxlan(f"vx{vni}", vni=vni, port=port, local=local, mtu=mtu,
                                         namespace_fd=descriptor, index=_INDEX)])
        except NetlinkError:
            rtnl.close()
            kernel.delete_namespace(path)
            raise
        finally:
            os.close(descriptor)
        self._live[vni] = rtnl

    def adopt(self, vni: int) -> bool:
        """Take up a network that an earlier run made. False if it does not stand."""
        path = self.path(vni)
        if not kernel.is_namespace(path):
            return False
        with kernel.inside(path):
            rtnl = Rtnetlink()
        if rtnl.index_of(f"vx{vni}") != _INDEX:
            rtnl.close()
            return False
        self._live[vni] = rtnl
        return True

    def remove(self, vni: int) -> None:
        """The device now, so that its VNI is free again; then the namespace."""
        rtnl = self._live.pop(vni, None)
        if rtnl is not None:
            rtnl.send([netlink.del_link(index=_INDEX)])
            rtnl.close()
        kernel.delete_namespace(self.path(vni))

    def add_macvlan(self, vni: int, link: str, mac: str, mtu: int, namespace_fd: int) -> None:
        self._live[vni].send([netlink.new_macvlan(link, parent=_INDEX, namespace_fd=namespace_fd, mac=mac, mtu=mtu)])

    def forward(self, vni: int, ops: Iterable[ForwardOp]) -> None:
        """Carry out all of `ops`, packed. Raises NetlinkError of the first that failed, after trying all."""
        self._live[vni].send([_message(op) for op in ops])

    def actual(self, vni: int) -> Forwarding:
        """What the kernel has now."""
        path = self.path(vni)
        return Forwarding(kernel.dump_fdb(path, _INDEX), kernel.dump_neighbours(path, _INDEX))

    def repair(self, vni: int, wanted: Forwarding, local: str) -> int:
        """Compare the kernel with `wanted` and mend the difference; `local`: this host's address on the underlay.

        Returns how many entries differed.
        """
        self._live[vni].send([netlink.set_vxlan_local(_INDEX, local)])
        ops = plan_forwarding(wanted, self.actual(vni))
        self.forward(vni, ops)
        return len(ops)


def _message(op: ForwardOp) -> Message:
    match op:
        case SetFdb(mac, node):
            return netlink.set_fdb(_INDEX, mac, node)
        case DropFdb(mac):
            return netlink.del_fdb(_INDEX, mac)
        case SetNeighbour(address, mac):
            return netlink.set_neighbour(_INDEX, address, mac)
        case DropNeighbour(address):
            return netlink.del_neighbour(_INDEX, address)
