"""Random faults against a group of members, from a seed; then all heals and the group must agree.

    python -m tests.property.raft [--from 0] [--to 5000] [--without MEND] [--jobs 2]
"""

from __future__ import annotations

import collections
import logging
from typing import Any, NamedTuple

from shoal.manager.store.raft import membership
from shoal.manager.store.raft.consensus import Consensus
from tests.property.raft.mends import Mends
from tests.property.raft.world import World

TROUBLE_S, HEALING_S = 12.0, 8.0


class Profile(NamedTuple):
    """Which faults a run has."""

    name: str
    compaction: bool = True
    crashes: bool = False
    churn: bool = False


PROFILES = (
    Profile("network", compaction=False),
    Profile("network and compaction"),
    Profile("crashes", compaction=False, crashes=True),
    Profile("all", crashes=True),
    Profile("members", crashes=True, churn=True),
)


class Result(NamedTuple):
    seed: int
    profile: str
    violations: list[tuple[str, str]]
    events: collections.Counter[str]


class Run:
    """One seed."""

    def __init__(self, seed: int, mends: Mends | None = None) -> None:
        self.profile = PROFILES[seed % len(PROFILES)]
        self.world = World(seed, members=3 if seed % 2 else 5, mends=mends)
        if not self.profile.compaction:
            self.world.timing = self.world.timing.__class__(**{
                **{field: getattr(self.world.timing, field) for field in self.world.timing.__struct_fields__},
                "compact_entries": 1_000_000})
            for node in self.world.nodes():
                node.timing = self.world.timing
        self.seed, self.chance = seed, self.world.chance
        self.heal_at: dict[frozenset[str], float] = {}
        self.start_at: dict[str, float] = {}
        self.churning = 0

    def play(self) -> Result:
        with self.world as world:
            end = world.clock.now + TROUBLE_S
            while world.clock.now < end and not world.violations:
                self._trouble()
                self._clients()
                if self.profile.churn and self.chance.random() < 0.02:
                    self._change_members()
                world.step()
                world.check_alone()
            self._heal()
            if not world.violations:
                world.run(HEALING_S)
                world.until(self._settled, HEALING_S)
                if not world.violations:
                    world.check_converged()
            return Result(self.seed, self.profile.name, world.violations, world.events)

    def _settled(self) -> bool:
        return any(n.commit_index == n.log[-1][1] == n.last_applied
                   and all(n.match_index[other] == n.commit_index for other in n.others)
                   for n in self.world.leaders()) and len({tuple(h.ledger.values) for h in self._members()}) == 1

    def _members(self) -> list[Any]:
        leader = max(self.world.leaders(), key=lambda n: n.term)
        return [self.world.hosts[m.id] for m in leader.members]

    # --- faults ---

    def _trouble(self) -> None:
        world, chance, now = self.world, self.chance, self.world.clock.now
        names = list(world.hosts)
        roll = chance.random()
        if roll < 0.010:
            self._cut(*chance.sample(names, 2), chance.choice([0.05, 0.3, 1.0, 3.0]))
        elif roll < 0.015:
            alone, seconds = chance.choice(names), chance.choice([0.5, 2.0, 4.0])
            for other in names:
                if other != alone:
                    self._cut(alone, other, seconds)
        elif roll < 0.021:
            world.stall(*chance.sample(names, 2), chance.choice([0.2, 0.6, 1.5, 2.5]))
        elif roll < 0.023:
            world.overtake(*chance.sample(names, 2), chance.choice([0.02, 0.1, 0.5, 3.0]))
        elif roll < 0.028 and self.profile.crashes:
            alive = [name for name in names if world.hosts[name].node is not None]
            if alive:
                self._power_cut(chance.choice(alive))
        elif roll < 0.0285 and self.profile.crashes:
            for name in [name for name in names if world.hosts[name].node is not None]:
                self._power_cut(name)
        elif roll < 0.0295:
            self._transfer()
        for pair in [pair for pair, at in self.heal_at.items() if at <= now]:
            del self.heal_at[pair]
            world.heal(*pair)
        for name in [name for name, at in self.start_at.items() if at <= now]:
            del self.start_at[name]
            self._start(name)

    def _cut(self, a: str, b: str, seconds: float) -> None:
        self.world.cut(a, b)
        self.heal_at[frozenset((a, b))] = self.world.clock.now + seconds

    def _power_cut(self, name: str) -> None:
        self.world.events["power cut"] += 1
        if self.chance.random() < 0.5:
            self.world.power_cut(name)
        else:
            self.world.hosts[name].disk.doomed = True
        self.start_at[name] = self.world.clock.now + self.chance.choice([0.05, 0.5, 2.0])

    def _transfer(self) -> None:
        for leader in self.world.leaders():
            if leader.able_successors(None):
                leader.transfer(None)

    def _heal(self) -> None:
        self.world.heal_all()
        for name in self.start_at:
            self._start(name)

    def _start(self, name: str) -> None:
        host = self.world.hosts[name]
        host.disk.doomed = False
        if host.node is None:
            self.world.start(name)

    # --- clients ---

    def _clients(self) -> None:
        leaders = self.world.leaders()
        if not leaders:
            return
        roll = self.chance.random()
        if roll < 0.4:
            self.world.write(self.chance.choice(leaders), padding=self.chance.choice([0, 50, 400]))
        elif roll < 0.5:
            self.world.read(self.chance.choice(leaders))
        elif roll < 0.502:
            self.world.write(self.chance.choice(leaders), padding=self.chance.randrange(131_000, 131_072))
        elif roll < 0.503:
            self.world.write_poison(self.chance.choice(leaders))

    def _change_members(self) -> None:
        leaders = self.world.leaders()
        if leaders:
            leader = self.chance.choice(leaders)
            if self.chance.random() < 0.5:
                self._add(leader)
            else:
                self._remove(leader)

    def _add(self, leader: Consensus) -> None:
        if len(leader.members) >= 5 or len(self.world.hosts) > 12:
            return
        member = self.world.new_member()
        self.world.add_host(member, leader.members)
        leader.change_members(lambda members: membership.with_member(members, member), self._changed)

    def _remove(self, leader: Consensus) -> None:
        others = sorted(node.id for node in leader.others)
        if len(others) >= 2:
            gone = self.chance.choice(others)
            leader.change_members(lambda members: membership.without_member(members, gone), self._changed)

    def _changed(self, _: Any, error: Exception | None) -> None:
        self.world.events["members: " + (type(error).__name__ if error else "changed")] += 1


def play(seed: int, mends: Mends | None = None) -> Result:
    """One run."""
    logging.disable(logging.CRITICAL)
    try:
        return Run(seed, mends).play()
    finally:
        logging.disable(logging.NOTSET)
