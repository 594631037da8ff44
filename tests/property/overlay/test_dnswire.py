"""Our few DNS messages against dnslib's reading of them, and garbage of any kind."""

from __future__ import annotations

from dnslib import EDNS0, QTYPE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from shoal.overlay import dnswire

labels = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
found = st.lists(st.integers(1, 250).map(lambda last: f"10.0.1.{last}"), max_size=250, unique=True)


@given(names, found, st.booleans())
def test_addresses(name: str, addresses: list[str], edns: bool) -> None:
    record = DNSRecord.question(name)
    if edns:
        record.add_ar(EDNS0(udp_len=4096))
    query = dnswire.parse(record.pack())
    assert query is not None and query.name == name.lower() and query.type == QTYPE.A
    reply = dnswire.addresses(query, addresses)
    assert len(reply) <= (4096 if edns else 512)
    read = DNSRecord.parse(reply)
    assert read.header.id == record.header.id and read.header.qr == 1
    assert str(read.q.qname).lower() == name.lower() + "."
    got = [str(answer.rdata) for answer in read.rr]
    assert got == addresses[: len(got)]
    assert bool(read.header.tc) == (len(got) < len(addresses))


@given(names, names)
def test_pointer(name: str, target: str) -> None:
    query = dnswire.parse(DNSRecord.question(name, "PTR").pack())
    assert query is not None
    assert str(DNSRecord.parse(dnswire.pointer(query, target)).rr[0].rdata) == target + "."


@given(st.binary(max_size=600))
def test_garbage_is_no_query_and_no_error(data: bytes) -> None:
    query = dnswire.parse(data)
    if query is not None:
        DNSRecord.parse(dnswire.empty(query, dnswire.SERVFAIL))
    if len(data) >= 12:
        dnswire.failure(data, dnswire.SERVFAIL)


@given(st.binary(max_size=80))
def test_garbage_after_a_good_head(tail: bytes) -> None:
    dnswire.parse(DNSRecord.question("a").pack()[:12] + tail)
