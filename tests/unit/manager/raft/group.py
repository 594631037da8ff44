"""A few Raft members in the test's hand: it moves the clock, and every message waits until it is delivered.

`Mended` is what runs in production; `Stock` is the library as shipped, as its
documentation has it used. Both play the same scenario, so that a test can show
what a mend mends: `on_both` runs it on each and says whether it should end well.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pysyncobj.syncobj
import pytest

from shoal.manager.store.raft import codec, library, membership
from shoal.manager.store.raft.consensus import Consensus, Failed
from shoal.manager.store.raft.journal import Journal
from shoal.manager.store.raft.nouns import KIND_COMMAND, Member, RaftTiming
from shoal.manager.store.raft.snapshot import Snapshots
from tests.property.raft.disk import ForgetfulDisk
from tests.unit.manager.raft.stock import as_shipped

STEP_S = 0.01
FAR_S = 1000.0
POISON = b"!"
ELECTION_S = (0.4, 1.4)
HAPPENED, REFUSED, UNKNOWN = "happened", "refused", "unknown"

Only = Callable[[str, str, dict[str, Any]], bool | None]
"""(from, to, message) → deliver it now (True), later (False), never (None)."""


class Receipt:
    """What became of a command."""

    def __init__(self) -> None:
        self.outcome: str | None = None

    def __repr__(self) -> str:
        return f"<{self.outcome}>"


class Group:
    """Members by name. Used as a context manager."""

    def __init__(self, names: str = "ABC", **options: Any) -> None:
        random.seed(1)  # the library's election timeouts
        self.now = 1000.0
        self.names, self.options = names, options
        self.folder = Path(tempfile.mkdtemp(prefix="raft-"))
        self.nodes: dict[str, Any] = {}
        self.waiting: list[tuple[float, str, str, dict[str, Any]]] = []
        self.latency_s = 0.0
        self.errors: dict[str, int] = {}
        self._cuts: set[frozenset[str]] = set()
        self._linked: dict[str, set[str]] = {}

    def clock(self) -> float:
        self.now += 2e-6  # the library waits in loops for its clock to move
        return self.now

    def __enter__(self) -> Group:
        for name in self.names:
            self.start(name)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- time and network ---

    def cut(self, *pairs: str) -> None:
        """Break the links "AB", "AC" …; what is under way on them is lost."""
        self._cuts |= {frozenset(pair) for pair in pairs}
        self.waiting = [each for each in self.waiting if frozenset(each[1:3]) not in self._cuts]

    def heal(self) -> None:
        self._cuts.clear()

    def split(self, *parts: str) -> None:
        """Only members of one part reach each other."""
        self.heal()
        self.cut(*(a + b for part in parts for a in part for other in parts if other != part for b in other))

    def linked(self, a: str, b: str) -> bool:
        return a in self.nodes and b in self.nodes and frozenset((a, b)) not in self._cuts and a != b

    def send(self, source: str, target: str, message: dict[str, Any]) -> bool:
        if not self.linked(source, target):
            return False
        self.waiting.append((self.now + self.latency_s, source, target, message))
        return True

    def tick(self, names: str | None = None, seconds: float = STEP_S) -> None:
        self.now += seconds
        for name in names or "".join(self.nodes):
            known = self._linked.setdefault(name, set())
            for other in [*self.nodes, *(known - set(self.nodes))]:
                if self.linked(name, other) != (other in known):
                    known ^= {other}
                    self.link(name, other, other in known)
            self._guarded(name, lambda name=name: self.turn(name))

    def deliver(self, only: Only = lambda *_: True) -> None:
        """What has arrived by now, in order."""
        waiting, self.waiting = self.waiting, []
        for arrival, source, target, message in waiting:
            wanted = only(source, target, message) if arrival <= self.now else False
            if wanted is False:
                self.waiting.append((arrival, source, target, message))
            elif wanted and self.linked(source, target):
                self.hand(source, target, message)

    def hand(self, source: str, target: str, message: dict[str, Any]) -> None:
        """Let a member receive this message."""
        self._guarded(target, lambda: self.receive(source, target, message))

    def run(self, steps: int, names: str | None = None, only: Only = lambda *_: True) -> None:
        for _ in range(steps):
            self.tick(names)
            self.deliver(only)

    def until(self, condition: Callable[[], bool], seconds: float = 20.0, names: str | None = None) -> bool:
        """Run until it holds; whether it did in time."""
        end = self.now + seconds
        while not condition():
            if self.now > end:
                return False
            self.run(1, names)
        return True

    def _guarded(self, name: str, act: Callable[[], None]) -> None:
        """The library's own thread logs what its tick raises, and goes on; so do we."""
        try:
            act()
        except Exception:
            self.errors[name] = self.errors.get(name, 0) + 1

    # --- members ---

    def peek(self, name: str, attribute: str) -> Any:
        return getattr(self.nodes[name], "_SyncObj__" + attribute)

    def poke(self, name: str, attribute: str, value: Any) -> None:
        setattr(self.nodes[name], "_SyncObj__" + attribute, value)

    def candidate(self, name: str) -> None:
        """It is the next whose patience ends."""
        for other in self.nodes:
            self.poke(other, "raftElectionDeadline", self.now if other == name else self.now + FAR_S)

    def elect(self, name: str, names: str | None = None) -> None:
        """Make it leader, and let it commit its no-op."""
        self.candidate(name)
        for _ in range(100):
            if self.leads(name) and self.commit_index(name) == self.log(name)[-1][0]:
                self.run(5, names)
                return
            self.run(5, names)
        raise AssertionError(f"{name} does not become leader")

    def leads(self, name: str) -> bool:
        return bool(self.peek(name, "raftState") == library.LEADER)

    def term(self, name: str) -> int:
        return int(self.peek(name, "raftCurrentTerm"))

    def log(self, name: str) -> list[tuple[int, int]]:
        """(index, term) of each entry."""
        return [(index, term) for _, index, term in self.peek(name, "raftLog")[:]]

    def commit_index(self, name: str) -> int:
        return int(self.peek(name, "raftCommitIndex"))

    def match_index(self, leader: str, follower: str) -> int:
        """Up to where the leader believes the follower to agree."""
        return int(next(index for node, index in self.peek(leader, "raftMatchIndex").items() if node.id == follower))

    def kill(self, name: str) -> None:
        """SIGKILL: what the process had handed to the kernel stays."""
        del self.nodes[name]
        self._linked.pop(name, None)
        self.waiting = [each for each in self.waiting if name not in each[1:3]]
        for known in self._linked.values():
            known.discard(name)

    # --- what each kind gives ---

    mended: bool

    def start(self, name: str) -> None:
        raise NotImplementedError

    def turn(self, name: str) -> None:
        raise NotImplementedError

    def link(self, name: str, other: str, up: bool) -> None:
        raise NotImplementedError

    def receive(self, source: str, target: str, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def snapshot(self, name: str) -> Path:
        """The file of its newest snapshot."""
        raise NotImplementedError

    def values(self, name: str) -> list[bytes]:
        """What is applied, in order."""
        raise NotImplementedError

    def write(self, name: str, value: bytes) -> Receipt:
        raise NotImplementedError

    def body(self, entry_bytes: int) -> bytes:
        """A value whose entry in the log has this size."""
        raise NotImplementedError

    def add(self, name: str, member: str) -> Receipt:
        raise NotImplementedError

    def remove(self, name: str, member: str) -> Receipt:
        raise NotImplementedError

    def compact(self, name: str) -> None:
        """Let it cut its log behind a snapshot, on its next turns."""
        raise NotImplementedError


class Values:
    """The mended members' state machine: the values, in order."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def apply(self, index: int, command: bytes) -> bytes:
        if command == POISON:
            raise ValueError("a poisoned command")
        self.values.append(command)
        return command

    def snapshot(self) -> Iterator[bytes]:
        return iter([msgpack.packb(self.values)])

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.install([value for chunk in chunks for value in msgpack.unpackb(chunk)])

    def restoring(self) -> Values:
        return Values()

    def feed(self, chunk: bytes) -> None:
        self.values += msgpack.unpackb(chunk)

    def finish(self) -> list[bytes]:
        return self.values

    def install(self, state: list[bytes]) -> None:
        self.values = state


class Wire:
    """The network of one mended member. Every message passes through the codec, as on the real one."""

    def __init__(self, group: Group, name: str) -> None:
        self._group, self._name = group, name
        self.book: membership.Members = ()

    def send(self, to: str, message: dict[str, Any]) -> bool:
        return self._group.send(self._name, to, codec.loads(codec.dumps(message)))

    def backlog(self, to: str) -> int:
        return 0

    def adopt(self, members: membership.Members) -> None:
        self.book = members


class Mended(Group):
    """The members that run in production."""

    mended = True

    def __init__(self, names: str = "ABC", **options: Any) -> None:
        super().__init__(names, **options)
        self.timing = RaftTiming(election_min_s=ELECTION_S[0], election_max_s=ELECTION_S[1], heartbeat_s=0.1,
                                 compact_entries=1_000_000, trailing_entries=0)
        self.disks: dict[str, ForgetfulDisk] = {}
        self.machines: dict[str, Values] = {}
        self.wires: dict[str, Wire] = {}
        self.jobs: dict[str, list[Callable[[], None]]] = {}
        self._clock = pysyncobj.syncobj.monotonicTime
        library.use_clock(self.clock)

    def __exit__(self, *_: object) -> None:
        for name in list(self.nodes):
            self.kill(name)
        library.use_clock(self._clock)
        super().__exit__()

    def home(self, name: str) -> Path:
        return self.folder / name

    def founders(self) -> membership.Members:
        return tuple(member(name) for name in self.names)

    def start(self, name: str) -> None:
        self.home(name).mkdir(exist_ok=True)
        disk = self.disks[name] = self.options.get("disk", ForgetfulDisk)()
        self.machines[name], self.wires[name], self.jobs[name] = Values(), Wire(self, name), []
        self.nodes[name] = self.options.get("consensus", Consensus)(
            me=name, network=self.wires[name],
            journal=Journal(self.home(name) / "journal", name, self.founders(), disk=disk, fatal=self._fatal),
            snapshots=Snapshots(self.home(name), disk=disk), machine=self.machines[name], timing=self.timing,
            offload=lambda work, done: self._offload(name, work, done), fatal=self._fatal,
        )

    def _fatal(self, reason: str) -> None:
        raise AssertionError(f"a member stops: {reason}")

    def _guarded(self, name: str, act: Callable[[], None]) -> None:
        act()  # whatever is raised here would end the process

    def _offload(self, name: str, work: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        def working() -> None:
            work()
            self.jobs[name].append(lambda: done(None))  # the member learns of it a turn later

        self.jobs[name].append(working)

    def turn(self, name: str) -> None:
        jobs, self.jobs[name] = self.jobs[name], []
        for job in jobs:
            job()
        self.nodes[name].tick()

    def link(self, name: str, other: str, up: bool) -> None:
        (self.nodes[name].link_up if up else self.nodes[name].link_down)(other)

    def receive(self, source: str, target: str, message: dict[str, Any]) -> None:
        self.nodes[target].deliver(source, message)

    def snapshot(self, name: str) -> Path:
        return self.home(name) / "snapshot"

    def values(self, name: str) -> list[bytes]:
        return self.machines[name].values

    def kill(self, name: str) -> None:
        self.disks[name].close_all()
        super().kill(name)

    def power_cut(self, name: str) -> None:
        """What was not synced is lost."""
        self.disks[name].power_cut(self.home(name), random.Random(1))
        super().kill(name)

    def _receipt(self) -> tuple[Receipt, Callable[[Any, Exception | None], None]]:
        receipt = Receipt()

        def done(result: Any, error: Exception | None) -> None:
            sure = error is None and not isinstance(result, Failed)
            receipt.outcome = HAPPENED if sure else UNKNOWN if type(error).__name__ == "OutcomeUnknown" else REFUSED

        return receipt, done

    def write(self, name: str, value: bytes) -> Receipt:
        receipt, done = self._receipt()
        self.nodes[name].propose(KIND_COMMAND + value, done)
        return receipt

    def read(self, name: str) -> Receipt:
        """A linearizable read; HAPPENED once the local values may be read."""
        receipt, done = self._receipt()
        self.nodes[name].read(done)
        return receipt

    def body(self, entry_bytes: int) -> bytes:
        return b"x" * (entry_bytes - len(KIND_COMMAND))

    def add(self, name: str, new: str) -> Receipt:
        return self._change(name, lambda members: membership.with_member(members, member(new)))

    def remove(self, name: str, gone: str) -> Receipt:
        return self._change(name, lambda members: membership.without_member(members, gone))

    def _change(self, name: str, change: Callable[[membership.Members], membership.Members]) -> Receipt:
        receipt, done = self._receipt()
        self.nodes[name].change_members(change, done)
        return receipt

    def members(self, name: str) -> str:
        return "".join(sorted(each.id for each in self.nodes[name].members))

    def compact(self, name: str) -> None:
        self.nodes[name].request_compaction()


def member(name: str) -> Member:
    return Member(name, f"host-{name}:2378")


class Stock(Group):
    """The library as shipped: @replicated, journal and dump files, its own everything but sockets and clock."""

    mended = False

    def __init__(self, names: str = "ABC", **options: Any) -> None:
        super().__init__(names, **options)
        self._ports: dict[str, Any] = {}

    def __enter__(self) -> Group:
        self._copy = as_shipped()
        self.library = self._copy.__enter__()
        self.library.syncobj.monotonicTime = self.clock
        self._class = self._member_class()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._copy.__exit__(None, None, None)

    def _member_class(self) -> type[Any]:
        replicated = self.library.replicated

        class Store(self.library.SyncObj):  # type: ignore[misc,name-defined]
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                self.values: list[bytes] = []  # set after the constructor, so that its snapshots hold it

            @replicated
            def put(self, value: bytes) -> bytes:
                if value == POISON:
                    raise ValueError("a poisoned command")
                self.values.append(value)
                return value

        return Store

    def start(self, name: str) -> None:
        group, Node = self, self.library.node.Node  # noqa: N806 - a class

        class Port(self.library.transport.Transport):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                super().__init__(None, None, [])

            def send(self, node: Any, message: dict[str, Any]) -> bool:
                return group.send(name, node.id, message)

            def addNode(self, node: Any) -> None: ...  # noqa: N802

            def dropNode(self, node: Any) -> None: ...  # noqa: N802

        settings = {
            "autoTick": False, "raftMinTimeout": ELECTION_S[0], "raftMaxTimeout": ELECTION_S[1],
            "appendEntriesUseBatch": False, "dynamicMembershipChange": True, "useFork": False,
            "logCompactionMinEntries": 10**6, "logCompactionMinTime": 10**6,
            "journalFile": str(self.folder / f"{name}.journal"), "fullDumpFile": str(self.folder / f"{name}.dump"),
        }
        port = self._ports[name] = Port()
        self.nodes[name] = self._class(
            Node(name), [Node(other) for other in self.names if other != name],
            self.library.SyncObjConf(**{**settings, **self.options}), nodeClass=Node, transport=port,
        )

    def turn(self, name: str) -> None:
        self.nodes[name].doTick(0)

    def link(self, name: str, other: str, up: bool) -> None:
        port, node = self._ports[name], self.library.node.Node(other)
        (port._onNodeConnected if up else port._onNodeDisconnected)(node)

    def receive(self, source: str, target: str, message: dict[str, Any]) -> None:
        self._ports[target]._onMessageReceived(self.library.node.Node(source), message)

    def snapshot(self, name: str) -> Path:
        return self.folder / f"{name}.dump"

    def values(self, name: str) -> list[bytes]:
        return list(self.nodes[name].values)

    def _receipt(self) -> tuple[Receipt, Callable[[Any, int], None]]:
        receipt, reasons = Receipt(), self.library.FAIL_REASON

        def done(_: Any, error: int) -> None:
            unknown = error in (reasons.LEADER_CHANGED, getattr(reasons, "UNKNOWN_OUTCOME", None))
            receipt.outcome = HAPPENED if error == reasons.SUCCESS else UNKNOWN if unknown else REFUSED

        return receipt, done

    def write(self, name: str, value: bytes) -> Receipt:
        receipt, done = self._receipt()
        self.nodes[name].put(value, callback=done)
        return receipt

    def body(self, entry_bytes: int) -> bytes:
        dumps = self.library.pickle.dumps
        size = entry_bytes
        while 1 + len(dumps((0, (b"x" * size,)))) > entry_bytes:
            size -= 1
        return b"x" * size

    def add(self, name: str, new: str) -> Receipt:
        receipt, done = self._receipt()
        self.nodes[name].addNodeToCluster(self.library.node.Node(new), callback=done)
        return receipt

    def remove(self, name: str, gone: str) -> Receipt:
        receipt, done = self._receipt()
        self.nodes[name].removeNodeFromCluster(self.library.node.Node(gone), callback=done)
        return receipt

    def compact(self, name: str) -> None:
        self.nodes[name].forceLogCompaction()


on_both = pytest.mark.parametrize("kind", [pytest.param(Mended, id="mended"), pytest.param(Stock, id="as-shipped")])
"""The scenario ends well on the mended members, and must not as shipped: `assert good is group.mended`."""

__all__ = ["HAPPENED", "POISON", "REFUSED", "UNKNOWN", "Group", "Mended", "Receipt", "Stock", "on_both"]
