"""A store that applies at once, and a swarm of one manager in it: what tests of the control API run on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from shoal.api.objects import Cluster, ManagerInfo, Node, NodeDescription, NodeStatus
from shoal.api.specs import NodeSpec, Resources
from shoal.api.states import NodeState, Role
from shoal.manager.ca.issue import new_root
from shoal.manager.ca.tokens import new_tokens
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.requests import MAX_BODY_BYTES
from shoal.manager.store.changes import AnyChange, Command, Create, Outcome, encode_command
from shoal.manager.store.memory import MemoryStore, Watch
from shoal.manager.store.state import State

MANAGER, WORKER = "m" * 25, "w" * 25
CLUSTER = "c" * 25
_ROOT = new_root(time.time())


class ImmediateStore:
    """`before` runs ahead of the next commits: what a control loop does at the wrong moment."""

    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.index = 10
        self.commands = 0
        self.before: list[Sequence[AnyChange]] = []
        self._behind: State | None = None

    def view(self) -> State:
        return self._behind or self.memory.view()

    def lag(self, view: State) -> None:
        """Show an old view until the next read barrier."""
        self._behind = view

    def watch(self) -> Watch:
        return self.memory.watch()

    async def read_barrier(self) -> None:
        self._behind = None

    async def submit(self, command: Command) -> Outcome:
        if self.before:
            self.apply(*self.before.pop(0))
        self.commands += 1
        return self._apply(command)

    def apply(self, *changes: AnyChange) -> Outcome:
        """What the loops would propose."""
        outcome = self._apply(Command(request_id=f"loop{self.index}", changes=changes, at=2000.0))
        assert not outcome.refusals, outcome
        return outcome

    def _apply(self, command: Command) -> Outcome:
        self.index += 1
        return self.memory.apply(self.index, encode_command(command))


class FixedMembership:
    def __init__(self) -> None:
        self.members = [MANAGER]
        self.unreachable: set[str] = set()

    def leader_node_id(self) -> str:
        return MANAGER

    def manager_node_ids(self) -> Sequence[str]:
        return self.members

    def reachable(self, node_id: str) -> bool:
        return node_id not in self.unreachable


def node(node_id: str, role: Role = Role.WORKER, **fields: Any) -> Node:
    return Node(
        id=node_id,
        spec=NodeSpec(role=role),
        role=role,
        description=NodeDescription(hostname=f"host-{node_id[0]}", resources=Resources(nano_cpus=2, memory_bytes=3)),
        status=NodeStatus(state=NodeState.READY, addr="192.0.2.1"),
        manager=ManagerInfo(raft_id="r" + node_id, addr="192.0.2.1:2377") if role is Role.MANAGER else None,
        **fields,
    )


class Swarm:
    """Context, store and membership of a swarm with one manager and one worker."""

    def __init__(self) -> None:
        self.store, self.membership = ImmediateStore(), FixedMembership()
        self.store.apply(
            Create(record=Cluster(id=CLUSTER, root_ca=_ROOT, join_tokens=new_tokens())),
            Create(record=node(MANAGER, Role.MANAGER)),
            Create(record=node(WORKER)),
        )
        self.session: aiohttp.ClientSession | None = None
        self.context = ControlContext(
            node_id=MANAGER, store=self.store, membership=self.membership, host_session=self._session
        )

    def _session(self) -> aiohttp.ClientSession:
        assert self.session is not None
        return self.session


@asynccontextmanager
async def client_of(routes: list[web.RouteDef], *middlewares: Any) -> Any:
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    app.add_routes(routes)
    async with TestClient(TestServer(app)) as client:
        yield client
