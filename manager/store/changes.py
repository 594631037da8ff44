"""Commands: the only way in which cluster state changes. Data only, no logic.

A command is minted by its proposer (ids, times) and applied alike on every
manager. Each change names the revision it read, in the record's own `meta`.
"""

from __future__ import annotations

import msgspec

from shoal.api.objects import (
    Cluster,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
    Service,
    StoredObject,
    Task,
    TaskStatus,
)

SCHEMA = 1
"""Newest schema of commands and snapshots that this code writes and understands."""

MAX_COMMAND_BYTES = (1 << 20) - (64 << 10)
"""A larger command of a client is refused before it is proposed (see ADR on Raft).

The rest of what Raft carries is left to the loops, which add to records (addresses, statuses) and propose them whole.
"""


class Change(msgspec.Struct, frozen=True, kw_only=True, tag_field="t"):
    """Base of what a command is made of."""


class Create(Change, frozen=True, kw_only=True, tag="create"):
    """Refused where the id exists, or another object of its kind has the name."""

    record: Cluster | Node | Service | Task | Network


class Update(Change, frozen=True, kw_only=True, tag="update"):
    """Replace a record by one that was made from what was read.

    Refused unless `record.meta.revision` is still the stored one. What agents
    observe is kept as stored: a node's status and description always, a task's
    status where the stored state is higher. `wanted` marks a change of intent:
    it moves `meta.version`, the version that clients see and send back.
    """

    record: Cluster | Node | Service | Task | Network
    wanted: bool = False


class Delete(Change, frozen=True, kw_only=True, tag="delete"):
    """Refused where `revision` is given and is no longer the stored one. Deleting what is gone is no error."""

    table: str
    id: str
    revision: int | None = None


class SetTaskStatus(Change, frozen=True, kw_only=True, tag="task-status"):
    """What an agent saw. A lower state than the stored one is refused; it defeats no decision."""

    id: str
    status: TaskStatus


class SetNodeStatus(Change, frozen=True, kw_only=True, tag="node-status"):
    """What the dispatcher saw of a node."""

    id: str
    status: NodeStatus
    description: NodeDescription | None = None  # None: as it was


class TakeOffice(Change, frozen=True, kw_only=True, tag="take-office"):
    """A new leader's first change: from here on commands of earlier terms are refused."""

    term: int


AnyChange = Create | Update | Delete | SetTaskStatus | SetNodeStatus | TakeOffice


class Command(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one Raft entry carries.

    `request_id`: a second command with the same id is not applied, it gets the
    first one's outcome. `term`: of the leader whose loop proposed it; 0 for a
    client's. `atomic`: all changes or none.
    """

    request_id: str
    changes: tuple[AnyChange, ...]
    at: float  # seconds since the epoch, the proposer's
    term: int = 0
    atomic: bool = False
    schema: int = SCHEMA


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why one change was not applied. `kind` is one of the words below."""

    position: int  # in Command.changes
    table: str
    id: str
    kind: str
    reason: str


EXISTS = "exists"
NAME_TAKEN = "name-taken"
STALE = "stale"
MISSING = "missing"
BACKWARDS = "backwards"
DEPOSED = "deposed"
SCHEMA_TOO_NEW = "schema"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a command: the Raft index it has, and what of it was refused."""

    index: int
    refusals: tuple[Refusal, ...] = ()


encode_command = msgspec.msgpack.Encoder().encode
decode_command = msgspec.msgpack.Decoder(Command).decode


def subject(change: AnyChange) -> tuple[str, str]:
    """The (table, id) that a change is about; ("", "") where it is about none."""
    match change:
        case Create(record=record) | Update(record=record):
            return table_name(record), record.id
        case Delete(table=table, id=object_id):
            return table, object_id
        case SetTaskStatus(id=object_id):
            return "task", object_id
        case SetNodeStatus(id=object_id):
            return "node", object_id
        case _:
            return "", ""


def table_name(record: StoredObject) -> str:
    """The table that holds records of this type."""
    return type(record).__name__.lower()
