"""THE loop of the control plane: watch → decide → propose.

Deciders are pure: they keep what they need of the state, are told of events and
return changes. This module alone waits, reads the clock and proposes for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, Refusal
from shoal.manager.store.memory import Resync, Watch
from shoal.manager.store.state import State

log = logging.getLogger(__name__)

BATCH = 200
"""Changes in one proposal of a loop; more stay dirty for the next turn."""


class Decision(msgspec.Struct, frozen=True):
    """Changes to propose, each with the id of the object to look at again where it is refused."""

    changes: tuple[AnyChange, ...] = ()
    reasons: tuple[str, ...] = ()  # one line each, logged once the changes are applied

    def __bool__(self) -> bool:
        return bool(self.changes)


class Decider(Protocol):
    """Part of the control plane: a pure machine over the store's state.

    `now` is in seconds of a monotonic clock that starts anew with each leader.
    """

    name: str

    def load(self, state: State, now: float) -> None:
        """Start, or start over, from a view: everything is dirty."""

    def observe(self, events: Sequence[Event], state: State, now: float) -> None:
        """Mark what these events make worth a look. `state` is the view after them."""

    def decide(self, state: State, now: float, limit: int) -> Decision:
        """At most about `limit` changes, within 20 ms; the rest stays dirty.

        Repeated on the state that its changes lead to, it returns nothing.
        """

    def refused(self, refusals: Sequence[tuple[AnyChange, Refusal]]) -> None:
        """These changes were not applied: mark their objects dirty."""

    def deadline(self, now: float) -> float | None:
        """When `decide` would return something although no event came; None: never. Past means now."""


class Store(Protocol):
    """What a loop needs of the replicated store."""

    def view(self) -> State: ...

    def watch(self) -> Watch: ...

    async def propose(self, changes: Sequence[AnyChange]) -> list[tuple[AnyChange, Refusal]]:
        """Commit changes in the leader's term; returns, once they are applied here, those that were refused.

        Splits what is over the size of one command. Raises NoLeader where leadership is lost.
        """


async def drive(store: Store, decider: Decider, clock: Callable[[], float]) -> None:
    """Turn events into proposals until cancelled."""
    with store.watch() as watch:  # subscribe before reading
        decider.load(store.view(), clock())
        while True:
            view, now = store.view(), clock()
            _observe(decider, watch.drain(), view, now)
            decision = decider.decide(view, now, BATCH)
            if decision:
                refused = await store.propose(decision.changes)
                if refused:
                    decider.refused(refused)
                for reason in decision.reasons:
                    log.info("decided loop=%s %s", decider.name, reason)
                continue  # its own commit is read before it decides again
            deadline = decider.deadline(now)
            timeout_s = None if deadline is None else max(0.0, deadline - now)
            events = await watch.batch(timeout_s)
            _observe(decider, events, store.view(), clock())


def _observe(decider: Decider, events: list[Event | Resync], view: State, now: float) -> None:
    if any(isinstance(event, Resync) for event in events):
        decider.load(view, now)
    elif events:
        decider.observe([event for event in events if isinstance(event, Event)], view, now)
