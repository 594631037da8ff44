"""A group of Raft members on a virtual clock: real `Consensus`, journals, snapshots; network, time, power are played.

Links are FIFO, as TCP is: a link that breaks loses what is under way. Two members
may have two links, so what was sent on one can be overtaken. All chance comes from
the seed. `World.step` moves time on; `check_*` and the ledgers note violations in
`World.violations`.
"""

from __future__ import annotations

import collections
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pysyncobj.syncobj

from shoal.manager.store.raft import library
from shoal.manager.store.raft.consensus import Consensus, Failed
from shoal.manager.store.raft.journal import Journal
from shoal.manager.store.raft.nouns import CorruptStorage, Member, Members, RaftTiming
from shoal.manager.store.raft.snapshot import Snapshots
from tests.property.raft.disk import ForgetfulDisk, PowerCut

STEP_S = 0.01
BATCH_BYTES = 600
LATENCIES_S = (0.001, 0.001, 0.005, 0.01, 0.02, 0.08)
POISON = b"!"
TIMING = RaftTiming(election_min_s=0.4, election_max_s=1.0, heartbeat_s=0.1, compact_entries=40, trailing_entries=5)


class Clock:
    """Virtual seconds. Every look moves it a little, so that loops that wait for time to pass end."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 2e-6
        return self.now


class Stopped(BaseException):
    """A member called `fatal`."""


class Ledger:
    """The state machine: all values in the order of their commits. Tells the world what it applies."""

    def __init__(self, world: World, owner: str) -> None:
        self.values: list[int] = []
        self.have: set[int] = set()
        self._world, self._owner = world, owner

    def apply(self, index: int, command: bytes) -> int:
        self._world.applied(self._owner, index, command)
        if command.startswith(POISON):
            raise ValueError("a poisoned command")
        value = int(command.split(b" ", 1)[0])
        self.values.append(value)
        self.have.add(value)
        return value

    def snapshot(self) -> Iterator[bytes]:
        values = list(self.values)  # now, and not at the first step
        return (msgpack.packb(values[start : start + 20]) for start in range(0, len(values), 20))

    def restore(self, chunks: Iterable[bytes]) -> None:
        restoring = self.restoring()
        for chunk in chunks:
            restoring.feed(chunk)
        self.install(restoring.finish())

    def restoring(self) -> Restored:
        return Restored()

    def install(self, state: list[int]) -> None:
        self.values, self.have = state, set(state)


class Restored:
    def __init__(self) -> None:
        self._values: list[int] = []

    def feed(self, chunk: bytes) -> None:
        self._values += msgpack.unpackb(chunk)

    def finish(self) -> list[int]:
        return self._values


class Host:
    """One member with its disk; `node` is None while it is down."""

    def __init__(self, world: World, member: Member, founders: Members) -> None:
        self.world, self.member, self.founders = world, member, founders
        self.folder = world.folder / member.id
        self.folder.mkdir()
        self.disk = ForgetfulDisk()
        self.node: Consensus | None = None
        self.links: dict[str, int] = {}  # peer → the generation of the link that the node knows
        self.jobs: list[tuple[float, Callable[[], None], Callable[[Exception | None], None]]] = []
        self.book: set[str] = set()
        self.alone_since: float | None = None
        self.alone_term = 0

    def start(self) -> None:
        mends = self.world.mends
        journal = mends.journal(self.folder / "journal", self.member.id, self.founders, disk=self.disk,
                                fatal=self._fatal)
        self.ledger = Ledger(self.world, self.member.id)
        self.jobs, self.links = [], {}
        self.node = mends.consensus(
            me=self.member.id, network=self, journal=journal, snapshots=Snapshots(self.folder, disk=self.disk),
            machine=self.ledger, timing=self.world.timing, offload=self._offload, fatal=self._fatal,
        )
        self.node.batch_bytes = BATCH_BYTES

    def _fatal(self, reason: str) -> None:
        self.world.violate("STOPPED", f"{self.member.id}: {reason}")
        raise Stopped(reason)

    def power_cut(self) -> None:
        self.disk.doomed = False
        for _, work, _ in self.jobs:  # the disk's thread may have been in the middle of it
            if self.world.chance.random() < 0.5:
                work()
        self.node, self.jobs = None, []
        self.disk.power_cut(self.folder, self.world.chance)

    def _offload(self, work: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        self.jobs.append((self.world.clock.now + self.world.chance.choice([0.0, 0.02, 0.3]), work, done))

    def work(self) -> None:
        """What the disk's thread has finished by now, in order."""
        while self.jobs and self.jobs[0][0] <= self.world.clock.now:
            _, work, done = self.jobs.pop(0)
            work()
            done(None)

    # --- the network of `Consensus` ---

    def send(self, to: str, message: dict[str, Any]) -> bool:
        return self.world.send(self.member.id, to, message)

    def backlog(self, to: str) -> int:
        return 0

    def adopt(self, members: Members) -> None:
        self.book = {m.id for m in members}


class Link:
    """One direction between two members."""

    def __init__(self) -> None:
        self.queue: collections.deque[tuple[float, int, dict[str, Any]]] = collections.deque()
        self.overtaken: list[tuple[float, int, dict[str, Any]]] = []
        self.last = self.stalled_until = 0.0


class World:
    """See the module."""

    def __init__(self, seed: int, *, members: int = 3, mends: Any = None, timing: RaftTiming = TIMING) -> None:
        from tests.property.raft.mends import Mends

        self.chance = random.Random(seed)
        random.seed(seed)  # the library's election timeouts
        self.clock = Clock()
        self._real_clock = pysyncobj.syncobj.monotonicTime
        library.use_clock(self.clock)
        self.mends, self.timing = mends or Mends(), timing
        self.folder = Path(tempfile.mkdtemp(prefix="raft-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.hosts: dict[str, Host] = {}
        self.links: dict[tuple[str, str], Link] = collections.defaultdict(Link)
        self.cuts: set[frozenset[str]] = set()
        self.generations: collections.Counter[frozenset[str]] = collections.Counter()
        self.committed: dict[int, bytes] = {}
        self.acknowledged: set[int] = set()
        self.violations: list[tuple[str, str]] = []
        self.events: collections.Counter[str] = collections.Counter()
        self.started = 0
        self.proposed = 0
        founders = tuple(self.new_member() for _ in range(members))
        for member in founders:
            self.add_host(member, founders)

    def close(self) -> None:
        for host in self.hosts.values():
            if host.node is not None:
                host.node = None
                host.disk.power_cut(host.folder, self.chance)
        shutil.rmtree(self.folder, ignore_errors=True)
        library.use_clock(self._real_clock)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- members ---

    def new_member(self) -> Member:
        """With an id that was never used."""
        self.started += 1
        return Member(f"m{self.started}", f"host{self.started}:2378")

    def add_host(self, member: Member, founders: Members) -> Host:
        host = self.hosts[member.id] = Host(self, member, founders)
        host.start()
        return host

    def nodes(self) -> list[Consensus]:
        return [host.node for host in self.hosts.values() if host.node is not None]

    def leaders(self) -> list[Consensus]:
        return [node for node in self.nodes() if node.is_leading()]

    def name(self, node: Consensus) -> str:
        return str(node.selfNode.id)

    # --- faults ---

    def cut(self, a: str, b: str) -> None:
        """Break the link and keep it down."""
        self.cuts.add(frozenset((a, b)))
        self._break(a, b)

    def heal(self, a: str, b: str) -> None:
        self.cuts.discard(frozenset((a, b)))
        self.generations[frozenset((a, b))] += 1

    def isolate(self, a: str) -> None:
        for b in self.hosts:
            if a != b:
                self.cut(a, b)

    def heal_all(self) -> None:
        for pair in list(self.cuts):
            self.heal(*pair)
        for link in self.links.values():
            link.stalled_until = 0.0

    def stall(self, a: str, b: str, seconds: float) -> None:
        """Hold what goes from a to b; it arrives late, in order."""
        self.links[(a, b)].stalled_until = self.clock.now + seconds

    def overtake(self, a: str, b: str, seconds: float) -> None:
        """What is under way from a to b is on a link that another one overtakes."""
        link = self.links[(a, b)]
        link.overtaken += [(arrival + seconds, generation, message) for arrival, generation, message in link.queue]
        link.queue.clear()

    def power_cut(self, name: str) -> None:
        self.hosts[name].power_cut()
        for other in self.hosts:
            if other != name:
                self._break(name, other)

    def start(self, name: str) -> None:
        try:
            self.hosts[name].start()
        except CorruptStorage as error:
            self.violate("DOES_NOT_START", f"{name}: {error}")
        except Exception as error:  # whatever a missing mend lets through to the start is a finding
            self.violate("DOES_NOT_START", f"{name}: {error!r}")

    def _break(self, a: str, b: str) -> None:
        self.generations[frozenset((a, b))] += 1
        for direction in ((a, b), (b, a)):
            self.links.pop(direction, None)

    # --- time ---

    def generation(self, a: str, b: str) -> int | None:
        """Of the link between two; None while there is none."""
        one, other = self.hosts.get(a), self.hosts.get(b)
        if one is None or other is None or one.node is None or other.node is None:
            return None
        pair = frozenset((a, b))
        if pair in self.cuts or (a not in other.book and b not in one.book):
            return None
        return self.generations[pair]

    def step(self) -> None:
        self.clock.now += STEP_S
        for host in list(self.hosts.values()):
            if host.node is not None:
                self._guarded(host, lambda host=host: self._turn(host))
        for (source, target), link in list(self.links.items()):
            self._deliver(source, target, link)

    def run(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end and not self.violations:
            self.step()

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> bool:
        """Step until it holds; whether it did in time."""
        end = self.clock.now + seconds
        while not condition():
            if self.clock.now > end or self.violations:
                return False
            self.step()
        return True

    def _turn(self, host: Host) -> None:
        node = host.node
        assert node is not None
        for peer in self.hosts:
            if peer != host.member.id:
                generation = self.generation(host.member.id, peer)
                if host.links.get(peer) != generation:
                    if peer in host.links:
                        node.link_down(peer)
                        del host.links[peer]
                    if generation is not None:
                        node.link_up(peer)
                        host.links[peer] = generation
        host.work()
        node.tick()

    def _guarded(self, host: Host, act: Callable[[], None]) -> bool:
        """Whether it went well."""
        try:
            act()
            return True
        except Stopped:
            pass
        except PowerCut:
            self.power_cut(host.member.id)
        except Exception as error:
            self.events[f"raised {type(error).__name__}: {error}"[:80]] += 1
        return False

    def send(self, source: str, target: str, message: dict[str, Any]) -> bool:
        generation = self.generation(source, target)
        if generation is None:
            return False
        link = self.links[(source, target)]
        arrival = max(link.last, self.clock.now + self.chance.choice(LATENCIES_S), link.stalled_until)
        link.last = arrival
        link.queue.append((arrival, generation, message))
        return True

    def _deliver(self, source: str, target: str, link: Link) -> None:
        due = [each for each in link.overtaken if each[0] <= self.clock.now]
        for each in due:
            link.overtaken.remove(each)
        while link.queue and link.queue[0][0] <= self.clock.now:
            due.append(link.queue.popleft())
        for _, generation, message in due:
            host = self.hosts.get(target)
            if host is not None and host.node is not None and self.generation(source, target) == generation:
                node = host.node
                if not self._guarded(host, lambda node=node, message=message: node.deliver(source, message)):
                    self._break(source, target)  # as the transport does

    # --- clients ---

    def write(self, node: Consensus, padding: int = 0) -> int:
        """Propose a fresh value; note when it is acknowledged."""
        self.proposed += 1
        value = self.proposed

        def done(result: Any, error: Exception | None) -> None:
            self.events["write: " + (type(error).__name__ if error else "done")] += 1
            if error is None and not isinstance(result, Failed):
                self.acknowledged.add(value)

        node.propose(b"\x00%d %s" % (value, b"x" * padding), done)
        return value

    def write_poison(self, node: Consensus) -> None:
        node.propose(b"\x00" + POISON, lambda result, error: None)

    def read(self, node: Consensus) -> None:
        """A linearizable read must see all that was acknowledged before it began."""
        before = set(self.acknowledged)
        ledger = self.hosts[self.name(node)].ledger

        def done(_: Any, error: Exception | None) -> None:
            self.events["read: " + (type(error).__name__ if error else "done")] += 1
            missing = before - ledger.have
            if error is None and missing:
                self.violate("STALE_READ", f"{self.name(node)} lacks {sorted(missing)[:3]}")

        node.read(done)

    # --- what must hold ---

    def violate(self, kind: str, detail: str) -> None:
        self.violations.append((kind, f"t={self.clock.now - 1000:.2f} {detail}"))

    def applied(self, owner: str, index: int, command: bytes) -> None:
        known = self.committed.setdefault(index, command)
        if known != command:
            self.violate("DIVERGED", f"{owner} applied another command at {index}")

    def check_alone(self) -> None:
        """Without a majority: no leader for long, and no new term."""
        for name, host in self.hosts.items():
            node = host.node
            if node is None or self._reaches_majority(name, node):
                host.alone_since = None
                continue
            if host.alone_since is None:
                host.alone_since = self.clock.now
            alone = self.clock.now - host.alone_since
            if alone < 0.5 or node.state != library.CANDIDATE or node.marks_transfer():
                host.alone_term = node.term  # a newer one may be learnt from others, or made on a leader's word
            elif node.term > host.alone_term:
                self.violate("TERM_RAISED_ALONE", f"{name} is in term {node.term}")
            if node.is_leading() and alone > 2 * self.timing.election_max_s + 0.5:
                self.violate("CLINGS_TO_OFFICE", f"{name} leads {alone:.1f} s without a majority")

    def _reaches_majority(self, name: str, node: Consensus) -> bool:
        reached = 1 + sum(self.generation(name, other.id) is not None for other in node.others)
        return reached >= node.majority()

    def check_converged(self) -> None:
        """After all is healed: one leader, everything committed, everybody alike, nothing acknowledged is gone."""
        leaders = [n for n in self.leaders() if n.commit_index == n.log[-1][1] and n.last_applied == n.commit_index]
        if not leaders:
            roles = [(self.name(n), n.state, n.term) for n in self.nodes()]
            self.violate("WEDGED", f"no leader that commits; roles {roles}")
            return
        leader = max(leaders, key=lambda n: n.term)
        ledger = self.hosts[self.name(leader)].ledger
        lost = self.acknowledged - ledger.have
        if lost:
            self.violate("LOST", f"{len(lost)} of {len(self.acknowledged)} acknowledged writes, {sorted(lost)[:3]}")
        if len(ledger.values) != len(ledger.have):
            self.violate("TWICE", "a value was applied twice")
        for member in leader.members:
            host = self.hosts[member.id]
            if host.node is None or host.ledger.values != ledger.values:
                self.violate("NOT_CONVERGED", f"{member.id} differs from the leader {self.name(leader)}")
            elif host.node.members != leader.members:
                self.violate("NOT_CONVERGED", f"{member.id} has another configuration")


def journal_of(node: Consensus) -> Journal:
    return node.log
