"""To whom this host gives a blob: to a few, who give it on, so that what many want at once costs it little. Pure.

Each who got it whole is where the next are sent; who fails them may be named, and is given for no more.
"""

from __future__ import annotations

from collections.abc import Collection

WIDTH = 2
"""How often a blob is given whole."""

MEMORY_S = 600.0
"""Then it may be given again: those who got it may have let go of it."""

LEAST_BYTES = 1 << 20
"""A smaller blob is given to everybody who asks."""


class FanOut:
    """`now`: a monotonic clock, seconds. Hosts are named by where they serve (host:port)."""

    def __init__(self) -> None:
        self._given: dict[str, dict[str, float]] = {}  # digest → who got it or is getting it → since when

    def ask_instead(self, digest: str, asker: str, failed: Collection[str], now: float) -> tuple[str, ...]:
        """Whom the asker should ask; empty: it is to be given the blob here.

        `failed`: whom the asker has asked in vain.
        """
        given = self._fresh(digest, now)
        others = tuple(host for host in given if host not in failed and host != asker)
        return others if len(others) >= WIDTH else ()

    def begun(self, digest: str, asker: str, now: float) -> None:
        """The blob is on its way."""
        self._given.setdefault(digest, {})[asker] = now

    def cut(self, digest: str, asker: str) -> None:
        """It did not arrive whole."""
        given = self._given.get(digest, {})
        given.pop(asker, None)
        if not given:
            self._given.pop(digest, None)

    def _fresh(self, digest: str, now: float) -> list[str]:
        for each in list(self._given):
            self._given[each] = {host: since for host, since in self._given[each].items() if now - since < MEMORY_S}
            if not self._given[each]:
                del self._given[each]
        return list(self._given.get(digest, {}))
