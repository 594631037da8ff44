"""The replicated store as the manager's parts use it: read here, write through Raft.

`ReplicatedStore` is for clients' commands; `OfficeStore` for the loops of one term of
office: its commands carry the term, so that they are refused once another leader is in.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence

from shoal.api.errors import NoLeader, ShoalError, Unavailable
from shoal.manager.store.changes import (
    DEPOSED,
    AnyChange,
    Command,
    Outcome,
    Refusal,
    TakeOffice,
    encode_command,
    subject,
)
from shoal.manager.store.memory import MemoryStore, Watch
from shoal.manager.store.raft import MAX_COMMAND_BYTES, NotLeader, OutcomeUnknown, RaftNode
from shoal.manager.store.state import State

log = logging.getLogger(__name__)

PATIENCE_S = 8.0
"""For so long a command whose outcome is unknown is sent again, while this manager leads."""


class ReplicatedStore:
    """What `controlapi.context.ControlStore` asks for, over one Raft node."""

    def __init__(self, node: RaftNode, memory: MemoryStore) -> None:
        self._node, self._memory = node, memory

    def view(self) -> State:
        """The newest state applied here."""
        return self._memory.view()

    def watch(self) -> Watch:
        """What changes from now on."""
        return self._memory.watch()

    async def read_barrier(self) -> None:
        """Return once `view` shows every command that was acknowledged before the call.

        Raises NoLeader, also where no majority confirms that this manager still leads.
        """
        try:
            await self._node.read_barrier()
        except OutcomeUnknown as error:
            raise NoLeader(error.message) from error

    async def submit(self, command: Command) -> Outcome:
        """Commit one command and return what became of it.

        Raises NoLeader (nothing happened), Overloaded, and OutcomeUnknown, an Unavailable: whoever
        has the request sends it again, to the leader of then, with the same request id.
        """
        encoded = encode_command(command)
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        lost = False
        while True:
            try:
                return _outcome(await self._node.propose(encoded))
            except OutcomeUnknown:
                lost = True
                if asyncio.get_running_loop().time() > deadline or not self._node.is_leader:
                    raise
            except NotLeader as error:
                if lost:  # the first try may have happened
                    raise OutcomeUnknown("the leader lost its office; repeat with the same request id") from error
                raise

    def in_office(self, term: int) -> OfficeStore:
        """The store for the loops of this term."""
        return OfficeStore(self, self._node, term)


class OfficeStore:
    """What `controlloop.Store` asks for, in one term of office."""

    def __init__(self, store: ReplicatedStore, node: RaftNode, term: int) -> None:
        self._store, self._node, self.term = store, node, term
        self.view, self.watch = store.view, store.watch
        self.read_barrier, self.submit = store.read_barrier, store.submit

    async def take(self) -> None:
        """Make commands of earlier terms void. Raises NoLeader."""
        await self.propose([TakeOffice(term=self.term)])

    async def propose(self, changes: Sequence[AnyChange]) -> list[tuple[AnyChange, Refusal]]:
        """Commit changes in this term; those that were refused. Raises NoLeader where the term is over.

        What is over the size of one command is split. A single change that is too large is left
        out and reported in the log: to refuse it would have its loop try for ever.
        """
        command = Command(request_id=secrets.token_hex(16), changes=tuple(changes), at=time.time(), term=self.term)
        encoded = encode_command(command)
        if len(encoded) <= MAX_COMMAND_BYTES:
            return await self._commit(command)
        if len(changes) == 1:
            table, object_id = subject(changes[0])
            log.error("event=change-too-large table=%s id=%s bytes=%d", table, object_id, len(encoded))
            return []
        half = len(changes) // 2
        return [*await self.propose(changes[:half]), *await self.propose(changes[half:])]

    async def _commit(self, command: Command) -> list[tuple[AnyChange, Refusal]]:
        self._must_hold()
        try:
            outcome = await self._store.submit(command)
        except OutcomeUnknown as error:
            self._must_hold()
            raise Unavailable(f"the swarm's managers did not take a change in time: {error.message}") from error
        if any(refusal.kind == DEPOSED for refusal in outcome.refusals):
            raise NoLeader(f"the term {self.term} is over")
        return [(command.changes[refusal.position], refusal) for refusal in outcome.refusals]

    def _must_hold(self) -> None:
        if not self._node.is_leader or self._node.term != self.term:
            raise NoLeader(f"the term {self.term} is over")


def _outcome(result: object) -> Outcome:
    if not isinstance(result, Outcome):
        raise ShoalError(f"the store failed to apply a command: {result}")  # alike on every manager
    return result
