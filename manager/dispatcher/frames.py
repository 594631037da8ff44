"""Assignments as frames, none of them too large. Pure.

A complete message names every task of its node: an agent removes the containers of
those that it does not name. Endpoints and services that do not fit follow as
increments, at once.
"""

from __future__ import annotations

import msgspec

from shoal.api.errors import ShoalError
from shoal.api.messages import MAX_FRAME_BYTES, Assignments, encode

_PLENTIFUL = ("endpoints", "services", "removed_endpoints", "removed_services", "tasks", "removed_tasks")
"""What is put off to a later frame, in this order; the tasks of a complete message are not."""


class TooLarge(ShoalError):
    """One record alone is more than a frame may have."""


def frames(message: Assignments, sequence: int, limit: int = MAX_FRAME_BYTES) -> list[bytes]:
    """The message in frames of at most `limit` bytes, numbered from `sequence`. Raises TooLarge."""
    found: list[bytes] = []
    waiting = [message]
    while waiting:
        part = msgspec.structs.replace(waiting.pop(), sequence=sequence + len(found))
        encoded = encode(part)
        if len(encoded) <= limit:
            found.append(encoded)
        else:
            waiting += reversed(_halves(part))
    return found


def _halves(message: Assignments) -> tuple[Assignments, Assignments]:
    for field in _PLENTIFUL:
        records = getattr(message, field)
        if not records or (field == "tasks" and message.complete) or _alone(message, field):
            continue
        kept = len(records) // 2
        rest = Assignments(sequence=0, **{field: records[kept:]})
        return msgspec.structs.replace(message, **{field: records[:kept]}), rest
    raise TooLarge(f"the assignments of one node are too large for a frame: {len(message.tasks)} tasks")


def _alone(message: Assignments, field: str) -> bool:
    """Whether the message holds one record of this field and nothing else."""
    records = getattr(message, field)
    return len(records) == 1 and message == Assignments(sequence=message.sequence, **{field: records})
