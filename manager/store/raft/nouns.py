"""What the Raft layer talks about: members, roles, timing, the state machine, refusals.

Nouns and protocols only: no I/O, and nothing of the Raft library.
"""

from __future__ import annotations

import enum
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from shoal.api.errors import Conflict, InvalidArgument, NoLeader, ShoalError, Unavailable

MAX_COMMAND_BYTES = 1 << 20
"""A larger command is refused at the door."""

Entry = tuple[bytes, int, int]
"""One line of the log: command, index, term. The command's first byte is its kind."""

KIND_COMMAND, KIND_NOOP, KIND_MEMBERS = b"\x00", b"\x01", b"\x02"


class Member(msgspec.Struct, frozen=True, order=True):
    """One voter.

    The id is `<node id>` or `<node id>.<join>`: opaque to Raft, fresh for each
    join (reuse after a wiped disk breaks safety), and its part before the dot is
    what the peer's certificate must say. The address is `host:port`.
    """

    id: str
    address: str


Members = tuple[Member, ...]


class Role(enum.Enum):
    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2


class RaftTiming(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, and the sizes at which the log is cut."""

    election_min_s: float = 0.6
    election_max_s: float = 1.2
    heartbeat_s: float = 0.1  # under a third of election_min_s
    tick_s: float = 0.03
    propose_timeout_s: float = 10.0
    compact_entries: int = 10_000  # applied since the last snapshot
    compact_bytes: int = 64 << 20  # of journal since the last snapshot
    trailing_entries: int = 1000  # kept behind a snapshot, so that a slow follower needs none
    step_s: float = 0.01  # encoding a snapshot or applying entries stops after this and goes on next turn


class TlsContexts(msgspec.Struct, frozen=True, kw_only=True):
    """How peers are known.

    The contexts are asked for at every connection, so that a renewed certificate
    counts at once. `peer_id` says which node a manager's certificate names; None
    drops the connection (no manager, revoked, of another cluster).
    """

    client: Callable[[], ssl.SSLContext]
    server: Callable[[], ssl.SSLContext]
    peer_id: Callable[[ssl.SSLObject], str | None]


class Restoring(Protocol):
    """A snapshot on its way into a state machine, in bounded steps."""

    def feed(self, chunk: bytes) -> None:
        """Take one chunk as `snapshot` gave it. ValueError: it is not understood."""
        ...

    def finish(self) -> Any:
        """What `install` takes. ValueError: cut short."""
        ...


class StateMachine(Protocol):
    """What Raft keeps alike on every member. All calls come from the event loop.

    Restoring is in steps, so that a large snapshot stalls nothing: `restoring()`
    takes the chunks one by one beside the state in use, `install` swaps them.
    """

    def apply(self, index: int, command: bytes) -> Any:
        """Apply one committed command: deterministic, total, quick."""
        ...

    def snapshot(self) -> Iterator[bytes]:
        """The state at the time of the call; later commands do not show. Each step under 10 ms."""
        ...

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the state at once (start only)."""
        ...

    def restoring(self) -> Restoring: ...

    def install(self, state: Any) -> None: ...


class NotLeader(NoLeader):
    """Only the leader does this; nothing happened. `leader_id` is whom to ask, where known."""

    def __init__(self, leader_id: str | None = None) -> None:
        super().__init__(
            f"this manager is not the leader; ask {leader_id}"
            if leader_id
            else "there is no leader just now; try again"
        )
        self.leader_id = leader_id


class CommandTooLarge(InvalidArgument):
    """Over MAX_COMMAND_BYTES."""


class OutcomeUnknown(Unavailable):
    """The leader was lost or slow: it may or may not have happened. Repeat with the same request id."""


class MembershipConflict(Conflict):
    """Another membership change is under way, or this one contradicts what is."""


class CorruptStorage(ShoalError):
    """A journal or snapshot that cannot be trusted. The message says what to do."""
