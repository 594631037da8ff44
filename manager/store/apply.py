"""(state, command) → (new state, events, refusals). Pure, deterministic, total.

It refuses by returning a reason and never raises: an exception here would wedge
every manager alike. No clock, no chance: times and ids come in the command.
"""

from __future__ import annotations

import msgspec

from shoal.api.objects import Meta, Node, NodeStatus, Service, StoredObject, Task
from shoal.manager.store import changes as c
from shoal.manager.store.state import Draft, State, unique_name


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One record changed: `old` None is a creation, `new` None a deletion."""

    table: str
    id: str
    old: StoredObject | None
    new: StoredObject | None


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a command did."""

    state: State
    outcome: c.Outcome
    events: tuple[Event, ...] = ()


class _RefusedError(Exception):
    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def apply(state: State, index: int, command: c.Command) -> Applied:
    """Apply one command at one Raft index.

    A change that is refused leaves the others alone, unless the command is
    atomic. A request id seen before returns its first outcome and does nothing.
    """
    remembered = state.outcomes.get(command.request_id)
    if remembered is not None:
        return Applied(state=state, outcome=remembered)
    if command.schema > c.SCHEMA:
        return _refuse_all(state, index, command, c.SCHEMA_TOO_NEW, f"schema {command.schema} is not understood")
    if command.term and command.term < state.term:
        return _refuse_all(state, index, command, c.DEPOSED, f"term {command.term} is over")
    return _apply_changes(state, index, command)


def _apply_changes(state: State, index: int, command: c.Command) -> Applied:
    draft, refusals, term = Draft(state), [], state.term
    touched: dict[tuple[str, str], None] = {}  # in order
    for position, change in enumerate(command.changes):
        table, object_id = c.subject(change)
        try:
            if isinstance(change, c.TakeOffice):
                term = max(term, change.term)
            else:
                draft.put(table, object_id, _next(draft, table, object_id, change, index, command.at))
                touched[(table, object_id)] = None
        except _RefusedError as refused:
            refusals.append(
                c.Refusal(position=position, table=table, id=object_id, kind=refused.kind, reason=str(refused))
            )
    outcome = c.Outcome(index=index, refusals=tuple(refusals))
    if command.atomic and refusals:
        return Applied(state=Draft(state).finish(index, state.term, command.request_id, outcome), outcome=outcome)
    new_state = draft.finish(index, term, command.request_id, outcome)
    events = []
    for table, object_id in touched:
        old, new = state.get(table, object_id), new_state.get(table, object_id)
        if old is not new:
            events.append(Event(table=table, id=object_id, old=old, new=new))
    return Applied(state=new_state, outcome=outcome, events=tuple(events))


def _refuse_all(state: State, index: int, command: c.Command, kind: str, reason: str) -> Applied:
    refusals = []
    for position, change in enumerate(command.changes):
        table, object_id = c.subject(change)
        refusals.append(c.Refusal(position=position, table=table, id=object_id, kind=kind, reason=reason))
    outcome = c.Outcome(index=index, refusals=tuple(refusals))
    return Applied(state=Draft(state).finish(index, state.term, command.request_id, outcome), outcome=outcome)


def _next(
    draft: Draft, table: str, object_id: str, change: c.AnyChange, index: int, at: float
) -> StoredObject | None:
    """The record after `change`; None where it is deleted. Raises _RefusedError."""
    stored = draft.get(table, object_id)
    match change:
        case c.Create(record=record):
            if stored is not None:
                raise _RefusedError(c.EXISTS, f"{table} {object_id} exists already")
            _check_name(draft, table, record)
            meta = Meta(version=index, revision=index, created_at=at, updated_at=at)
            return _stamp(_timed(record, at), meta)
        case c.Update(record=record, wanted=wanted):
            current = _current(stored, table, object_id, record.meta.revision)
            _check_name(draft, table, record)
            meta = current.meta
            version = index if wanted else meta.version
            merged = _timed(_keep_observed(record, current), at)
            return _stamp(
                merged, Meta(version=version, revision=index, created_at=meta.created_at, updated_at=at)
            )
        case c.Delete(revision=revision):
            if stored is not None and revision is not None:
                _current(stored, table, object_id, revision)
            return None
        case c.SetTaskStatus(status=status):
            if not isinstance(stored, Task):
                raise _RefusedError(c.MISSING, f"task {object_id} is gone")
            if status.state < stored.status.state:
                raise _RefusedError(c.BACKWARDS, f"task {object_id} is {stored.status.state.word} already")
            return _timed(msgspec.structs.replace(stored, status=status), at)
        case c.SetNodeStatus(status=status, description=description):
            if not isinstance(stored, Node):
                raise _RefusedError(c.MISSING, f"node {object_id} is gone")
            return _observe_node(stored, status, description)
        case _:
            raise _RefusedError(c.SCHEMA_TOO_NEW, f"unknown change {type(change).__name__}")


def _current(stored: StoredObject | None, table: str, object_id: str, revision: int) -> StoredObject:
    if stored is None:
        raise _RefusedError(c.MISSING, f"{table} {object_id} is gone")
    if stored.meta.revision != revision:
        raise _RefusedError(
            c.STALE, f"{table} {object_id} is at revision {stored.meta.revision}, the change read {revision}"
        )
    return stored


def _check_name(draft: Draft, table: str, record: StoredObject) -> None:
    name = unique_name(record)
    holder = draft.holder_of_name(table, name) if name is not None else None
    if holder is not None and holder != record.id:
        raise _RefusedError(c.NAME_TAKEN, f"{table} name {name} is in use by {holder}")


def _keep_observed(record: StoredObject, stored: StoredObject) -> StoredObject:
    """`record` with what agents observed as it is stored: a decision never undoes an observation."""
    if isinstance(record, Task) and isinstance(stored, Task):
        status = stored.status if stored.status.state >= record.status.state else record.status
        return msgspec.structs.replace(record, status=status, desired=max(record.desired, stored.desired))
    if isinstance(record, Node) and isinstance(stored, Node):
        return msgspec.structs.replace(record, status=stored.status, description=stored.description)
    return record


def _observe_node(node: Node, status: NodeStatus, description: object) -> Node:
    if description is None:
        return msgspec.structs.replace(node, status=status)
    return msgspec.structs.replace(node, status=status, description=description)


def _timed(record: StoredObject, at: float) -> StoredObject:
    """`record` with the times that its writer left open: pure deciders know no wall clock."""
    if isinstance(record, Task) and not record.status.timestamp:
        return msgspec.structs.replace(record, status=msgspec.structs.replace(record.status, timestamp=at))
    if isinstance(record, Service) and record.update_status is not None:
        status = record.update_status
        ended = status.state in ("completed", "rollback_completed")
        timed = msgspec.structs.replace(
            status,
            started_at=status.started_at or at,
            completed_at=status.completed_at or (at if ended else 0.0),
        )
        return msgspec.structs.replace(record, update_status=timed)
    return record


def _stamp(record: StoredObject, meta: Meta) -> StoredObject:
    return msgspec.structs.replace(record, meta=meta)


