"""rtnetlink messages packed by hand, several to one send.

A container's start sends about eight messages; packing them costs microseconds
where general-purpose encoders cost milliseconds. Only messages are made here
(pure); the socket that they are sent on lives in `rtnetlink.py`. Namespaces,
dumps and what the messages are for live in `kernel.py`.

Layouts: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import NamedTuple

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR = 20, 21
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
RTM_NEWNEIGH, RTM_DELNEIGH = 28, 29
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_FD = 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER = 1
IFLA_MACVLAN_MODE, MACVLAN_MODE_BRIDGE = 1, 4
IFLA_IPVLAN_MODE, IPVLAN_MODE_L2 = 1, 0
IFLA_VLAN_ID = 1
IFLA_BRPORT_MODE, IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_FLUSH = 4, 8, 9, 24
IFLA_BRPORT_MCAST_FLOOD, IFLA_BRPORT_BCAST_FLOOD, IFLA_BRPORT_ISOLATED = 27, 30, 33
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_TTL, IFLA_VXLAN_LEARNING = 1, 4, 5, 7
IFLA_VXLAN_PROXY, IFLA_VXLAN_PORT = 11, 15
IFF_UP = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 4, 5, 6
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT, NUD_NOARP = 0x80, 0x40
NTF_SELF = 0x02
AF_BRIDGE = 7

HEADER = struct.Struct("=IHHII")
LINK = struct.Struct("=BBHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BBHiHBB")
ATTRIBUTE = struct.Struct("=HH")


class Message(NamedTuple):
    """One request. Errors in `ignore` are as good as success (the wanted state stands already)."""

    type: int
    flags: int
    body: bytes
    what: str
    ignore: tuple[int, ...] = ()


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def pack_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _link(
    name: str = "", *, index: int = 0, flags: int = 0, change: int = 0, mac: str = "", mtu: int = 0,
    master: int = 0, parent: int = 0, namespace_fd: int = -1,
) -> bytes:
    parts = [LINK.pack(0, 0, 0, index, flags, change)]
    if name:
        parts.append(_text(IFLA_IFNAME, name))
    if mac:
        parts.append(attribute(IFLA_ADDRESS, pack_mac(mac)))
    if mtu:
        parts.append(_number(IFLA_MTU, mtu))
    if master:
        parts.append(_number(IFLA_MASTER, master))
    if parent:
        parts.append(_number(IFLA_LINK, parent))
    if namespace_fd >= 0:
        parts.append(_number(IFLA_NET_NS_FD, namespace_fd))
    return b"".join(parts)


_CREATE = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL


def new_veth(
    name: str, peer: str, *, peer_namespace_fd: int = -1, peer_mac: str = "",
    mac: str = "", mtu: int = 1500, master: int = 0,
) -> Message:
    """A veth pair, this end up and a port of bridge `master` if that is not 0.

    The peer must be set up afterwards: the kernel joins the ends last (else ENOTCONN).
    """
    other = _link(peer, mac=peer_mac, mtu=mtu, namespace_fd=peer_namespace_fd)
    info = _text(IFLA_INFO_KIND, "veth") + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other))
    body = _link(name, flags=IFF_UP, change=IFF_UP, mac=mac, mtu=mtu, master=master)
    return Message(RTM_NEWLINK, _CREATE, body + attribute(IFLA_LINKINFO, info), f"create veth {name}/{peer}")


def new_macvlan(
    name: str, *, parent: int, namespace_fd: int, mac: str, mtu: int = 0, mode: int = MACVLAN_MODE_BRIDGE,
    up: bool = True,
) -> Message:
    """A macvlan on link `parent`, made directly in another namespace.

    The kernel refuses a `name` that a link of the socket's own namespace has.
    """
    data = attribute(IFLA_INFO_DATA, _number(IFLA_MACVLAN_MODE, mode))
    flags = IFF_UP if up else 0
    body = _link(name, flags=flags, change=flags, mac=mac, mtu=mtu, parent=parent, namespace_fd=namespace_fd)
    return Message(RTM_NEWLINK, _CREATE, body + attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "macvlan") + data),
                   f"create macvlan {name}")


def new_ipvlan(name: str, *, parent: int, namespace_fd: int, mtu: int = 0) -> Message:
    """An ipvlan (layer 2) on link `parent`, whose MAC it shares, made directly in another namespace, down.

    The kernel refuses a `name` that a link of the socket's own namespace has.
    """
    data = attribute(IFLA_INFO_DATA, attribute(IFLA_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODE_L2)))
    body = _link(name, mtu=mtu, parent=parent, namespace_fd=namespace_fd)
    return Message(RTM_NEWLINK, _CREATE, body + attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "ipvlan") + data),
                   f"create ipvlan {name}")


def new_vlan(name: str, *, parent: int, vlan: int) -> Message:
    """The sub-interface of `parent` whose frames carry the tag `vlan`, up."""
    data = attribute(IFLA_INFO_DATA, attribute(IFLA_VLAN_ID, struct.pack("=H", vlan)))
    body = _link(name, flags=IFF_UP, change=IFF_UP, parent=parent)
    return Message(RTM_NEWLINK, _CREATE, body + attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "vlan") + data),
                   f"create vlan {name}")


def new_dummy(name: str) -> Message:
    """A link that leads nowhere, up."""
    body = _link(name, flags=IFF_UP, change=IFF_UP)
    return Message(RTM_NEWLINK, _CREATE, body + attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "dummy")),
                   f"create dummy {name}")


def new_vxlan(name: str, *, vni: int, port: int, local: str, mtu: int, namespace_fd: int, index: int) -> Message:
    """A VXLAN device that never learns nor floods, and answers ARP itself.

    Made directly in another namespace; its UDP socket stays in the one of the
    netlink socket.
    """
    data = b"".join((
        _number(IFLA_VXLAN_ID, vni),
        attribute(IFLA_VXLAN_LOCAL, IPv4Address(local).packed),
        attribute(IFLA_VXLAN_PORT, struct.pack(">H", port)),
        attribute(IFLA_VXLAN_TTL, b"\x40"),
        attribute(IFLA_VXLAN_LEARNING, b"\0"),
        attribute(IFLA_VXLAN_PROXY, b"\1"),
    ))
    info = _text(IFLA_INFO_KIND, "vxlan") + attribute(IFLA_INFO_DATA, data)
    body = _link(name, index=index, flags=IFF_UP, change=IFF_UP, mtu=mtu, namespace_fd=namespace_fd)
    return Message(RTM_NEWLINK, _CREATE, body + attribute(IFLA_LINKINFO, info), f"create vxlan {name} (id {vni})")


def set_vxlan_local(index: int, local: str) -> Message:
    """Send from another address from now on."""
    data = attribute(IFLA_INFO_DATA, attribute(IFLA_VXLAN_LOCAL, IPv4Address(local).packed))
    info = _text(IFLA_INFO_KIND, "vxlan") + data
    return Message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, _link(index=index) + attribute(IFLA_LINKINFO, info),
                   f"set local address of vxlan {index}")


def new_bridge(name: str, *, mac: str = "", mtu: int = 0) -> Message:
    body = _link(name, flags=IFF_UP, change=IFF_UP, mac=mac, mtu=mtu)
    return Message(RTM_NEWLINK, _CREATE, body + attribute(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "bridge")),
                   f"create bridge {name}")


def set_port(name: str, *, isolated: bool = False, hairpin: bool = False) -> Message:
    """How bridge port `name` behaves: `isolated` ones do not reach each other, a `hairpin` one reaches itself."""
    data = attribute(IFLA_BRPORT_ISOLATED, bytes([isolated])) + attribute(IFLA_BRPORT_MODE, bytes([hairpin]))
    info = _text(IFLA_INFO_SLAVE_KIND, "bridge") + attribute(IFLA_INFO_SLAVE_DATA, data)
    return Message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, _link(name) + attribute(IFLA_LINKINFO, info),
                   f"set bridge port {name}")


def set_port_hairpin(name: str) -> Message:
    """Bridge port `name` reaches itself; the rest of it stays as it is."""
    info = _text(IFLA_INFO_SLAVE_KIND, "bridge") + attribute(
        IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_MODE, b"\1"))
    return Message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, _link(name) + attribute(IFLA_LINKINFO, info),
                   f"set bridge port {name}")


def close_port(name: str) -> Message:
    """Forget the addresses behind bridge port `name`, learn none, and send nothing there that is not known to be.

    So nothing more reaches it. A hundred times faster than deleting it, and
    unlike its state this is not undone at the next change of its carrier.
    """
    off = (IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_MCAST_FLOOD, IFLA_BRPORT_BCAST_FLOOD)
    data = b"".join(attribute(one, b"\0") for one in off) + attribute(IFLA_BRPORT_FLUSH, b"")
    info = _text(IFLA_INFO_SLAVE_KIND, "bridge") + attribute(IFLA_INFO_SLAVE_DATA, data)
    return Message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, _link(name) + attribute(IFLA_LINKINFO, info),
                   f"close bridge port {name}", (errno.ENODEV, errno.EOPNOTSUPP, errno.ENETDOWN))


def set_link(name: str = "", *, index: int = 0, up: bool | None = None, mtu: int = 0, master: int = 0) -> Message:
    flags, change = (IFF_UP if up else 0, IFF_UP) if up is not None else (0, 0)
    body = _link(name, index=index, flags=flags, change=change, mtu=mtu, master=master)
    return Message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, body, f"set link {name or index}")


def rename_link(index: int, name: str) -> Message:
    """A link that is down."""
    return Message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, _link(name, index=index), f"rename link {index} to {name}")


def move_link(name: str, namespace_fd: int) -> Message:
    return Message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, _link(name, namespace_fd=namespace_fd), f"move link {name}")


def del_link(name: str = "", *, index: int = 0) -> Message:
    return Message(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, _link(name, index=index), f"delete link {name or index}",
                   (errno.ENODEV,))


def get_link(name: str) -> Message:
    return Message(RTM_GETLINK, NLM_F_REQUEST, _link(name), f"look up link {name}")


def new_address(index: int, address: str) -> Message:
    """`address` with its prefix length, on link `index`. Of IPv6 it is taken to be unique: no wait for others."""
    interface = ip_interface(address)
    packed = interface.ip.packed
    family, flags = (socket.AF_INET, 0) if interface.version == 4 else (socket.AF_INET6, IFA_F_NODAD)
    body = (
        _ADDRESS.pack(family, interface.network.prefixlen, flags, 0, index)
        + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    )
    if interface.version == 4 and interface.network.prefixlen < 31:
        body += attribute(IFA_BROADCAST, interface.network.broadcast_address.packed)
    return Message(RTM_NEWADDR, _CREATE, body, f"add address {address}", (errno.EEXIST,))


def new_route(destination: str, *, gateway: str = "", index: int = 0, metric: int = 0) -> Message:
    """A route in the main table; `destination` "default" (of the gateway's family) or a network."""
    family, net = _destination(destination, gateway)
    scope = 0 if gateway else 253  # universe, link
    parts = [_ROUTE.pack(family, net.prefixlen, 0, 0, 254, 3, scope, 1, 0)]
    if net.prefixlen:
        parts.append(attribute(RTA_DST, net.network_address.packed))
    if gateway:
        parts.append(attribute(RTA_GATEWAY, ip_address(gateway).packed))
    if index:
        parts.append(_number(RTA_OIF, index))
    if metric:
        parts.append(_number(RTA_PRIORITY, metric))
    return Message(RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, b"".join(parts),
                   f"add route {destination}")


def _destination(destination: str, gateway: str) -> tuple[int, IPv4Network | IPv6Network]:
    everything = "::/0" if ":" in gateway else "0.0.0.0/0"
    net = ip_network(everything if destination == "default" else destination)
    return socket.AF_INET if net.version == 4 else socket.AF_INET6, net


def del_route(destination: str, *, family: int = socket.AF_INET) -> Message:
    """`family`: of a "default"."""
    family, net = _destination(destination, "::" if family == socket.AF_INET6 else "")
    body = _ROUTE.pack(family, net.prefixlen, 0, 0, 254, 0, 255, 0, 0)
    if net.prefixlen:
        body += attribute(RTA_DST, net.network_address.packed)
    return Message(RTM_DELROUTE, NLM_F_REQUEST | NLM_F_ACK, body, f"delete route {destination}", (errno.ESRCH,))


_REPLACE = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE


def set_fdb(index: int, mac: str, node: str) -> Message:
    """On VXLAN device `index`, frames for `mac` go to host `node`."""
    body = (
        _NEIGHBOUR.pack(AF_BRIDGE, 0, 0, index, NUD_PERMANENT | NUD_NOARP, NTF_SELF, 0)
        + attribute(NDA_LLADDR, pack_mac(mac)) + attribute(NDA_DST, IPv4Address(node).packed)
    )
    return Message(RTM_NEWNEIGH, _REPLACE, body, f"set fdb {mac}")


def del_fdb(index: int, mac: str) -> Message:
    body = _NEIGHBOUR.pack(AF_BRIDGE, 0, 0, index, NUD_PERMANENT, NTF_SELF, 0) + attribute(NDA_LLADDR, pack_mac(mac))
    return Message(RTM_DELNEIGH, NLM_F_REQUEST, body, f"delete fdb {mac}", (errno.ENOENT,))


def set_neighbour(index: int, address: str, mac: str) -> Message:
    """A permanent entry: what an ARP proxy on link `index` answers for `address`."""
    body = (
        _NEIGHBOUR.pack(socket.AF_INET, 0, 0, index, NUD_PERMANENT, 0, 0)
        + attribute(NDA_DST, IPv4Address(address).packed) + attribute(NDA_LLADDR, pack_mac(mac))
    )
    return Message(RTM_NEWNEIGH, _REPLACE, body, f"set neighbour {address}")


def del_neighbour(index: int, address: str) -> Message:
    body = (
        _NEIGHBOUR.pack(socket.AF_INET, 0, 0, index, 0, 0, 0) + attribute(NDA_DST, IPv4Address(address).packed)
    )
    return Message(RTM_DELNEIGH, NLM_F_REQUEST, body, f"delete neighbour {address}", (errno.ENOENT,))
