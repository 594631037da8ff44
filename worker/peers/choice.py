"""Which host is asked next for a blob. Pure: in which order they are first, the caller draws.

A host may send to others, who are asked first; it is asked again when they failed.
"""

from __future__ import annotations

from collections.abc import Iterable

MOST_HOSTS = 64
MOST_ASKS = 500
"""For one blob. A busy host answers after a while, so that this is hours."""


class Choice:
    """`banned` is shared by the blobs of a pull: hosts that lied or were slow."""

    def __init__(self, hosts: Iterable[str], banned: set[str]) -> None:
        self._lost: set[str] = set()
        self._banned = banned
        self._waiting = list(dict.fromkeys(hosts))
        self._known = set(self._waiting)
        self.sent: set[str] = set()  # those that others named, and not the managers
        self._asks = 0

    def next(self) -> str | None:
        """The host to ask now; None where no one is left."""
        self._waiting = [host for host in self._waiting if self._counts(host)]
        if not self._waiting or self._asks >= MOST_ASKS:
            return None
        self._asks += 1
        return self._waiting.pop(0)

    @property
    def failed(self) -> set[str]:
        """From whom nothing can be had: who is asked is told, and names others than these."""
        return self._lost | self._banned

    @property
    def has_other(self) -> bool:
        """Whether there is another one than the one that is being asked."""
        return any(map(self._counts, self._waiting))

    def sent_on(self, host: str, others: Iterable[str]) -> None:
        """It named others. One that names nobody new has nothing for us."""
        named = [other for other in dict.fromkeys(others) if self._counts(other) and other != host]
        room = MOST_HOSTS - len(self._known)
        fresh = [other for other in named if other not in self._known][:room]
        self._known |= set(fresh)
        self.sent |= set(fresh)
        first = [other for other in named if other in self._known]
        if first:
            self._waiting = [*first, *(each for each in self._waiting if each not in first), host]
        else:
            self.lost(host)

    def again(self, host: str) -> None:
        """It is asked again after the others: it is busy, or what it gave was spoilt by another one."""
        self._waiting.append(host)

    def lost(self, host: str) -> None:
        """It does not have the blob, or broke off."""
        self._lost.add(host)

    def drop(self, host: str) -> None:
        """It lied, or is too slow: nothing more of this pull is taken from it."""
        self._banned.add(host)

    def _counts(self, host: str) -> bool:
        return host not in self._banned and host not in self._lost
