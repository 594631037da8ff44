"""A dispatcher behind real TLS on loopback, over a store that commits at once, and agents' sessions with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from shoal.api.errors import NoLeader
from shoal.api.ids import new_swarm_id
from shoal.api.jointoken import JoinToken
from shoal.api.messages import Assignments, Hello, NetworkInfo, SessionInfo, ToAgent
from shoal.api.objects import ManagerInfo, Node, NodeDescription, Task
from shoal.api.specs import SECOND_NS
from shoal.api.states import NodeState, Role
from shoal.manager.ca.issue import issue, new_key, new_request
from shoal.manager.ca.server import ca_routes
from shoal.manager.ca.tls import HostTLS
from shoal.manager.controlapi.errors import api_errors
from shoal.manager.controlloop import drive
from shoal.manager.deciders import deciders
from shoal.manager.dispatcher.server import Dispatcher
from shoal.manager.store.changes import AnyChange, Command, Create, Refusal, Update
from shoal.manager.store.memory import Watch
from shoal.manager.store.state import State
from shoal.worker.session import Dialer, Session
from tests.unit.manager.controlapi_store import CLUSTER, MANAGER, ImmediateStore, Swarm, node
from tests.unit.manager.dispatcher.records import Memory

DEADLINE_S = 10.0
_T = TypeVar("_T")


async def until(condition: Callable[[], _T]) -> _T:
    """Wait for a condition, by a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not (found := condition()):
            await asyncio.sleep(0.003)
    return found


class TermStore:
    """What `controlloop.Store` asks for; `deposed` makes it a leader's that has lost its office."""

    def __init__(self, store: ImmediateStore) -> None:
        self.store = store
        self.deposed = False
        self.gate = asyncio.Event()  # commits wait for it
        self.gate.set()
        self.proposals: list[int] = []
        self.shown: State | None = None  # instead of the store's

    def view(self) -> State:
        return self.shown or self.store.view()

    def watch(self) -> Watch:
        return self.store.watch()

    async def propose(self, changes: Sequence[AnyChange]) -> list[tuple[AnyChange, Refusal]]:
        await self.gate.wait()
        if self.deposed:
            raise NoLeader("the term is over")
        self.proposals.append(len(changes))
        outcome = await self.store.submit(Command(
            request_id=f"p{self.store.index}", changes=tuple(changes), at=time.time()))
        return [(changes[refusal.position], refusal) for refusal in outcome.refusals]


class Site:
    """One manager's port 2377."""

    def __init__(self, folder: Path, lease_s: float = 3.0) -> None:
        self.swarm = Swarm()
        self.store = self.swarm.store
        self.term = TermStore(self.store)
        self.folder = folder
        self.leader_addr = ""
        self.dispatcher = Dispatcher(node_id=MANAGER, leader_addr=lambda: self.leader_addr)
        self.tls = self.certificate(MANAGER, Role.MANAGER)
        self.set_lease(lease_s)
        self._running: list[asyncio.Task[None]] = []

    @property
    def view(self) -> State:
        return self.store.view()

    def set_lease(self, lease_s: float) -> None:
        cluster = self.view.cluster
        assert cluster is not None
        spec = msgspec.structs.replace(cluster.spec, heartbeat_period_ns=int(lease_s * SECOND_NS))
        self.store.apply(Update(record=msgspec.structs.replace(cluster, spec=spec), wanted=True))

    def certificate(self, node_id: str, role: Role = Role.WORKER, cluster_id: str = CLUSTER) -> HostTLS:
        cluster = self.view.cluster
        assert cluster is not None
        key, folder = new_key(), self.folder / node_id
        folder.mkdir(parents=True, exist_ok=True)
        text = issue(cluster.root_ca, new_request(key), node_id=node_id, role=role, cluster_id=cluster_id,
                     lifetime_ns=86400 * SECOND_NS, now=time.time())
        for name, content in (("node.key", key), ("node.crt", text), ("ca.crt", cluster.root_ca.cert_pem)):
            (folder / name).write_text(content)
        return HostTLS(folder)

    def token(self, role: Role = Role.WORKER) -> str:
        cluster = self.view.cluster
        assert cluster is not None
        secret = cluster.join_tokens.worker if role is Role.WORKER else cluster.join_tokens.manager
        return str(JoinToken(cluster.root_ca.digest, secret))

    async def start(self) -> None:
        app = web.Application(middlewares=[api_errors])
        app.add_routes([*ca_routes(self.swarm.context), *self.dispatcher.routes()])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls.server).start()
        self.addr = f"127.0.0.1:{self._runner.addresses[0][1]}"
        manager = self.view.nodes[MANAGER]
        self.store.apply(Update(record=msgspec.structs.replace(
            manager, manager=ManagerInfo(raft_id="r", addr=self.addr))))

    async def stop(self) -> None:
        await self.resign()
        await self._runner.cleanup()

    async def lead(self, *, deciding: bool = False) -> None:
        """Take office; `deciding`: with all loops of a leader."""
        loops = [self.dispatcher.run(self.term)]
        if deciding:
            loops += [drive(self.term, each, time.monotonic) for each in deciders(new_swarm_id)]
        self._running = [asyncio.get_running_loop().create_task(each) for each in loops]
        await asyncio.sleep(0)

    async def resign(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._running = []

    @property
    def dispatching(self) -> asyncio.Task[None]:
        return self._running[0]

    # --- nodes and their agents ---

    def add_node(self, node_id: str, role: Role = Role.WORKER) -> Node:
        fresh = msgspec.structs.replace(node(node_id, role), manager=None)
        unknown = msgspec.structs.replace(fresh.status, state=NodeState.UNKNOWN, addr="")
        self.store.apply(Create(record=msgspec.structs.replace(fresh, status=unknown)))
        return self.view.nodes[node_id]

    def state(self, node_id: str) -> NodeState:
        return self.view.nodes[node_id].status.state

    @asynccontextmanager
    async def agent(self, node_id: str, *, session_id: str = "", addr: str = "192.0.2.9",
                    tls: HostTLS | None = None) -> AsyncIterator[Peer]:
        """A session of this node, as its agent begins one."""
        dialer = Dialer((tls or self.certificate(node_id)).client)
        try:
            session = await dialer.dial([self.addr], Hello(
                description=NodeDescription(hostname=f"h-{node_id}"), session_id=session_id, addr=addr))
            peer = Peer(session)
            try:
                yield peer
            finally:
                await session.close()
        finally:
            await dialer.close()


class Peer:
    """An agent that does by hand what `worker.agent` does by itself."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.info: SessionInfo = session.info
        self.memory = Memory()
        self.received: list[Any] = []
        self.sequence = 0

    async def next(self, kind: type[_T] | None = None) -> Any:
        """The next message; with `kind`, the next of that kind. Raises SessionLost."""
        while True:
            async with asyncio.timeout(DEADLINE_S):
                message: ToAgent = await self.session.receive()
            self.received.append(message)
            if isinstance(message, Assignments):
                assert message.complete or message.sequence == self.sequence + 1
                self.sequence = message.sequence
                self.memory.take(message)
            if kind is None or isinstance(message, kind):
                return message

    async def task(self, task_id: str, wanted: Callable[[Task], bool] = lambda task: True) -> Task:
        """Listen until this task is known and as wanted."""
        while task_id not in self.memory.tasks or not wanted(self.memory.tasks[task_id]):
            await self.next(Assignments)
        return self.memory.tasks[task_id]

    async def network(self, network_id: str) -> NetworkInfo:
        while network_id not in self.memory.networks:
            await self.next(Assignments)
        found: NetworkInfo = self.memory.networks[network_id]
        return found
