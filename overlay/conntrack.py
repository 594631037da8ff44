"""Forgetting tracked flows of a dead backend, over ctnetlink.

A flow in progress keeps its translated destination. Once a backend has left a
VIP, its flows must go: UDP then finds another backend, TCP gets a reset, where
both would hang. Acts in the calling thread's namespace.

Layouts: linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

_NETLINK_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_DONE, _ERROR = 3, 2
_TUPLE_ORIG, _TUPLE_REPLY, _ZONE = 1, 2, 18
_HEADER = struct.Struct("=IHHII")
_IP, _SRC, _DST = 1, 1, 2
_PROTO, _PROTO_NUMBER, _DST_PORT = 2, 1, 3
_UDP = b"\x11"


class Flow:
    """A tracked IPv4 flow: where it was sent (`to`), and who really answers (`by`)."""

    __slots__ = ("by", "raw", "to", "zone")

    def __init__(self, to: str, by: str, raw: bytes, zone: bytes) -> None:
        self.to, self.by, self.raw, self.zone = to, by, raw, zone

    @property
    def udp_port(self) -> int:
        """The port that it was sent to; 0 where it is not UDP."""
        proto = dict(_attributes(dict(_attributes(self.raw)).get(_PROTO, b"")))
        return int.from_bytes(proto.get(_DST_PORT, b"")) if proto.get(_PROTO_NUMBER) == _UDP else 0


def forget(match: Callable[[Flow], bool]) -> int:
    """Delete the flows that `match`. Returns how many. Costs nothing where nothing is tracked."""
    try:
        if Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text().strip() == "0":
            return 0
    except OSError:
        return 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        doomed = [flow for flow in _flows(netlink) if match(flow)]
        for number, flow in enumerate(doomed, 2):
            body = struct.pack("=BBH", socket.AF_INET, 0, 0) + _attribute(_TUPLE_ORIG | 0x8000, flow.raw)
            if flow.zone:
                body += _attribute(_ZONE, flow.zone)
            netlink.send(_HEADER.pack(16 + len(body), _DELETE, _REQUEST | _ACK, number, 0) + body)
            netlink.recv(65536)  # ENOENT: it ended by itself
    return len(doomed)


def _flows(netlink: socket.socket) -> Iterator[Flow]:
    netlink.send(_HEADER.pack(20, _GET, _REQUEST | _DUMP, 1, 0) + struct.pack("=BBH", socket.AF_INET, 0, 0))
    while True:
        data = netlink.recv(1 << 18)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
            if kind in (_DONE, _ERROR):
                return
            attributes = dict(_attributes(data[offset + 20 : offset + length]))
            orig, reply = attributes.get(_TUPLE_ORIG, b""), attributes.get(_TUPLE_REPLY, b"")
            yield Flow(_address(orig, _DST), _address(reply, _SRC), orig, attributes.get(_ZONE, b""))
            offset += (length + 3) & ~3


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & 0x3FFF, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _address(flow_tuple: bytes, which: int) -> str:
    ip = dict(_attributes(dict(_attributes(flow_tuple)).get(_IP, b"")))
    packed = ip.get(which, b"")
    return str(IPv4Address(packed)) if len(packed) == 4 else ""
