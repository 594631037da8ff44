"""The managers of a simulated cluster: three real stores behind one log, and the real loops in the leader's office.

Played are Raft (a log that commits after a while, a leader that dies) and the
wire. Real are commands, `apply`, snapshots, `controlloop.drive` and every decider.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence

from shoal.api.errors import NoLeader, Unavailable
from shoal.manager.controlloop import drive
from shoal.manager.deciders import deciders
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import DEPOSED, AnyChange, Command, Outcome, Refusal, TakeOffice, encode_command
from shoal.manager.store.memory import MemoryStore, Watch, records_of
from shoal.manager.store.state import State
from tests.property.simulation.hosts import EPOCH_S
from tests.property.simulation.invariants import Broken, Invariants

MANAGERS = 3


class OutcomeUnknown(Unavailable):
    """The leader went away: the command may be committed, or not."""


class Log:
    """What Raft is to the managers: one order of commands, applied alike by all of them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.entries: list[bytes] = []
        self.replicas = [MemoryStore() for _ in range(MANAGERS)]
        self._applied = [0] * MANAGERS
        self.leader = 0  # whose watchers hear of a commit at once
        self.invariants = Invariants()
        self.checks: list[Callable[[State], None]] = []

    def catch_up(self, replica: int) -> None:
        while self._applied[replica] < len(self.entries):
            index = self._applied[replica] + 1
            self.replicas[replica].apply(index, self.entries[index - 1])
            self._applied[replica] = index

    def append(self, command: bytes) -> Outcome:
        """Commit; every invariant is checked. Who does not lead follows when it needs to."""
        self.catch_up(self.leader)
        store = self.replicas[self.leader]
        with store.watch() as watch:
            self.entries.append(command)
            outcome = store.apply(len(self.entries), command)
            self._applied[self.leader] = len(self.entries)
            events = [event for event in watch.drain() if isinstance(event, Event)]
        self.invariants.check(store.view(), events)
        for check in self.checks:
            check(store.view())
        return outcome

    def lose_disk(self, replica: int) -> None:
        """A manager comes back with nothing, and takes a snapshot from another."""
        other = self._chance.choice([each for each in range(MANAGERS) if each != replica])
        fresh = MemoryStore()
        fresh.restore(list(self.replicas[other].snapshot()))
        self.replicas[replica] = fresh
        self._applied[replica] = self._applied[other]

    def agree(self) -> None:
        """All managers hold the same."""
        for replica in range(MANAGERS):
            self.catch_up(replica)
        first, *others = [records_of(store.view()) for store in self.replicas]
        if any(other != first for other in others):
            raise Broken("managers that applied the same log differ")


class Office:
    """One term of one leader: what its loops know as the store."""

    def __init__(self, log: Log, replica: int, term: int, chance: random.Random) -> None:
        self._log, self._chance = log, chance
        self.replica, self.term = replica, term
        self.open = True
        self._requests = itertools.count(1)

    def view(self) -> State:
        return self._log.replicas[self.replica].view()

    def watch(self) -> Watch:
        return self._log.replicas[self.replica].watch()

    async def propose(self, changes: Sequence[AnyChange]) -> list[tuple[AnyChange, Refusal]]:
        """As a loop of the leader does: in its term, and not at all when that is over."""
        outcome = await self.commit(changes, f"loop-{self.term}-{next(self._requests)}", self.term)
        if any(refusal.kind == DEPOSED for refusal in outcome.refusals):
            raise NoLeader("another leader is in office")
        return [(changes[refusal.position], refusal) for refusal in outcome.refusals]

    async def commit(self, changes: Sequence[AnyChange], request_id: str, term: int = 0) -> Outcome:
        """Commit, after a while; a leader that goes away meanwhile leaves it open whether it was."""
        if not self.open:
            raise NoLeader("no leader")
        loop = asyncio.get_running_loop()
        command = encode_command(
            Command(request_id=request_id, changes=tuple(changes), at=EPOCH_S + loop.time(), term=term)
        )
        await asyncio.sleep(self._chance.uniform(0.0005, 0.004))
        if self.open:
            return self._log.append(command)
        if self._chance.random() < 0.5:  # committed after all, but nobody is told; perhaps in another's term
            loop.call_later(self._chance.uniform(0.0, 2.0), self._log.append, command)
        raise OutcomeUnknown("the leader went away")


class Managers:
    """Elects, crashes and replaces leaders. `office` is None while there is none."""

    def __init__(self, chance: random.Random, serve: Callable[[Office], object]) -> None:
        self._chance = chance
        self._serve = serve  # starts the dispatcher of an office; returns its coroutine
        self.log = Log(chance)
        self.office: Office | None = None
        self.term = 0
        self._mint = (f"task{number:06d}" for number in itertools.count(1))
        self._running: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None

    async def elect(self) -> None:
        """Another manager takes office."""
        replica = self._chance.randrange(MANAGERS)
        self.log.catch_up(replica)
        self.log.leader = replica
        self.term += 1
        office = Office(self.log, replica, self.term, self._chance)
        await office.commit([TakeOffice(term=self.term)], f"office-{self.term}")
        self.office = office
        self._running = asyncio.create_task(self._govern(office))

    async def _govern(self, office: Office) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                for decider in deciders(lambda: next(self._mint)):
                    group.create_task(drive(office, decider, loop.time))
                group.create_task(self._serve(office))  # type: ignore[arg-type]
        except* (NoLeader, OutcomeUnknown):
            pass
        except* Exception as broken:
            self.failure = broken

    async def crash_leader(self) -> None:
        """The leader dies with whatever it had in hand; after an election another one begins."""
        office, self.office = self.office, None
        if office is None:
            return
        office.open = False
        await asyncio.sleep(self._chance.uniform(0.01, 0.05))
        await self.stop()
        if self._chance.random() < 0.5:
            self.log.lose_disk(office.replica)
        await asyncio.sleep(self._chance.uniform(0.6, 1.5))
        await self.elect()

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
