"""Whoever is no manager of this cluster, or speaks nonsense, is dropped and logged; three members go on committing."""

import asyncio
import logging
import ssl
import struct
import time
from types import SimpleNamespace

import msgpack
import pytest
import pytest_asyncio

from shoal.api.states import Role as NodeRole
from shoal.manager.ca.issue import new_root
from shoal.manager.store.raft import Member
from shoal.manager.store.raft.transport import HELLO_BYTES, MAX_ACCEPTED, MAX_FRAME_BYTES
from tests.integration.raft.trio import certify, free_address, renew, trio, until

LENGTH = struct.Struct(">I")


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trio_of_all(tmp_path_factory):
    async with trio(tmp_path_factory.mktemp("trio")) as made:
        yield made


@pytest.fixture
def three(trio_of_all, caplog):
    """Three that have committed together; what they log from now on is seen."""
    caplog.set_level(logging.WARNING, logger="shoal.manager.store.raft")
    return trio_of_all


def frame(message):
    body = message if isinstance(message, bytes) else msgpack.packb(message)
    return LENGTH.pack(len(body)) + body


HELLO = frame({"version": 1, "from": "n9.a", "to": "n1.a"})


async def dropped(made, caplog, data, *, tls=None, reason):
    """Send this to n1; it hangs up and says why, no term changes, and writes are committed before and after."""
    term = (await made.leader()).term
    host, port = made.address("n1.a")
    context = tls.client if tls is not None else None
    try:
        async with asyncio.timeout(15):
            reader, writer = await asyncio.open_connection(host, port, ssl=context,
                                                           server_hostname=host if context else None)
            writer.write(data)
            await reader.read()
            writer.transport.abort()
    except (ConnectionError, ssl.SSLError):
        pass
    await until(lambda: reason in caplog.text)
    await made.goes_on(b"after %d" % next(made.numbers))
    assert (await made.leader()).term == term
    await until(lambda: all(len(node.stats()["linked"]) == 2 for node in made.nodes.values()))


@pytest.mark.parametrize("data", [
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
    pytest.param(b"\x00" * 100_000, id="zeros"),
    pytest.param(b"\xff" * 10, id="ones"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01" + b"?" * 600, id="half a TLS greeting"),
])
async def test_garbage(three, caplog, data):
    await dropped(three, caplog, data, reason="raft link dropped")


async def test_a_certificate_of_another_ca(three, caplog, tmp_path):
    other = new_root(time.time(), name="another")
    foreign = certify(tmp_path / "foreign", other, "n2")
    foreign.client.load_verify_locations(cadata=three.root.cert_pem)  # it trusts us; do we trust it?
    await dropped(three, caplog, HELLO, tls=foreign, reason="raft link dropped")
    assert "certificate" in caplog.text.lower()


async def test_no_certificate(three, caplog):
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname = False
    nobody.load_verify_locations(cadata=three.root.cert_pem)
    await dropped(three, caplog, HELLO, tls=SimpleNamespace(client=nobody), reason="raft link dropped")


async def test_a_workers_certificate(three, caplog, tmp_path):
    worker = certify(tmp_path / "worker", three.root, "n9", NodeRole.WORKER)
    await dropped(three, caplog, HELLO, tls=worker, reason="the certificate is not a manager's of this cluster")


async def test_a_manager_cannot_speak_for_another(three, caplog, tmp_path):
    manager = certify(tmp_path / "n9", three.root, "n9")
    await dropped(three, caplog, frame({"version": 1, "from": "n2.a", "to": "n1.a"}), tls=manager,
                  reason="the certificate of n9 cannot speak for n2.a")


@pytest.mark.parametrize(("data", "reason"), [
    pytest.param(LENGTH.pack(HELLO_BYTES + 1), f"a frame of {HELLO_BYTES + 1} bytes", id="a long greeting"),
    pytest.param(frame(b"\xc1garbage"), "not msgpack", id="no msgpack"),
    pytest.param(frame(["no", "map"]), "not a message", id="no map"),
    pytest.param(frame({"version": 99, "from": "n9.a", "to": "n1.a"}), "not a greeting", id="another version"),
    pytest.param(frame({"version": 1, "from": 5, "to": "n1.a"}), "not a greeting", id="an id that is no text"),
    pytest.param(frame({"version": 1, "from": "n9.a", "to": "n2.a"}), "wants 'n2.a', this is n1.a", id="other door"),
    pytest.param(HELLO + LENGTH.pack(MAX_FRAME_BYTES + 1), f"a frame of {MAX_FRAME_BYTES + 1} bytes", id="too large"),
    pytest.param(HELLO + LENGTH.pack(0xFFFFFFFF), "a frame of 4294967295 bytes", id="four gigabytes"),
    pytest.param(HELLO + frame({"type": "append_entries"}), "malformed message 'append_entries'", id="malformed"),
    pytest.param(HELLO + frame({}), "malformed message", id="no type"),
])
async def test_what_a_verified_manager_may_not_send(three, caplog, tmp_path, data, reason):
    manager = certify(tmp_path / "n9", three.root, "n9")
    await dropped(three, caplog, data, tls=manager, reason=reason)


async def test_a_manager_outside_the_configuration_is_answered_and_counts_for_nothing(three, tmp_path):
    """A joiner that waits, or a member that our log does not know yet. It has no vote and deposes nobody."""
    term = (await three.leader()).term
    manager = certify(tmp_path / "n9", three.root, "n9")
    host, port = three.address("n1.a")
    reader, writer = await asyncio.open_connection(host, port, ssl=manager.client, server_hostname=host)
    writer.write(HELLO)
    for message in ({"type": "pre_vote", "term": term + 1, "last_log_index": 999, "last_log_term": 999},
                    {"type": "request_vote", "term": term + 1, "last_log_index": 999, "last_log_term": 999},
                    {"type": "response_vote", "term": term},
                    {"type": "next_node_idx", "term": term, "next_node_idx": 999, "reset": False, "success": True},
                    {"type": "apply_command", "command": b"\x00smuggled"}):
        writer.write(frame(message))
    async with asyncio.timeout(10):
        assert await received(reader) == {"version": 1, "from": "n1.a"}
        answer = await received(reader)
    assert answer["type"] == "pre_vote_answer" and answer["granted"] is False
    await three.goes_on(b"after")
    assert (await three.leader()).term == term
    assert b"smuggled" not in three.machines["n1.a"].values
    writer.transport.abort()


async def received(reader):
    (length,) = LENGTH.unpack(await reader.readexactly(4))
    return msgpack.unpackb(await reader.readexactly(length))


async def test_connections_that_say_nothing_are_bounded_and_harm_no_link(three, caplog):
    host, port = three.address("n1.a")
    writers = [(await asyncio.open_connection(host, port))[1] for _ in range(MAX_ACCEPTED + 5)]
    await until(lambda: "too many links" in caplog.text)
    await three.goes_on(b"meanwhile")
    for writer in writers:
        writer.transport.abort()


async def test_a_renewed_certificate_counts_at_the_next_connection(three):
    folder = three.folder / "n3"
    before = set(three.serials)
    renew(folder, three.root, "n3")
    assert three.tls["n3.a"].refresh()
    await three.nodes["n3.a"].stop()
    await three.start(three.members[2])
    await three.goes_on(b"renewed")
    assert len(three.serials - before) == 1


async def test_a_member_that_was_away_comes_back_with_all(three):
    """Its address book, its log and its links; also where it missed a snapshot's worth."""
    await three.nodes.pop("n3.a").stop()
    await until(lambda: any(node.is_ready for node in three.nodes.values()))
    leader = next(node for node in three.nodes.values() if node.is_ready)
    before = leader.stats()["last_index"]
    for n in range(50):
        await leader.propose(b"missed %d" % n)
    leader.compact()
    await until(lambda: leader.stats()["first_index"] > before + 30)
    await three.start(three.members[2])
    await three.goes_on(b"all again")
    assert three.nodes["n3.a"].stats()["snapshot_index"] > before
    assert three.machines["n3.a"].values == three.machines[leader.me.id].values


async def test_leadership_is_transferred_over_the_wire(three):
    leader = await three.leader()
    other = next(node for node in three.nodes.values() if node is not leader)
    await leader.transfer_leadership(other.me.id)
    await until(lambda: other.is_ready)
    await three.goes_on(b"after the transfer")


async def test_a_fourth_manager_joins_and_leaves(three):
    leader = await three.leader()
    fourth = Member("n4.a", free_address())
    await three.start(fourth)
    await leader.add_member(fourth)
    await leader.propose(b"four")
    await until(lambda: b"four" in three.machines["n4.a"].values)
    await leader.remove_member("n4.a")
    await until(lambda: three.nodes["n4.a"].is_removed)
    await three.nodes.pop("n4.a").stop()
    three.machines.pop("n4.a")
    await three.goes_on(b"three again")
