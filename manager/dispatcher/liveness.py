"""Which nodes are there: a lease for each, renewed by whatever its agent sends. Pure.

A connection that closes says nothing: the host may be back before its lease runs
out. A new leader knows nobody's last sign of life and gives every node that was
there a fresh lease from its own start.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections.abc import Iterable

GRACE_S = 2.0
"""A new leader gives hosts this much longer: so long do they take to notice and find it."""

ALIVE_S = 1.2
"""A session that was heard within this is alive: agents ping about three times a second."""


class Leases:
    """Times are seconds of one monotonic clock.

    Invariant: each node with a lease has one entry in the heap that counts (`_queued`), at or before its lease's end.
    """

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self._until: dict[str, float] = {}
        self._queued: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def load(self, node_ids: Iterable[str], now: float) -> None:
        """Start with these nodes, each with a fresh lease and some grace."""
        for node_id in node_ids:
            self._set(node_id, now + self.lease_s + GRACE_S)

    def open(self, node_id: str, now: float) -> None:
        """A session begins; what grace there was is over."""
        self._set(node_id, now + self.lease_s)

    def renew(self, node_id: str, now: float) -> None:
        """A sign of life. Of a node without a lease it means nothing: a session has to begin first."""
        until = self._until.get(node_id)
        if until is not None:
            self._until[node_id] = max(until, now + self.lease_s)

    def forget(self, node_id: str) -> None:
        """The node was removed."""
        self._until.pop(node_id, None)

    def set_lease(self, lease_s: float, now: float) -> None:
        """Another length from now on; nobody loses by it what he had."""
        self.lease_s = lease_s
        for node_id in list(self._until):
            self.renew(node_id, now)

    def stalled(self, late_s: float) -> None:
        """This process was late itself, and may not have read what was sent in time."""
        for node_id in self._until:
            self._until[node_id] += late_s

    def expired(self, now: float) -> list[str]:
        """The nodes whose lease has run out, each told once."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            at, node_id = heapq.heappop(self._heap)
            if self._queued.get(node_id) != at:
                continue
            del self._queued[node_id]
            until = self._until.get(node_id)
            if until is None:
                continue
            if until > now:
                self._set(node_id, until)
            else:
                del self._until[node_id]
                found.append(node_id)
        return found

    def deadline(self) -> float | None:
        """When to ask for `expired` again; it may then be nobody."""
        return self._heap[0][0] if self._heap else None

    def _set(self, node_id: str, until: float) -> None:
        self._until[node_id] = until
        if until < self._queued.get(node_id, math.inf):
            self._queued[node_id] = until
            heapq.heappush(self._heap, (until, node_id))


class Verdict(enum.Enum):
    """What becomes of a session that begins."""

    WELCOME = "welcome"
    REPLACES = "replaces"  # the older one of the node is dead, or the same agent's
    REFUSED = "refused"  # another host with the same identity is there


def admit(current: str | None, heard: float, presented: str, now: float) -> Verdict:
    """Whether a new session of a node may begin.

    `current` is the id of its open session, last heard at `heard`; `presented` the id of
    the session that the newcomer had last. Only the agent itself knows that id: a cloned
    disk does not hold it.
    """
    if current is None:
        return Verdict.WELCOME
    if presented == current or now - heard > ALIVE_S:
        return Verdict.REPLACES
    return Verdict.REFUSED
