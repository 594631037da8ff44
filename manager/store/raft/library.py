"""The Raft library's node, with the private parts that we stand on under readable names.

The library is pinned to one version because of this module. A test checks that
every name registered here exists in it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import pysyncobj.journal
import pysyncobj.syncobj as library
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from shoal.manager.store.raft import codec
from shoal.manager.store.raft.journal import Journal
from shoal.manager.store.raft.nouns import Member, RaftTiming

codec.install()

VERSION = "0.3.17"
PRIVATE: set[str] = set()
"""Names of private attributes and methods of SyncObj that are read, set, called or replaced."""

Message = dict[str, Any]
Method = TypeVar("Method", bound=Callable[..., Any])

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2


def now() -> float:
    """The library's clock, so that a simulation's is ours too."""
    return float(library.monotonicTime())


def use_clock(clock: Callable[[], float]) -> None:
    """Let another clock drive every node of this process (simulations)."""
    library.monotonicTime = clock


class Private:
    """One private attribute. None while the library's constructor has not set it."""

    def __init__(self, name: str) -> None:
        PRIVATE.add(name)
        self._name = "_SyncObj__" + name

    def __get__(self, instance: object, owner: type) -> Any:
        return getattr(instance, self._name, None)

    def __set__(self, instance: object, value: Any) -> None:
        setattr(instance, self._name, value)


def original(name: str) -> Any:
    """A private method as the library has it."""
    PRIVATE.add(name)
    return getattr(SyncObj, name if name.startswith("_") else "_SyncObj__" + name)


def replaces(name: str) -> Callable[[Method], Method]:
    """Mark a method that the library shall call in place of its own private one."""
    PRIVATE.add(name)

    def mark(method: Method) -> Method:
        method.__dict__["replaces"] = name
        return method

    return mark


def _forward(to: str) -> Callable[..., Any]:
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        return getattr(self, to)(*arguments, **named)

    return call


def _journal(configured: object) -> Any:
    """What the library calls to open `conf.journalFile`: ours is opened already."""
    return configured if isinstance(configured, Journal) else _stock_journal(configured)


_stock_journal = pysyncobj.journal.createJournal
library.createJournal = _journal


_RECEIVE, _SET_TERM, _SET_STATE = original("onMessageReceived"), original("setCurrentTerm"), original("setState")
_TIMEOUT, _DESTROY, _TICK = original("generateRaftTimeout"), original("_doDestroy"), original("_onTick")
PRIVATE.add("raftCurrentTerm")


class Peer(Node):  # type: ignore[misc]  # the library has no types
    """A member, by id. Its hash is the same in every process, so that a simulated run repeats from its seed."""

    def __init__(self, member_id: str) -> None:
        super().__init__(member_id)
        self._hash = zlib.crc32(member_id.encode())

    def __hash__(self) -> int:
        return self._hash


class _NoPoller:
    """The library polls sockets of its own; it has none here."""

    def poll(self, timeout: float) -> None: ...


class LibraryNode(SyncObj):  # type: ignore[misc]  # the library has no types
    """SyncObj with names. What a subclass overrides and how is said there."""

    log: Journal = cast(Journal, Private("raftLog"))
    others: set[Node] = cast("set[Node]", Private("otherNodes"))
    linked: set[Node] = cast("set[Node]", Private("connectedNodes"))
    state: int = cast(int, Private("raftState"))
    leader: Node | None = cast("Node | None", Private("raftLeader"))
    election_at: float = cast(float, Private("raftElectionDeadline"))
    transferring: bool = cast(bool, Private("transferInProgress"))
    commit_index: int = cast(int, Private("raftCommitIndex"))
    last_applied: int = cast(int, Private("raftLastApplied"))
    next_index: dict[Node, int] = cast("dict[Node, int]", Private("raftNextIndex"))
    match_index: dict[Node, int] = cast("dict[Node, int]", Private("raftMatchIndex"))
    answered_at: dict[Node, float] = cast("dict[Node, float]", Private("lastResponseTime"))
    noop_index: int | None = cast("int | None", Private("noopIDx"))
    heartbeat_due: float = cast(float, Private("newAppendEntriesTime"))

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            target = getattr(method, "replaces", None)
            if target is not None:
                setattr(cls, target if target.startswith("_") else "_SyncObj__" + target, _forward(name))

    def __init__(self, me: Node, others: Iterable[Node], journal: Journal, timing: RaftTiming) -> None:
        settings = SyncObjConf(
            autoTick=False,
            journalFile=journal,
            fullDumpFile=None,  # snapshots are ours
            dynamicMembershipChange=False,  # membership is ours
            commandsWaitLeader=False,
            appendEntriesUseBatch=True,
            raftMinTimeout=timing.election_min_s,
            raftMaxTimeout=timing.election_max_s,
            appendEntriesPeriod=timing.heartbeat_s,
            leaderFallbackTimeout=timing.election_max_s,
            connectionTimeout=max(3.5, timing.election_max_s),
            onStateChanged=self._on_state,
        )
        super().__init__(me, set(others), settings, nodeClass=Peer, transport=Port(self))
        self._poller = _NoPoller()

    @property
    def term(self) -> int:
        return int(getattr(self, "_SyncObj__raftCurrentTerm", 0))

    def is_leading(self) -> bool:
        return self.state == LEADER

    def pass_on(self, node: Node, message: Message) -> None:
        """Let the library handle a message."""
        _RECEIVE(self, node, message)

    def election_timeout(self) -> float:
        """A random one."""
        return float(_TIMEOUT(self))

    def step_down(self, term: int) -> None:
        """Become a follower of a newer term whose leader is not known yet."""
        _SET_TERM(self, term, None)
        _SET_STATE(self, FOLLOWER)
        self.leader = None

    def destroy_library(self) -> None:
        """Close the journal."""
        _DESTROY(self)

    def last_entry(self) -> tuple[int, int]:
        """(index, term) of the newest entry."""
        _, index, term = self.log[-1]
        return index, term

    # --- what subclasses give ---

    def _on_state(self, old: int, new: int) -> None:
        """The role changed."""

    def outgoing(self, node: Node, message: Message) -> bool:
        """The library sends."""
        raise NotImplementedError


class Port(Transport):  # type: ignore[misc]  # the library has no types
    """The library's side of the network: hands what it sends to the node above it."""

    def __init__(self, node: LibraryNode) -> None:
        super().__init__(node, None, [])
        self._node = node

    def send(self, node: Node, message: Message) -> bool:
        return self._node.outgoing(node, message)


def as_nodes(members: Iterable[Member], but: str) -> set[Node]:
    """The library's nodes for these members, without one."""
    return {Peer(m.id) for m in members if m.id != but}
