"""What the handlers of the control API need of the manager process that serves them.

Handlers run on the leader only: the process forwards requests to it. They read
`store.view()`, decide, and submit one atomic command; nothing else changes state.
Whoever wires the process provides these protocols; nothing here does I/O.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from shoal.api.ids import new_swarm_id
from shoal.manager.store.changes import Command, Outcome
from shoal.manager.store.memory import Watch
from shoal.manager.store.state import State


class ControlStore(Protocol):
    """The replicated store, as a client's request uses it."""

    def view(self) -> State:
        """The newest state applied here."""

    def watch(self) -> Watch:
        """What changes from now on; see `store.memory.Watch`."""

    async def submit(self, command: Command) -> Outcome:
        """Commit one command, apply it here, and return what became of it.

        Raises NoLeader, Overloaded, or Unavailable where the outcome is unknown.
        """

    async def read_barrier(self) -> None:
        """Return once `view` shows every command that was acknowledged before the call. Raises NoLeader."""


class Membership(Protocol):
    """Raft's members, named by the nodes they run on.

    Handlers only ask. Whoever wires the process keeps Raft in step with what they store: a member
    whose node's `spec.role` is worker, or that has no node any more, is taken out of Raft (after
    leadership has moved on, where it is the leader).
    """

    def leader_node_id(self) -> str:
        """The leader's node id; "" while there is none."""

    def manager_node_ids(self) -> Sequence[str]:
        """The nodes that are members of Raft now."""

    def reachable(self, node_id: str) -> bool:
        """Whether the leader has heard of that member within the last election timeout or so."""


@dataclass(frozen=True, kw_only=True)
class ControlContext:
    """Handed to every handler.

    `now` gives seconds since the epoch, for records that people read. `host_session` is an HTTP
    client that presents this manager's certificate and checks the other's: logs are read through it
    from port `host_port` of the nodes.
    """

    node_id: str  # of this manager
    store: ControlStore
    membership: Membership
    host_session: Callable[[], aiohttp.ClientSession]
    host_port: int = 7946
    host_scheme: str = "https"
    now: Callable[[], float] = time.time
    mint_id: Callable[[], str] = new_swarm_id
    mint_request_id: Callable[[], str] = field(default=lambda: secrets.token_hex(16))
