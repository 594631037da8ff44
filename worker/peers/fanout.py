"""To whom this host gives a blob: to a few, who give it on, so that what many want at once costs it little. Pure.

Each who got it whole is where the next are sent; who fails them may be named, and is given for no more.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

WIDTH = 2
"""How often a blob is given whole, and how often one who has it is named before it is given again."""

MEMORY_S = 600.0
"""Then it may be given again: those who got it may have let go of it."""

LEAST_BYTES = 1 << 20
"""A smaller blob is given to everybody who asks."""


class _Given(msgspec.Struct):
    since: float
    whole: bool = False  # it has arrived
    named: int = 0  # as the only one who has it


class FanOut:
    """`now`: a monotonic clock, seconds. Hosts are named by where they serve (host:port)."""

    def __init__(self) -> None:
        self._given: dict[str, dict[str, _Given]] = {}  # digest → who got it or is getting it

    def ask_instead(self, digest: str, asker: str, failed: Collection[str], now: float) -> tuple[str, ...]:
        """Whom the asker should ask; empty: it is to be given the blob here.

        `failed`: whom the asker has asked in vain.
        """
        given = self._fresh(digest, now)
        others = {host: one for host, one in given.items() if host not in failed and host != asker}
        if len(others) >= WIDTH:
            return tuple(others)
        for host, one in others.items():
            if one.whole and one.named < WIDTH:
                one.named += 1
                return (host,)
        return ()

    def begun(self, digest: str, asker: str, now: float) -> None:
        """The blob is on its way."""
        self._given.setdefault(digest, {})[asker] = _Given(now)

    def arrived(self, digest: str, asker: str) -> None:
        """All of it was sent."""
        if (one := self._given.get(digest, {}).get(asker)) is not None:
            one.whole = True

    def cut(self, digest: str, asker: str) -> None:
        """It did not arrive whole."""
        given = self._given.get(digest, {})
        given.pop(asker, None)
        if not given:
            self._given.pop(digest, None)

    def _fresh(self, digest: str, now: float) -> dict[str, _Given]:
        for each in list(self._given):
            self._given[each] = {host: one for host, one in self._given[each].items() if now - one.since < MEMORY_S}
            if not self._given[each]:
                del self._given[each]
        return self._given.get(digest, {})
