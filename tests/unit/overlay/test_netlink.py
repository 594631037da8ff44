"""Messages as the kernel's headers lay them out."""

from __future__ import annotations

import struct

import pytest

from shoal.overlay import netlink


def read(data: bytes) -> dict[int, bytes]:
    found, offset = {}, 0
    while offset < len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        found[kind] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


@pytest.mark.parametrize("message", [
    netlink.new_veth("v0", "eth0", peer_namespace_fd=7, peer_mac="02:42:00:00:00:01", master=3),
    netlink.new_macvlan("eth0", parent=16, namespace_fd=5, mac="02:42:00:00:00:01", mtu=1450),
    netlink.new_vxlan("vx1", vni=1, port=4789, local="10.0.0.1", mtu=1450, namespace_fd=5, index=16),
    netlink.new_bridge("br0"), netlink.set_port("v0", isolated=True), netlink.set_link(index=2, up=True),
])
def test_attributes_are_padded_to_four_bytes(message: netlink.Message) -> None:
    assert len(message.body) % 4 == 0
    attributes = read(message.body[16:])
    assert all(len(attributes[kind]) == 4 for kind in (netlink.IFLA_MTU, netlink.IFLA_LINK) if kind in attributes)


def test_vxlan_never_learns_and_answers_itself() -> None:
    message = netlink.new_vxlan("vx1", vni=77, port=4790, local="10.0.0.1", mtu=1450, namespace_fd=5, index=16)
    info = read(read(message.body[16:])[netlink.IFLA_LINKINFO])
    data = read(info[netlink.IFLA_INFO_DATA])
    assert info[netlink.IFLA_INFO_KIND] == b"vxlan\0"
    assert data[netlink.IFLA_VXLAN_ID] == struct.pack("=I", 77)
    assert data[netlink.IFLA_VXLAN_PORT] == struct.pack(">H", 4790)
    assert data[netlink.IFLA_VXLAN_LEARNING] == b"\0" and data[netlink.IFLA_VXLAN_PROXY] == b"\1"
    assert data[netlink.IFLA_VXLAN_LOCAL] == bytes([10, 0, 0, 1])


def test_address_and_route() -> None:
    body = netlink.new_address(2, "172.17.0.2/16").body
    assert struct.unpack_from("=BBBBI", body) == (2, 16, 0, 0, 2)
    assert read(body[8:])[netlink.IFA_BROADCAST] == bytes([172, 17, 255, 255])
    route = netlink.new_route("default", gateway="172.17.0.1").body
    assert route[1] == 0 and read(route[12:])[netlink.RTA_GATEWAY] == bytes([172, 17, 0, 1])
