"""Which configuration of members holds. Pure.

A change of members is an entry of the log that carries the whole new list. The
latest such entry holds from the moment it is appended, committed or not; when
it is truncated, the one before it holds again.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgpack  # type: ignore[import-untyped]

from shoal.manager.store.raft.nouns import KIND_MEMBERS, Entry, Member, Members, MembershipConflict


def encode_members(members: Iterable[Member]) -> bytes:
    """A command for the log."""
    return KIND_MEMBERS + bytes(msgpack.packb([(m.id, m.address) for m in members]))


def decode_members(command: bytes) -> Members | None:
    """None where the command is of another kind."""
    if command[:1] != KIND_MEMBERS:
        return None
    return tuple(Member(*pair) for pair in msgpack.unpackb(command[1:]))


class Configurations:
    """The configurations that the log names, oldest first.

    Invariant: never empty; indexes rise. The first is what held at or before
    the log's first entry.
    """

    def __init__(self, index: int, members: Members) -> None:
        self._history: list[tuple[int, Members]] = [(index, members)]

    @property
    def latest(self) -> tuple[int, Members]:
        """(index of the entry, members)."""
        return self._history[-1]

    def at(self, index: int) -> Members:
        """What held once the entry `index` was the last one."""
        for since, members in reversed(self._history):
            if since <= index:
                return members
        return self._history[0][1]

    def appended(self, entry: Entry) -> bool:
        """Take note of a new last entry. Whether the configuration changed."""
        members = decode_members(entry[0])
        if members is None or entry[1] <= self._history[-1][0]:
            return False
        self._history.append((entry[1], members))
        return True

    def truncated(self, first_gone: int) -> bool:
        """Entries from this index on are gone. Whether the configuration changed."""
        before = len(self._history)
        while len(self._history) > 1 and self._history[-1][0] >= first_gone:
            self._history.pop()
        return len(self._history) != before

    def trimmed(self, first_kept: int) -> None:
        """Entries before this index are gone, for they are in a snapshot."""
        while len(self._history) > 1 and self._history[1][0] <= first_kept:
            del self._history[0]


def with_member(members: Members, new: Member) -> Members:
    """Raises MembershipConflict where the id or the address is taken."""
    for member in members:
        if member.id == new.id:
            raise MembershipConflict(f"{new.id} is a member already; a join needs a fresh id")
        if member.address == new.address:
            raise MembershipConflict(f"member {member.id} has the address {new.address}; remove it first")
    return (*members, new)


def without_member(members: Members, gone: str) -> Members:
    """Raises MembershipConflict where there is no such member, or no other."""
    kept = tuple(m for m in members if m.id != gone)
    if len(kept) == len(members):
        raise MembershipConflict(f"{gone} is not a member")
    if not kept:
        raise MembershipConflict("the last member cannot be removed")
    return kept


def with_address(members: Members, moved: Member) -> Members:
    """The same members, one at another address."""
    if all(m.id != moved.id for m in members):
        raise MembershipConflict(f"{moved.id} is not a member")
    return tuple(moved if m.id == moved.id else m for m in members)
