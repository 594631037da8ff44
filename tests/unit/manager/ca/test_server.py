"""Joining and renewing over real TLS on loopback."""

import ssl
import time
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from aiohttp import web

from shoal.api.membership import CertificateReply, CertificateRequest
from shoal.api.states import Availability, NodeState, Role
from shoal.manager.ca.identity import PeerIdentity, identity_in, peer_identity, require_manager, require_node
from shoal.manager.ca.issue import issue, new_key, new_request, new_root
from shoal.manager.ca.server import ca_routes
from shoal.manager.ca.tls import HostTLS
from shoal.manager.ca.tokens import token_for
from shoal.manager.controlapi.errors import api_errors
from shoal.manager.peers import ManagerTLS
from shoal.manager.store.changes import Update
from tests.unit.manager.controlapi_store import CLUSTER, MANAGER, WORKER, Swarm

DAY_NS = 24 * 3600 * 10**9
encode = msgspec.msgpack.encode


def host_files(folder, root, node_id, role, cluster_id=CLUSTER):
    key = new_key()
    folder.mkdir(exist_ok=True)
    certificate = issue(root, new_request(key), node_id=node_id, role=role, cluster_id=cluster_id,
                        lifetime_ns=DAY_NS, now=time.time())
    for name, text in (("node.key", key), ("node.crt", certificate), ("ca.crt", root.cert_pem)):
        (folder / name).write_text(text)
    return HostTLS(folder)


@pytest.fixture
def swarm():
    return Swarm()


@pytest.fixture
async def served(swarm, tmp_path):
    """The CA on a port with the manager's certificate, and a route that answers who calls."""
    root = swarm.store.view().cluster.root_ca

    async def who(request):
        peer = require_manager(request.transport.get_extra_info("ssl_object"), CLUSTER)
        return web.Response(text=peer.node_id)

    app = web.Application(middlewares=[api_errors])
    app.add_routes([*ca_routes(swarm.context), web.get("/who", who)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    tls = host_files(tmp_path / "m", root, MANAGER, Role.MANAGER)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.server)
    await site.start()
    yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def connected(context):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield session


def newcomer(swarm):
    """What a joining host trusts: the CA whose digest its token has, and no certificate of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=swarm.store.view().cluster.root_ca.cert_pem)
    return context


async def post(session, url, body):
    async with session.post(url, data=body) as response:
        raw = await response.read()
        if response.status == 200:
            return 200, msgspec.msgpack.decode(raw, type=CertificateReply)
        return response.status, msgspec.json.decode(raw)["message"]


async def test_join_makes_a_node_in_the_token_s_role(swarm, served):
    cluster = swarm.store.view().cluster
    request = CertificateRequest(csr_pem=new_request(new_key()), token=token_for(cluster, Role.MANAGER), hostname="h9",
                                 availability=Availability.PAUSE)
    async with connected(newcomer(swarm)) as session:
        async with session.get(f"{served}/ca/v1/root") as response:
            assert await response.text() == cluster.root_ca.cert_pem
        status, reply = await post(session, f"{served}/ca/v1/join", encode(request))
    assert status == 200 and reply.role is Role.MANAGER and reply.cluster_id == CLUSTER
    assert [peer.node_id for peer in reply.managers] == [MANAGER]
    node = swarm.store.view().nodes[reply.node_id]
    assert (node.spec.role, node.role, node.status.state) == (Role.MANAGER, Role.MANAGER, NodeState.UNKNOWN)
    assert (node.description.hostname, node.spec.availability) == ("h9", Availability.PAUSE)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        pytest.param(b"garbage", 400, "cannot be read", id="garbage"),
        pytest.param(b"", 400, "cannot be read", id="empty"),
        pytest.param(b"\xdb\x7f\xff\xff\xff", 400, "cannot be read", id="cut-msgpack"),
        pytest.param(b"x" * 70_000, 400, "too large", id="too-large"),
        pytest.param(encode(CertificateRequest(csr_pem="x")), 400, "invalid join token", id="no-token"),
    ],
)
async def test_a_bad_join_changes_nothing(swarm, served, body, status, says):
    before = swarm.store.view()
    async with connected(newcomer(swarm)) as session:
        answer = await post(session, f"{served}/ca/v1/join", body)
    assert answer[0] == status and says in answer[1]
    assert swarm.store.view() is before


async def test_a_bad_csr_with_a_good_token_makes_no_node(swarm, served):
    before = swarm.store.view()
    token = token_for(before.cluster, Role.WORKER)
    async with connected(newcomer(swarm)) as session:
        answer = await post(session, f"{served}/ca/v1/join", encode(CertificateRequest(csr_pem="x", token=token)))
    assert answer[0] == 400 and "cannot be read" in answer[1]
    assert swarm.store.view() is before


async def test_renewal_gives_the_role_that_is_wanted(swarm, served, tmp_path):
    stored = swarm.store.view().nodes[WORKER]
    promoted = msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, role=Role.MANAGER))
    tls = host_files(tmp_path / "w", swarm.store.view().cluster.root_ca, WORKER, Role.WORKER)
    request = encode(CertificateRequest(csr_pem=new_request(new_key())))
    async with connected(tls.client) as session:
        assert (await post(session, f"{served}/ca/v1/renew", request))[1].role is Role.WORKER
        swarm.store.apply(Update(record=promoted, wanted=True))
        status, reply = await post(session, f"{served}/ca/v1/renew", request)
        async with session.get(f"{served}/who") as response:  # the old certificate is still a worker's
            assert response.status == 403
    assert status == 200 and (reply.node_id, reply.role) == (WORKER, Role.MANAGER)
    assert swarm.store.view().nodes[WORKER].role is Role.MANAGER


async def test_an_expired_node_that_is_down_renews_with_a_token_and_keeps_its_id(swarm, served):
    from shoal.api.objects import NodeStatus
    from shoal.manager.store.changes import SetNodeStatus

    cluster = swarm.store.view().cluster
    good = CertificateRequest(csr_pem=new_request(new_key()), token=token_for(cluster, Role.WORKER), node_id=WORKER)
    async with connected(newcomer(swarm)) as session:
        url = f"{served}/ca/v1/renew"
        assert (await post(session, url, encode(good)))[0] == 403  # it is there
        swarm.store.apply(SetNodeStatus(id=WORKER, status=NodeStatus(state=NodeState.DOWN)))
        status, reply = await post(session, url, encode(good))
        assert (status, reply.node_id) == (200, WORKER)
        nobody = msgspec.structs.replace(good, node_id="nobody")
        assert (await post(session, url, encode(nobody)))[0] == 404
        manager = msgspec.structs.replace(good, node_id=MANAGER)
        assert (await post(session, url, encode(manager)))[0] == 400  # a worker's token is no manager's
        assert (await post(session, url, encode(msgspec.structs.replace(good, token=""))))[0] == 403


async def test_a_certificate_of_another_cluster_ends_at_the_handshake(swarm, served, tmp_path):
    other = new_root(time.time())
    tls = host_files(tmp_path / "x", other, MANAGER, Role.MANAGER)
    tls.client.load_verify_locations(cadata=swarm.store.view().cluster.root_ca.cert_pem)
    async with connected(tls.client) as session:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
            async with session.get(f"{served}/who") as response:
                await response.read()
    async with connected(newcomer(swarm)) as session, session.get(f"{served}/ca/v1/root") as response:
        assert response.status == 200  # nothing else suffers


async def test_contexts_take_up_changed_files(swarm, served, tmp_path):
    root = swarm.store.view().cluster.root_ca
    tls = host_files(tmp_path / "h", root, WORKER, Role.WORKER)
    assert not tls.refresh()
    async with connected(tls.client) as session, session.get(f"{served}/who") as response:
        assert response.status == 403
    host_files(tmp_path / "h", root, "n" * 25, Role.MANAGER)
    assert tls.refresh()
    async with connected(tls.client) as session, session.get(f"{served}/who") as response:
        assert (response.status, await response.text()) == (200, "n" * 25)


async def test_the_next_connection_has_the_renewed_certificate(swarm, served, tmp_path):
    root = swarm.store.view().cluster.root_ca
    host_files(tmp_path / "h", root, WORKER, Role.MANAGER)
    contexts = ManagerTLS(tmp_path / "h").for_raft(CLUSTER)
    for node_id in (WORKER, "n" * 25):
        host_files(tmp_path / "h", root, node_id, Role.MANAGER)
        async with connected(contexts.client()) as session, session.get(f"{served}/who") as response:
            assert (response.status, await response.text()) == (200, node_id)


class Presenting:
    def __init__(self, subject):
        self.subject = subject

    def getpeercert(self):
        return {"subject": self.subject} if self.subject else {}


def subject(**names):
    return tuple(((name, value),) for name, value in names.items())


GOOD = subject(organizationName="c", organizationalUnitName="swarm-worker", commonName="n")


def test_identities():
    assert identity_in(GOOD) == PeerIdentity("n", Role.WORKER, "c")
    assert identity_in(subject(commonName="n", organizationName="c")) is None
    assert identity_in(subject(commonName="n", organizationName="c", organizationalUnitName="swarm-king")) is None
    assert peer_identity(None) is None and peer_identity(Presenting(None)) is None


def test_roles_gate():
    from shoal.api.errors import PermissionDenied

    assert require_node(Presenting(GOOD), "c").node_id == "n"
    for connection, cluster, gate in [(None, "c", require_node), (Presenting(GOOD), "d", require_node),
                                      (Presenting(GOOD), "c", require_manager)]:
        with pytest.raises(PermissionDenied):
            gate(connection, cluster)
