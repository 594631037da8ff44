"""A few Raft members in the test's hand: it moves the clock, and every message waits until it is delivered.

`Mended` is what runs in production; `Stock` is the library as shipped, as its
documentation has it used. Both play the same scenario, so that a test can show what
a mend mends: see `kinds.on_both`.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEP_S = 0.01
FAR_S = 1000.0
POISON = b"!"
ELECTION_S = (0.4, 1.4)
LEADER = 2  # the library's number
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
        return bool(self.peek(name, "raftState") == LEADER)

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
