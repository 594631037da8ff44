"""What the build cache holds, and what of it has to go. Pure.

Source: BuildKit, cache/manager.go (prune, calculateKeepBytes); moby, builder/builder-next (filters).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from types import MappingProxyType

import msgspec

STEP, FOLDER = "regular", "exec.cachemount"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is kept for later builds: a step (an image without a name), or what a RUN mount keeps."""

    id: str
    kind: str
    description: str
    parent: str = ""
    bytes: int = 0
    in_use: bool = False
    shared: bool = False  # a named image stands on it: its bytes are that image's
    created: float = 0.0  # seconds since the epoch
    last_used: float = 0.0
    uses: int = 0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What may go, and how much is to stay of it. Without any bound, everything that may go goes."""

    everything: bool = False  # also what is shared
    not_since: float | None = None  # only what nobody has used since; seconds since the epoch
    matching: Mapping[str, str] = MappingProxyType({})  # id, parent, type, description: only those
    only: Mapping[str, bool] = MappingProxyType({})  # inuse, shared, private: whether it has to be
    reserved_bytes: int = 0  # at least so much stays
    most_bytes: int = 0
    least_free_bytes: int = 0  # of the disk


def condemned(records: Sequence[Record], policy: Policy, free_bytes: int) -> list[Record]:
    """Those that go, in their order: the least recently used first, none before what was built on it."""
    total = sum(record.bytes for record in records if policy.everything or not record.shared)
    kept = kept_bytes(total, policy, free_bytes)
    by_id = {record.id: record for record in records}
    children = Counter(record.parent for record in records if record.parent)
    leaves = [(_age(record), record.id) for record in records if not children[record.id]]
    heapify(leaves)
    gone: list[Record] = []
    while leaves and (kept is None or total > kept):
        record = by_id[heappop(leaves)[1]]
        if not may_go(record, policy):
            continue
        gone.append(record)
        total -= record.bytes
        children[record.parent] -= 1
        if record.parent in by_id and not children[record.parent]:
            heappush(leaves, (_age(by_id[record.parent]), record.parent))
    return gone


def _age(record: Record) -> tuple[float, int]:
    return record.last_used, record.uses


def may_go(record: Record, policy: Policy) -> bool:
    if record.in_use or (record.shared and not policy.everything):
        return False
    if policy.not_since is not None and record.last_used > policy.not_since:
        return False
    state = {"inuse": record.in_use, "shared": record.shared, "private": not record.shared}
    if any(state[name] is not wanted for name, wanted in policy.only.items()):
        return False
    named = {"id": record.id.removeprefix("sha256:"), "parent": record.parent, "type": record.kind,
             "description": record.description}
    return all(named[name].startswith(text.removeprefix("sha256:")) if name == "id" else named[name] == text
               for name, text in policy.matching.items())


def kept_bytes(total: int, policy: Policy, free_bytes: int) -> int | None:
    """How much may stay; None: nothing that may go. Of the bounds on what is used the tighter one holds."""
    if not (policy.reserved_bytes or policy.most_bytes or policy.least_free_bytes):
        return None
    bounds = [policy.most_bytes] if policy.most_bytes else []
    if policy.least_free_bytes:
        bounds.append(total - max(0, policy.least_free_bytes - free_bytes))
    return max(min(bounds, default=0), policy.reserved_bytes)
