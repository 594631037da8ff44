"""Joining a swarm: from a token and a manager's address to an identity on disk."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import msgspec

from shoal.api.errors import InvalidArgument, ShoalError, Unavailable
from shoal.api.ids import new_swarm_id
from shoal.api.jointoken import check_fingerprint, parse
from shoal.api.membership import MANAGER_PORT, CertificateReply, CertificateRequest, Identity
from shoal.api.messages import ManagerPeer
from shoal.api.states import Availability, Role
from shoal.worker.credentials import Credentials, certificate_facts, new_key

MAX_ANSWER_BYTES = 1 << 20
ATTEMPT_TIMEOUT_S = 10.0


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What this host was asked to join, and how others are to reach it."""

    token: str
    remotes: tuple[str, ...]
    advertise_addr: str
    listen_addr: str
    advertise_port: int = MANAGER_PORT  # these two once it is a manager
    listen_port: int = MANAGER_PORT
    data_path_addr: str = ""
    availability: Availability = Availability.ACTIVE
    hostname: str = ""


async def enroll(credentials: Credentials, wanted: JoinRequest) -> Identity:
    """Get a certificate from the first manager that gives one, and write the identity.

    Raises InvalidArgument for a token that is wrong (it says in which way), Unavailable
    where no manager could be reached. Nothing is written then.
    """
    token = parse(wanted.token)
    key_pem, csr_pem = new_key()
    request = CertificateRequest(
        csr_pem=csr_pem, token=str(token), hostname=wanted.hostname, availability=wanted.availability)
    failure: ShoalError = InvalidArgument("at least 1 RemoteAddr is required to join")
    for remote in wanted.remotes:
        address = with_port(remote)
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                root_pem = (await _call(address, "GET", "/ca/v1/root", _unverified())).decode()
                check_fingerprint(token, root_pem)
                reply = await ask_certificate(address, "/ca/v1/join", request, _trusting(root_pem))
        except (aiohttp.ClientError, OSError, TimeoutError, Unavailable) as error:
            failure = Unavailable(f"manager {address} cannot be reached: {str(error) or type(error).__name__}")
            continue
        return _keep(credentials, wanted, key_pem, reply, address)
    raise failure


def _keep(
    credentials: Credentials, wanted: JoinRequest, key_pem: str, reply: CertificateReply, asked: str
) -> Identity:
    facts = certificate_facts(reply.certificate_pem)
    if facts.node_id != reply.node_id:
        raise ShoalError(f"manager {asked} answered with the certificate of another node")
    identity = Identity(
        node_id=reply.node_id,
        cluster_id=reply.cluster_id,
        role=reply.role,
        advertise_addr=wanted.advertise_addr,
        advertise_port=wanted.advertise_port,
        listen_addr=wanted.listen_addr,
        listen_port=wanted.listen_port,
        data_path_addr=wanted.data_path_addr,
        managers=reply.managers or (ManagerPeer(node_id="", addr=asked),),
        raft_id=new_swarm_id() if reply.role is Role.MANAGER else "",
    )
    credentials.save_certificate(key_pem, reply.certificate_pem, reply.root_ca_pem)
    credentials.save(identity)
    return identity


async def ask_certificate(
    address: str, path: str, request: CertificateRequest, context: ssl.SSLContext
) -> CertificateReply:
    """One request to a manager's CA. Raises InvalidArgument or Unavailable with the manager's message."""
    answer = await _call(address, "POST", path, context, msgspec.msgpack.encode(request))
    try:
        return msgspec.msgpack.decode(answer, type=CertificateReply)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"manager {address} gave an answer that cannot be read: {error}") from error


async def _call(address: str, method: str, path: str, context: ssl.SSLContext, body: bytes | None = None) -> bytes:
    url = f"https://{address}{path}"
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.request(method, url, data=body, headers={"Content-Type": "application/msgpack"}) as answer,
    ):
        data = bytearray()
        async for part in answer.content.iter_any():
            data += part
            if len(data) > MAX_ANSWER_BYTES:
                raise Unavailable(f"manager {address} gave an answer that is too large")
        if answer.status == 200:
            return bytes(data)
        message = _message(bytes(data)) or f"status {answer.status}"
        if answer.status in (400, 401, 403, 404, 409):
            raise InvalidArgument(message)
        raise Unavailable(message)


def _message(data: bytes) -> str:
    try:
        return msgspec.json.decode(data, type=dict[str, str]).get("message", "")
    except msgspec.MsgspecError:
        return data[:300].decode(errors="replace")


def with_port(address: str, port: int = MANAGER_PORT) -> str:
    """`host:port` of an address whose port may be left out."""
    if address.startswith("["):
        return address if "]:" in address else f"{address}:{port}"
    if address.count(":") > 1:
        return f"[{address}]:{port}"
    return address if ":" in address else f"{address}:{port}"


def _unverified() -> ssl.SSLContext:
    """For the root certificate alone, whose digest the token knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _trusting(root_pem: str) -> ssl.SSLContext:
    context = _unverified()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=root_pem)
    return context
