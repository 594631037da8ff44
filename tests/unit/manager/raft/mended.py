"""Members as they run in production, in the test's hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pysyncobj.syncobj

from shoal.manager.store.raft import codec, library, membership
from shoal.manager.store.raft.consensus import Consensus, Failed
from shoal.manager.store.raft.journal import Journal
from shoal.manager.store.raft.nouns import KIND_COMMAND, Member, RaftTiming
from shoal.manager.store.raft.snapshot import Snapshots
from tests.property.raft.disk import ForgetfulDisk
from tests.unit.manager.raft.group import ELECTION_S, HAPPENED, POISON, REFUSED, UNKNOWN, Group, Receipt


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
