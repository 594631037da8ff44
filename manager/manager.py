"""One manager, put together: Raft, store, the leader's loops, the managers' port, the private socket.

    manager = await found(...)      # a swarm of this host alone
    manager = await take_up(...)    # again, or for the first time with a certificate
    await manager.run()             # until `stop`
    await manager.close()
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from shoal.api.errors import Conflict, NotManager, ShoalError, Unavailable
from shoal.api.ids import new_swarm_id
from shoal.api.membership import Identity, InitRequest, ManagerInfoReply, at_port
from shoal.api.messages import ManagerPeer
from shoal.manager import founding
from shoal.manager.ca.server import ca_routes
from shoal.manager.collector import Collector
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.routes import routes
from shoal.manager.controlloop import drive
from shoal.manager.deciders import deciders
from shoal.manager.dispatcher.server import Dispatcher
from shoal.manager.forwarding import Front
from shoal.manager.hostfolder import HostFolder
from shoal.manager.joining import Joining, leave
from shoal.manager.memberroutes import MemberRoutes
from shoal.manager.membership import (
    RaftMembership,
    Upkeep,
    manager_address,
    member_id,
    node_of,
    raft_address,
)
from shoal.manager.office import Office
from shoal.manager.peers import ManagerTLS, Peers
from shoal.manager.privatesocket import PrivateSocket
from shoal.manager.server import Server
from shoal.manager.store.memory import MemoryStore
from shoal.manager.store.raft import Member, Members, RaftNode, RaftTiming
from shoal.manager.store.replicated import OfficeStore, ReplicatedStore

log = logging.getLogger(__name__)

SETTLE_S = 3.0
"""A manager that comes back waits so long for its peers, then asks whether it is still one of them."""

FOUND_TIMEOUT_S = 10.0
"""To become a new swarm's leader, on top of the longest election timeout."""

REMOVED_S = 10.0


class Manager:
    """See the module. `info`, `leave` and `stop` are what the private socket asks for."""

    def __init__(
        self, folder: HostFolder, run_root: Path, identity: Identity, *, tls: ManagerTLS, peers: Peers,
        join: str, others: Members = (), founds: bool = False, timing: RaftTiming | None = None,
    ) -> None:
        """`join` names our log. Where it is new, `others` take part already, or we found the swarm."""
        self.identity = identity
        self._run_root, self._tls, self._peers = run_root, tls, peers
        self._stopping = asyncio.Event()
        self._takes_part = False  # the leader has added us, now or before
        self._left = False  # the others go on without us
        self._for_good = False  # this manager is not to come back
        self._election_max_s = (timing or RaftTiming()).election_max_s
        me = Member(member_id(identity.node_id, join), raft_address(identity.advertise_addr, identity.advertise_port))
        memory = MemoryStore()
        self.node = RaftNode(
            me=me, members=[me] if founds else others, machine=memory, directory=folder.raft / join,
            tls=tls.for_raft(identity.cluster_id), listen=raft_address(identity.listen_addr, identity.listen_port),
            on_leader=self._leader_changed, on_members=self._members_changed, on_removed=self._removed,
            timing=timing, fatal=die)
        self.store = ReplicatedStore(self.node, memory)
        self._membership = RaftMembership(self.node)
        self._upkeep = Upkeep(self.node)
        self._dispatcher = Dispatcher(node_id=identity.node_id, leader_addr=self._membership.leader_address)
        self._joining = Joining(peers, known_addresses(identity))
        front = Front(self.node, self._membership, peers)
        self._context = ControlContext(
            node_id=identity.node_id, store=self.store, membership=self._membership, host_session=peers.hosts)
        self._server = Server(cluster_id=identity.cluster_id, tls=tls, node=self.node, store=self.store,
                              membership=self._membership, front=front)
        self._socket = PrivateSocket(self, front)

    # --- life ---

    async def start_raft(self) -> None:
        """Read the log and take part in Raft. Raises ShoalError."""
        try:
            await self.node.start()
        except OSError as error:
            where = raft_address(self.identity.listen_addr, self.identity.listen_port)
            raise ShoalError(f"the manager cannot listen on {where}, or not read its log: {error}") from error
        Collector().install()  # what was loaded is not walked again

    async def serve(self) -> None:
        """The managers' port and the private socket. Raises ShoalError."""
        context, identity = self._context, self.identity
        where = at_port(identity.listen_addr, identity.listen_port)
        members = MemberRoutes(context, self.node, self._tls, self._server.peer)
        try:
            await self._server.start(identity.listen_addr, identity.listen_port,
                                     [*ca_routes(context), *routes(context), *members.routes(),
                                      *self._dispatcher.routes()])
        except OSError as error:
            raise ShoalError(f"the manager cannot listen on {where}: {error}") from error
        try:
            await self._socket.start(self._run_root, routes(context))
        except OSError as error:
            raise ShoalError(f"the manager cannot serve its socket in {self._run_root}: {error}") from error
        log.info("event=serving node=%s member=%s address=%s", self.identity.node_id, self.node.me.id, where)

    async def run(self) -> None:
        """Until `stop`. Raises an ExceptionGroup where this manager cannot go on."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in (
                Office(self.node, self.store, self._loops).serve(), self._take_part(), self._end_when_removed())]
            await self._stopping.wait()
            for task in tasks:
                task.cancel()

    async def close(self) -> None:
        """Let go of everything; what is on disk stays. A leader hands its office over first."""
        if self.node.is_leader and len(self.node.members) > 1:
            with suppress(ShoalError):
                await self.node.transfer_leadership()
        if self._for_good and not self._left and not self.node.is_removed and self.node.members != (self.node.me,):
            await self._joining.take_back(self.node.me, self.node.members)
        await self._socket.stop()
        await self._server.stop()
        await self._peers.close()
        await self.node.stop()

    async def record(self, first: founding.First, request: InitRequest) -> None:
        """Make the swarm's first records. Raises ShoalError."""
        try:
            async with asyncio.timeout(FOUND_TIMEOUT_S + self._election_max_s):
                await self.node.wait_for(lambda: self.node.is_ready)
                await self.store.submit(first.command(self.node.me, request))
        except TimeoutError as error:
            raise Unavailable("the new swarm's first manager did not become its leader") from error
        self._takes_part = True

    async def _take_part(self) -> None:
        """See that we are a member at our present address. Raises PermissionDenied where we are not to be."""
        if self.node.me in self.node.members:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await self.node.wait_for(self._is_settled)
        if not self._is_settled():
            log.info("event=asks-to-be-added member=%s address=%s", self.node.me.id, self.node.me.address)
            asking = asyncio.ensure_future(self._joining.ask_to_be_added(self.node.me))
            try:
                await self.node.wait_for(lambda: self._is_settled() or asking.done())
                if asking.done():
                    asking.result()
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            await self.node.wait_for(self._is_settled)
        self._takes_part = True
        log.info("event=takes-part member=%s leader=%s", self.node.me.id, self._membership.leader_node_id())

    async def _end_when_removed(self) -> None:
        """Who was demoted is stopped by its daemon. Where it is not, it begins anew: it may be wanted after all."""
        await self.node.wait_for(lambda: self.node.is_removed)
        await asyncio.sleep(REMOVED_S)
        raise ShoalError("this manager was taken out of the swarm's managers")

    def _is_settled(self) -> bool:
        return self.node.me in self.node.members and bool(self._membership.leader_address())

    def _loops(self, store: OfficeStore) -> list[Coroutine[Any, Any, None]]:
        """What runs while this manager leads."""
        return [
            *(drive(store, decider, time.monotonic) for decider in deciders(new_swarm_id)),
            self._dispatcher.run(store),
            self._upkeep.run(store),
        ]

    # --- what Raft tells ---

    def _leader_changed(self, leader: str | None) -> None:
        log.info("event=leader leader=%s term=%d", node_of(leader or "") or "none", self.node.term)

    def _members_changed(self, members: Members) -> None:
        log.info("event=members members=%s", ",".join(f"{each.id}@{each.address}" for each in members))
        self._upkeep.wake()

    def _removed(self) -> None:
        log.warning("event=removed member=%s why=the swarm goes on without this manager", self.node.me.id)

    # --- what the private socket asks ---

    def info(self) -> ManagerInfoReply:
        view, node, identity = self.store.view(), self.node, self.identity
        record, leader = view.nodes.get(identity.node_id), self._membership.leader_node_id()
        peers = [ManagerPeer(node_id=node_of(each.id), addr=manager_address(each)) for each in node.members]
        return ManagerInfoReply(
            pid=os.getpid(), node_id=identity.node_id, cluster_id=identity.cluster_id, is_leader=node.is_leader,
            is_ready=bool(leader) and self._takes_part and record is not None and record.manager is not None
            and (node.is_ready or not node.is_leader),
            leader_node_id=leader, managers=len(peers), nodes=len(view.nodes), remote_managers=tuple(peers))

    async def leave(self, *, force: bool) -> None:
        if len(self.node.members) <= 1:
            if not force:
                raise Unavailable("this is the swarm's last manager: to leave erases the swarm's state, use force")
            return
        await leave(self.node, self._membership, self._peers)
        self._left = True

    def stop(self) -> None:
        self._for_good = True
        self._stopping.set()

    def end(self) -> None:
        """As `stop`, but to come back: it stays a member."""
        self._stopping.set()


# --- beginnings ---


async def found(
    folder: HostFolder, run_root: Path, request: InitRequest, timing: RaftTiming | None = None
) -> Manager:
    """Make a swarm of this host alone, and serve. Raises ShoalError. The identity is written last: without it there
    is no swarm."""
    if folder.identity() is not None:
        raise Conflict("this host is part of a swarm already: leave it first")
    first = founding.First(request, time.time())
    first.certify(folder)
    tls = load_tls(folder)
    manager = Manager(folder, run_root, first.identity, tls=tls, peers=Peers(tls),
                      join=folder.new_join(first.identity.raft_id), founds=True, timing=timing)
    try:
        await manager.start_raft()
        await manager.serve()
        await manager.record(first, request)
        folder.save_identity(first.identity)
    except BaseException:
        await manager.close()
        raise
    return manager


async def take_up(folder: HostFolder, run_root: Path, timing: RaftTiming | None = None) -> Manager:
    """Take part with the certificate and the log that are here; without a log, for the first time, once a leader
    has said who takes part. Raises ShoalError."""
    identity = folder.identity()
    if identity is None:
        raise NotManager(f"{folder.folder} holds no identity: this host is in no swarm")
    tls = load_tls(folder)
    peers = Peers(tls)
    join = folder.found_join(identity.raft_id)
    others: Members = ()
    if join is None:
        try:
            others = await Joining(peers, known_addresses(identity)).members()
        except BaseException:
            await peers.close()
            raise
        join = folder.new_join(identity.raft_id)
    manager = Manager(folder, run_root, identity, tls=tls, peers=peers, join=join, others=others, timing=timing)
    try:
        await manager.start_raft()
        await manager.serve()
    except BaseException:
        await manager.close()
        raise
    return manager


def load_tls(folder: HostFolder) -> ManagerTLS:
    """Raises ShoalError."""
    try:
        return ManagerTLS(folder.folder)
    except (OSError, ssl.SSLError) as error:
        raise ShoalError(f"the certificate in {folder.folder} cannot be used: {error}") from error


def known_addresses(identity: Identity) -> list[str]:
    """Where other managers were last known."""
    return [one.addr for one in identity.managers if one.addr != identity.manager_addr]


def die(reason: str) -> NoReturn:
    """Stop at once and acknowledge nothing more: an error of the disk under Raft, or what cannot be."""
    log.critical("event=raft-stopped")
    logging.shutdown()
    sys.stderr.write(f"{reason}\n")
    sys.stderr.flush()
    os._exit(70)
