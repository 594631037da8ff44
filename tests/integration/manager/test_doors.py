"""Ports 2377 and 2378: who is let in, and what garbage does (nothing)."""

from __future__ import annotations

import asyncio
import ssl
import struct
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from shoal.api.errors import InvalidArgument
from shoal.api.jointoken import parse
from shoal.api.membership import CertificateReply, CertificateRequest, RaftMember
from shoal.api.states import Role
from shoal.manager.ca.issue import issue, new_key, new_request, new_root
from shoal.manager.ca.tls import HostTLS
from shoal.worker.credentials import Credentials
from shoal.worker.renew import Renewer
from tests.integration.manager.hosts import Host, Hosts, until

FOREIGN_CLUSTER = "f" * 25


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One manager that gets all the garbage, and has to go on."""
    host = Host(tmp_path_factory.mktemp("doors"), 200)

    async def init() -> None:
        await host.init()
        await host.hang_up()

    asyncio.run(init())
    yield host
    if host.runs:
        host.kill()


@pytest.fixture
async def first(served: Host) -> AsyncIterator[Host]:
    served.forget_log()
    yield served
    await served.hang_up()


@pytest.fixture
async def alone(hosts: Hosts) -> Host:
    """A manager of the test's own."""
    (host,) = await hosts.swarm(1)
    return host


@pytest.fixture
async def worker(hosts: Hosts, first: Host) -> Credentials:
    """A worker of the swarm."""
    host = hosts.new()
    await host.enroll(await first.token(Role.WORKER), first)
    credentials = Credentials(host.data / "swarm")
    credentials.load()
    return credentials


@pytest.fixture
def foreign(tmp_path: Path) -> HostTLS:
    """A manager of another swarm."""
    root, key = new_root(time.time()), new_key()
    certificate = issue(root, new_request(key), node_id="n" * 25, role=Role.MANAGER, cluster_id=FOREIGN_CLUSTER,
                        lifetime_ns=10**9 * 86400, now=time.time())
    for name, text in (("node.key", key), ("node.crt", certificate), ("ca.crt", root.cert_pem)):
        (tmp_path / name).write_text(text)
    return HostTLS(tmp_path)


def trusting_anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def ask(host: Host, context: ssl.SSLContext, method: str, path: str, **more: Any) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.request(method, f"https://{host.address}:2377{path}", **more) as answer,
    ):
        return answer.status, await answer.read()


async def still_works(host: Host) -> None:
    assert host.runs, host.last_words()
    assert (await host.create_service(f"s{uuid.uuid4().hex}"))[0] == 201


# --- certificates ---


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/services"), ("POST", "/services/create"), ("GET", "/raft/v1/members"), ("POST", "/raft/v1/members"),
    ("GET", "/dispatcher/v1/session"), ("GET", "/nothing"),
])
async def test_without_a_certificate_nothing_is_answered(first: Host, method: str, path: str) -> None:
    status, body = await ask(first, trusting_anybody(), method, path)
    assert (status, b"a node certificate of this swarm is needed" in body) == (403, True)


async def test_without_a_certificate_the_root_is_given(first: Host) -> None:
    status, body = await ask(first, trusting_anybody(), "GET", "/ca/v1/root")
    assert (status, body.startswith(b"-----BEGIN CERTIFICATE")) == (200, True)


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/services"), ("GET", "/swarm"), ("POST", "/services/create"), ("GET", "/raft/v1/members"),
    ("POST", "/raft/v1/members"), ("DELETE", "/raft/v1/members/x"),
])
async def test_a_worker_is_no_manager(first: Host, worker: Credentials, method: str, path: str) -> None:
    status, body = await ask(first, worker.client, method, path)
    assert (status, b"is not a manager" in body) == (403, True)
    await still_works(first)


async def test_a_worker_renews_its_certificate_and_nobody_elses(first: Host, worker: Credentials) -> None:
    identity = worker.identity
    assert identity is not None
    key = new_key()
    body = msgspec.msgpack.encode(CertificateRequest(csr_pem=new_request(key), node_id=first.node_id))
    status, answer = await ask(first, worker.client, "POST", "/ca/v1/renew", data=body)
    reply = msgspec.msgpack.decode(answer, type=CertificateReply)
    assert (status, reply.node_id, reply.role) == (200, identity.node_id, Role.WORKER)


async def test_a_follower_does_not_pass_a_renewal_on(hosts: Hosts, alone: Host) -> None:
    """It would be the follower's certificate that is renewed."""
    third, second = hosts.new(), hosts.new()
    await third.enroll(await alone.token(Role.WORKER), alone)
    worker = Credentials(third.data / "swarm")
    worker.load()
    await second.join(alone)
    body = msgspec.msgpack.encode(CertificateRequest(csr_pem=new_request(new_key())))
    status, _ = await ask(second, worker.client, "POST", "/ca/v1/renew", data=body)
    assert status == 503


async def test_a_manager_of_another_swarm_is_refused(first: Host, foreign: HostTLS) -> None:
    for port, said in ((2377, "event=connection-dropped"), (2378, "raft link dropped")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            reader, writer = await asyncio.open_connection(first.address, port, ssl=_unverifying(foreign))
            writer.write(b"GET /services HTTP/1.1\r\nHost: x\r\n\r\n")
            await writer.drain()
            if await reader.read(100) == b"":  # TLS 1.3: the refusal may come after our handshake
                raise ConnectionResetError
        await first.says(said)
    await still_works(first)


def _unverifying(tls: HostTLS) -> ssl.SSLContext:
    tls.client.verify_mode = ssl.CERT_NONE
    return tls.client


async def test_a_manager_cannot_speak_for_another_node(hosts: Hosts, alone: Host) -> None:
    second = hosts.new()
    await second.join(alone)
    credentials = Credentials(second.data / "swarm")
    credentials.load()
    claim = RaftMember(raft_id="x", node_id=alone.node_id, addr="192.0.2.1:2378", manager_addr="192.0.2.1:2377")
    status, body = await ask(alone, credentials.client, "POST", "/raft/v1/members", data=msgspec.msgpack.encode(claim))
    assert (status, b"is not that of node" in body) == (403, True)
    info = await alone.info()
    assert info is not None and info.managers == 2


@pytest.mark.parametrize("body", [
    b"", b"\xc1", b"\x93\x01\x02\x03", b"x" * 5000, b"\x81" * 5000,
    msgspec.msgpack.encode({"raft_id": "x", "node_id": "", "addr": "nowhere", "manager_addr": ""}),
    msgspec.msgpack.encode({"raft_id": "x", "node_id": "", "addr": "192.0.2.1:22", "manager_addr": ""}),
    msgspec.msgpack.encode({"raft_id": "../x", "node_id": "", "addr": "192.0.2.1:2378", "manager_addr": ""}),
])
async def test_a_malformed_request_to_be_added_changes_nothing(first: Host, body: bytes) -> None:
    credentials = Credentials(first.data / "swarm")
    credentials.load()
    assert (await ask(first, credentials.client, "POST", "/raft/v1/members", data=body))[0] == 400
    info = await first.info()
    assert info is not None and info.managers == 1


async def test_a_body_that_is_too_large_is_refused(first: Host) -> None:
    status, _ = await first.call("POST", "/services/create", {"Name": "x" * (5 << 20)})
    assert status == 413
    await still_works(first)


async def test_a_renewed_certificate_counts_at_once(hosts: Hosts, alone: Host) -> None:
    second = hosts.new()
    await second.join(alone)
    credentials = Credentials(second.data / "swarm")
    credentials.load()
    before = await _served_certificate(second)
    await Renewer(credentials, lambda: [f"{alone.address}:2377"]).renew()

    async def is_new() -> bool:
        return await _served_certificate(second) != before

    await until(is_new)
    assert (await second.create_service("s"))[0] == 201


async def _served_certificate(host: Host) -> bytes:
    _, writer = await asyncio.open_connection(host.address, 2377, ssl=trusting_anybody())
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


# --- tokens ---


async def _wrong_tokens(host: Host) -> AsyncIterator[tuple[str, str]]:
    token = await host.token(Role.WORKER)
    parsed = parse(token)
    other = "0" if parsed.secret[-1] != "0" else "1"
    yield token[:-1], "truncated"
    yield token[:-1] + other, "A valid join token is necessary"
    yield token.replace(parsed.digest, "0" * 50), "does not match fingerprint"
    yield "hello", "invalid join token"


async def test_a_wrong_token_is_refused_with_the_reason(hosts: Hosts, alone: Host) -> None:
    second = hosts.new()
    async for token, reason in _wrong_tokens(alone):
        with pytest.raises(InvalidArgument, match=reason):
            await second.enroll(token, alone)
    assert len(await alone.get("/nodes")) == 1


async def test_a_stranger_does_not_choose_its_id(first: Host) -> None:
    """Ids of nodes derive from ids of requests: they count only from a manager that passes a request on."""
    token = await first.token(Role.WORKER)
    body = msgspec.msgpack.encode(CertificateRequest(csr_pem=new_request(new_key()), token=token))
    ids = set()
    for _ in range(2):
        status, answer = await ask(first, trusting_anybody(), "POST", "/ca/v1/join", data=body,
                                   headers={"X-Shoal-Request-Id": "mine"})
        assert status == 200
        ids.add(msgspec.msgpack.decode(answer, type=CertificateReply).node_id)
    assert len(ids) == 2
    status, _ = await ask(first, trusting_anybody(), "POST", "/ca/v1/join", data=body,
                          headers={"X-Shoal-Request-Id": "mine", "X-Shoal-Forwarded": "x"})
    assert status == 403


async def test_a_rotated_token_opens_nothing_any_more(hosts: Hosts, alone: Host) -> None:
    old = await alone.token(Role.MANAGER)
    swarm = await alone.get("/swarm")
    status, _ = await alone.call(
        "POST", f"/swarm/update?version={swarm['Version']['Index']}&rotateManagerToken=true", swarm["Spec"])
    assert status == 200
    second = hosts.new()
    with pytest.raises(InvalidArgument, match="A valid join token is necessary"):
        await second.enroll(old, alone)
    await second.enroll(await alone.token(Role.MANAGER), alone)


# --- garbage ---


GARBAGE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="plain http"),
    pytest.param(b"\x00" * 4096, id="zeros"),
    pytest.param(b"\x16\x03\x01\xff\xff" + b"\xff" * 70000, id="a broken handshake"),
    pytest.param(struct.pack(">I", 1 << 31) + b"x" * 100, id="a large frame"),
]


@pytest.mark.parametrize("port", [2377, 2378])
@pytest.mark.parametrize("data", GARBAGE)
async def test_garbage_is_dropped(first: Host, port: int, data: bytes) -> None:
    await _send(first, port, None, data)
    await still_works(first)
    await first.says("event=connection-dropped" if port == 2377 else "raft link dropped")


@pytest.mark.parametrize("data", [
    pytest.param(b"GET / HTTP/7.7.7\r\n\r\n", id="no http"),
    pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", id="a large header"),
])
async def test_garbage_within_tls_is_dropped(first: Host, data: bytes) -> None:
    await _send(first, 2377, trusting_anybody(), data)
    await still_works(first)
    await first.says("event=request-dropped")
    assert not first.said("Traceback")


@pytest.mark.parametrize("rest", [
    pytest.param(b"Content-Length: 99999999999\r\n\r\n", id="a large body"),
    pytest.param(b"Content-Length: 5\r\n\r\n\xc1\xc1\xc1\xc1\xc1", id="no message"),
])
async def test_a_request_to_join_that_is_none_is_refused(first: Host, rest: bytes) -> None:
    head = b"POST /ca/v1/join HTTP/1.1\r\nHost: x\r\n"
    answer = await _send(first, 2377, trusting_anybody(), head + rest)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")), answer
    await still_works(first)


@pytest.mark.parametrize("data", [
    pytest.param(b"", id="nothing"),
    pytest.param(struct.pack(">I", 1 << 31), id="a large frame"),
    pytest.param(struct.pack(">I", 3) + b"\xc1\xc1\xc1", id="no message"),
    pytest.param(struct.pack(">I", 1) + msgspec.msgpack.encode(7), id="a number"),
    pytest.param(struct.pack(">I", 100) + b"\x81", id="a torn frame"),
])
async def test_garbage_from_a_manager_on_rafts_port_is_dropped(hosts: Hosts, first: Host, data: bytes) -> None:
    credentials = Credentials(first.data / "swarm")
    credentials.load()
    await _send(first, 2378, credentials.client, data)
    await still_works(first)


async def test_a_worker_on_rafts_port_is_dropped(first: Host, worker: Credentials) -> None:
    identity = worker.identity
    assert identity is not None
    hello = msgspec.msgpack.encode({"version": 1, "from": identity.node_id, "to": "x"})
    assert await _send(first, 2378, worker.client, struct.pack(">I", len(hello)) + hello) == b""
    await still_works(first)
    await first.says("the certificate is not a manager's of this cluster")


async def _send(host: Host, port: int, context: ssl.SSLContext | None, data: bytes) -> bytes:
    """What comes back until the other side closes or has nothing more to say."""
    answer = b""
    try:
        reader, writer = await asyncio.open_connection(host.address, port, ssl=context)
        writer.write(data)
        if context is None:
            writer.write_eof()
        else:
            await writer.drain()
        try:
            async with asyncio.timeout(0.5):
                while part := await reader.read(4096):
                    answer += part
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()
    except (ConnectionError, ssl.SSLError):
        pass
    return answer
