"""The little of DNS's wire format (RFC 1035) that the resolver answers with itself. Pure.

Whatever else a query is, it is forwarded as the bytes it came in.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

import msgspec

A, PTR, AAAA, ANY, OPT = 1, 12, 28, 255, 41
NOERROR, SERVFAIL, NXDOMAIN, NOTIMP, FORMERR = 0, 2, 3, 4, 1
TTL_S = 2
"""How long a client may keep an answer of ours. Low: tasks come and go."""

_HEADER = struct.Struct(">HHHHHH")


class Query(msgspec.Struct, frozen=True):
    """One question. `name` in lower case, without the final dot. `size`: the largest answer over UDP."""

    id: int
    flags: int
    name: str
    type: int
    question: bytes
    size: int


def parse(data: bytes) -> Query | None:
    """The question in `data`; None if it is not a plain query with one question."""
    if len(data) < 17:
        return None
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & 0xF800 or questions != 1 or answers or authorities:
        return None
    labels, offset = [], 12
    while True:
        if offset >= len(data):
            return None
        length = data[offset]
        offset += 1
        if length == 0:
            break
        if length > 63 or offset + length > len(data):
            return None
        labels.append(data[offset : offset + length])
        offset += length
    if offset + 4 > len(data):
        return None
    kind, _ = struct.unpack_from(">HH", data, offset)
    offset += 4
    size = 512
    if additional and len(data) >= offset + 11 and data[offset] == 0:
        option, announced = struct.unpack_from(">HH", data, offset + 1)
        if option == OPT:
            size = max(512, min(announced, 4096))
    name = b".".join(labels).decode("ascii", "replace").lower()
    return Query(number, flags, name, kind, data[12 : offset], size)


def _reply(query: Query, code: int, records: Sequence[bytes], size: int) -> bytes:
    room = size - 12 - len(query.question)
    count = used = 0
    for record in records:
        if used + len(record) > room:
            break
        used += len(record)
        count += 1
    truncated = 0x200 if count < len(records) else 0
    flags = 0x8480 | query.flags & 0x0100 | truncated | code
    return _HEADER.pack(query.id, flags, 1, count, 0, 0) + query.question + b"".join(records[:count])


def addresses(query: Query, found: Sequence[str], size: int = 0) -> bytes:
    """The answer to a query of type A or AAAA. `size` 0: what the client takes over UDP."""
    packed = [ip_address(one).packed for one in found]
    records = [b"\xc0\x0c" + struct.pack(">HHIH", A if len(one) == 4 else AAAA, 1, TTL_S, len(one)) + one
               for one in packed]
    return _reply(query, NOERROR, records, size or query.size)


def empty(query: Query, code: int = NOERROR) -> bytes:
    """An answer without records."""
    return _reply(query, code, (), 4096)


def pointer(query: Query, name: str) -> bytes:
    """The answer to a reverse query."""
    encoded = b"".join(bytes([len(label)]) + label for label in
                       (part.encode("ascii", "replace")[:63] for part in name.split(".") if part)) + b"\0"
    record = b"\xc0\x0c" + struct.pack(">HHIH", PTR, 1, TTL_S, len(encoded)) + encoded
    return _reply(query, NOERROR, [record], query.size)


def failure(data: bytes, code: int) -> bytes:
    """An error for a message that could not be parsed, or one to be answered from its bytes alone."""
    number, flags = struct.unpack_from(">HH", data)
    return _HEADER.pack(number, 0x8080 | flags & 0x7900 | code, 0, 0, 0, 0)


def reversed_address(name: str) -> str | None:
    """The address that an in-addr.arpa or ip6.arpa name stands for."""
    if name.endswith(".ip6.arpa"):
        digits = name[: -len(".ip6.arpa")].split(".")
        if len(digits) != 32 or not all(len(digit) == 1 and digit in "0123456789abcdef" for digit in digits):
            return None
        return str(IPv6Address(int("".join(reversed(digits)), 16)))
    if not name.endswith(".in-addr.arpa"):
        return None
    parts = name[: -len(".in-addr.arpa")].split(".")
    if len(parts) != 4 or not all(part.isdigit() and int(part) < 256 for part in parts):
        return None
    return ".".join(reversed(parts))
