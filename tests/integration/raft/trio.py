"""Three Raft nodes on loopback over real mutual TLS, with certificates of a CA made for the test."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shoal.api.objects import RootCA
from shoal.api.specs import SECOND_NS
from shoal.api.states import Role as NodeRole
from shoal.manager.ca.identity import peer_identity
from shoal.manager.ca.issue import issue, new_key, new_request, new_root
from shoal.manager.ca.tls import HostTLS
from shoal.manager.store.raft import Member, RaftNode, RaftTiming, TlsContexts
from tests.unit.manager.raft.mended import Values

CLUSTER = "c1"
DEADLINE_S = 15.0
TIMING = RaftTiming(election_min_s=1.5, election_max_s=2.5, propose_timeout_s=DEADLINE_S, trailing_entries=10)
"""Patient, so that a machine that is busy with something else causes no election."""


def certify(folder: Path, root: RootCA, node_id: str, role: NodeRole = NodeRole.MANAGER) -> HostTLS:
    """A key and a certificate of this CA, as files; TLS with them."""
    folder.mkdir(parents=True, exist_ok=True)
    renew(folder, root, node_id, role)
    return HostTLS(folder)


def renew(folder: Path, root: RootCA, node_id: str, role: NodeRole = NodeRole.MANAGER) -> None:
    key = new_key()
    certificate = issue(root, new_request(key), node_id=node_id, role=role, cluster_id=CLUSTER,
                        lifetime_ns=24 * 3600 * SECOND_NS, now=time.time())
    for name, text in (("node.key", key), ("node.crt", certificate), ("ca.crt", root.cert_pem)):
        (folder / name).write_text(text)


def raft_tls(folder: Path) -> TlsContexts:
    """For a process of its own, from the files that `certify` made."""
    tls = HostTLS(folder)

    def peer_id(connection: ssl.SSLObject) -> str | None:
        peer = peer_identity(connection)
        return peer.node_id if peer and peer.role is NodeRole.MANAGER else None

    return TlsContexts(client=lambda: tls.client, server=lambda: tls.strict_server, peer_id=peer_id)


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


class Trio:
    """Nodes n1, n2, n3, members n1.a, n2.a, n3.a."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = new_root(time.time())
        self.members = tuple(Member(f"n{n}.a", free_address()) for n in (1, 2, 3))
        self.machines = {member.id: Values() for member in self.members}
        self.tls: dict[str, HostTLS] = {}
        self.nodes: dict[str, RaftNode] = {}
        self.numbers = itertools.count()
        self.serials: set[str] = set()  # of certificates that were looked at

    def contexts(self, tls: HostTLS) -> TlsContexts:
        def peer_id(connection: ssl.SSLObject) -> str | None:
            certificate = connection.getpeercert()
            self.serials.add(str((certificate or {}).get("serialNumber")))
            peer = peer_identity(connection)
            return peer.node_id if peer and peer.role is NodeRole.MANAGER and peer.cluster_id == CLUSTER else None

        return TlsContexts(client=lambda: tls.client, server=lambda: tls.strict_server, peer_id=peer_id)

    async def start(self, member: Member) -> None:
        node_id = member.id.partition(".")[0]
        if member.id not in self.tls:
            self.tls[member.id] = certify(self.folder / node_id, self.root, node_id)
        self.machines[member.id] = Values()
        node = RaftNode(
            me=member, members=self.members, machine=self.machines[member.id], directory=self.folder / node_id / "raft",
            tls=self.contexts(self.tls[member.id]), timing=TIMING, fatal=self._fatal,
        )
        await node.start()
        self.nodes[member.id] = node

    def _fatal(self, reason: str) -> None:
        raise AssertionError(f"a member stops: {reason}")

    async def leader(self) -> RaftNode:
        """Once there is one that is ready and linked with all."""
        await until(lambda: any(self.settled(node) for node in self.nodes.values()))
        return next(node for node in self.nodes.values() if self.settled(node))

    def settled(self, node: RaftNode) -> bool:
        others = {member.id for member in self.members} - {node.me.id}
        return node.is_ready and others <= set(node.stats()["linked"])

    async def goes_on(self, value: bytes) -> None:
        """A write is committed, and applied by all three."""
        leader = await self.leader()
        await leader.propose(value)
        await until(lambda: all(value in machine.values for machine in self.machines.values()))

    def address(self, member_id: str) -> tuple[str, int]:
        host, _, port = next(m.address for m in self.members if m.id == member_id).rpartition(":")
        return host, int(port)


@asynccontextmanager
async def trio(folder: Path) -> AsyncIterator[Trio]:
    made = Trio(folder)
    try:
        for member in made.members:
            await made.start(member)
        await made.goes_on(b"begun")
        yield made
    finally:
        for node in made.nodes.values():
            await node.stop()


async def until(condition: Callable[[], Any], seconds: float = DEADLINE_S) -> None:
    """Let the loop go on until it holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
