"""The socket that rtnetlink messages are sent on, many at once, and the kernel's verdicts read from."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence

from shoal.api.errors import ShoalError
from shoal.overlay.netlink import ATTRIBUTE, HEADER, LINK, NLM_F_ACK, NLMSG_ERROR, RTM_NEWLINK, Message, get_link

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
NLMSGERR_ATTR_MSG = 1

_BATCH = 200
"""Messages in one send: their acknowledgements, 768 bytes of kernel memory each, fit the default receive buffer."""


class NetlinkError(ShoalError):
    """The kernel refused a message. `errno` says why."""

    def __init__(self, what: str, number: int, detail: str = "") -> None:
        super().__init__(f"{what}: {os.strerror(number)}{f' ({detail})' if detail else ''}")
        self.errno = number


class Rtnetlink:
    """A netlink socket. It stays bound to the namespace that its thread was in when it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, messages: Iterable[Message]) -> None:
        """Send all, in order. Every message is tried; raises NetlinkError of the first that failed."""
        todo = list(messages)
        failure: NetlinkError | None = None
        for start in range(0, len(todo), _BATCH):
            failure = failure or self._send(todo[start : start + _BATCH])
        if failure:
            raise failure

    def index_of(self, name: str) -> int:
        """The index of link `name`, 0 if there is none."""
        self._sequence += 1
        message = get_link(name)
        self._socket.send(HEADER.pack(16 + len(message.body), message.type, message.flags, self._sequence, 0)
                          + message.body)
        data = self._socket.recv(65536)
        _, kind, _, _, _ = HEADER.unpack_from(data)
        if kind == RTM_NEWLINK:
            return int(LINK.unpack_from(data, 16)[3])
        number = -struct.unpack_from("=i", data, 16)[0]
        if number == errno.ENODEV:
            return 0
        raise NetlinkError(message.what, number)

    def _send(self, messages: Sequence[Message]) -> NetlinkError | None:
        first = self._sequence + 1
        self._sequence = last = self._sequence + len(messages)
        packed = []
        for number, message in enumerate(messages, first):
            flags = message.flags | NLM_F_ACK if number == last else message.flags
            packed.append(HEADER.pack(16 + len(message.body), message.type, flags, number, 0))
            packed.append(message.body)
            if pad := -len(message.body) % 4:
                packed.append(b"\0" * pad)
        self._socket.send(b"".join(packed))
        failure: NetlinkError | None = None
        while True:
            data = self._socket.recv(65536)
            offset = 0
            while offset < len(data):
                length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
                if kind == NLMSG_ERROR and first <= sequence <= last:
                    number = -struct.unpack_from("=i", data, offset + 16)[0]
                    message = messages[sequence - first]
                    if number and number not in message.ignore and failure is None:
                        failure = NetlinkError(message.what, number, _detail(data[offset : offset + length], flags))
                    if sequence == last:
                        return failure
                offset += (length + 3) & ~3


def _detail(data: bytes, flags: int) -> str:
    """The kernel's own words in an extended acknowledgement, if it has any."""
    if not flags & 0x200:  # NLM_F_ACK_TLVS
        return ""
    offset = 36
    while offset + 4 <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        if kind & 0x3FFF == NLMSGERR_ATTR_MSG:
            return data[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return ""
