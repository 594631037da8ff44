"""How a request's change reaches the store: one atomic command, tried again where a loop was faster.

A request has an id. Each try of it (by whoever forwards it) makes the same
commands, in order, with ids derived from it; the store applies each once and
gives later ones the first outcome.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from aiohttp import web

from shoal.api.errors import Conflict, NotFound, ShoalError, Unavailable
from shoal.api.ids import SWARM_ID_LENGTH, base36
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.errors import name_taken, out_of_sequence
from shoal.manager.store.changes import (
    EXISTS,
    MAX_COMMAND_BYTES,
    MISSING,
    NAME_TAKEN,
    STALE,
    AnyChange,
    Command,
    Create,
    Outcome,
    Update,
    encode_command,
    subject,
)
from shoal.manager.store.state import State

REQUEST_ID = "X-Shoal-Request-Id"
MAX_TRIES = 20
"""Of one change against loops that write the same record; then the client is told to try again."""


def request_id_of(context: ControlContext, request: web.Request) -> str:
    """The request's id; a fresh one where the process in front gave none."""
    return request.headers.get(REQUEST_ID, "")[:64] or context.mint_request_id()


def id_for(request_id: str) -> str:
    """The id of the object that a request creates: the same at each of its tries."""
    number = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:16], "big")
    return base36(number, SWARM_ID_LENGTH)[-SWARM_ID_LENGTH:]


def applied_before(context: ControlContext, request_id: str) -> bool:
    """Whether an earlier try of this request did its work: then the present one only answers."""
    outcomes = context.store.view().outcomes
    for attempt in range(MAX_TRIES):
        outcome = outcomes.get(_command_id(request_id, attempt))
        if outcome is None:
            return False
        if not outcome.refusals:
            return True
    return False


async def submit(context: ControlContext, changes: Sequence[AnyChange], request_id: str) -> None:
    """Commit changes, all or none. Raises what the refusal of one means to a client."""
    outcome = await _commit(context, changes, request_id or context.mint_request_id())
    if outcome.refusals:
        raise _refusal_error(outcome, changes)


async def change(
    context: ControlContext, decide: Callable[[State], Sequence[AnyChange]], request_id: str
) -> None:
    """Commit what `decide` makes of the newest view; decide again while records change under it.

    `decide` raises what the client should be told; an empty result is no change and no error.
    A refusal is checked once against a view that is certainly the newest: a leader that has just
    taken over may not have applied yet what the client has seen already.
    """
    request_id = request_id or context.mint_request_id()
    for attempt in range(MAX_TRIES):
        try:
            changes = decide(context.store.view())
        except ShoalError:
            await context.store.read_barrier()
            changes = decide(context.store.view())
        if not changes:
            return
        outcome = await _commit(context, changes, _command_id(request_id, attempt))
        if not outcome.refusals:
            return
        if any(refusal.kind != STALE for refusal in outcome.refusals):
            raise _refusal_error(outcome, changes)
    raise Unavailable("the object is changing too fast: try again")


def _command_id(request_id: str, attempt: int) -> str:
    return f"{request_id}.{attempt}" if attempt else request_id


async def _commit(context: ControlContext, changes: Sequence[AnyChange], command_id: str) -> Outcome:
    command = Command(request_id=command_id, changes=tuple(changes), at=context.now(), atomic=True)
    size = len(encode_command(command))
    if size > MAX_COMMAND_BYTES:
        raise TooLarge(f"the request makes {size} bytes, more than the {MAX_COMMAND_BYTES} that one change may have")
    return await context.store.submit(command)


class TooLarge(ShoalError):
    """413: one command would be above what Raft carries."""

    status = 413


def _refusal_error(outcome: Outcome, changes: Sequence[AnyChange]) -> ShoalError:
    refusal = outcome.refusals[0]
    refused = changes[refusal.position] if refusal.position < len(changes) else None
    match refusal.kind:
        case _ if refusal.kind in (NAME_TAKEN, EXISTS) and isinstance(refused, Create | Update):
            table, object_id = subject(refused)
            return name_taken(table, getattr(getattr(refused.record, "spec", None), "name", object_id))
        case _ if refusal.kind == STALE:
            return out_of_sequence()
        case _ if refusal.kind == MISSING:
            return NotFound(f"{refusal.table} {refusal.id} not found")
        case _:
            return Conflict(refusal.reason)
