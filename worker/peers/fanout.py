"""To whom this host gives a blob: to few, who give it on, so that what many want at once costs it little. Pure.

Those whom the managers sent here are given it once: the next are sent to the one who got it. Whom another host sent
here is given it as long as no two have got it. So it spreads in a tree, and the host that had it sends it once.
Who fails an asker is not named to it, and where no one is left to be named, it is given again.
"""

from __future__ import annotations

from collections.abc import Collection

WIDTH = 2
"""How often a blob is given to hosts that another one sent."""

DIRECT_WIDTH = 1
"""How often to those that the managers sent."""

MEMORY_S = 600.0
"""Then it may be given again: those who got it may have let go of it."""

LEAST_BYTES = 1 << 20
"""A smaller blob is given to everybody who asks."""


class FanOut:
    """`now`: a monotonic clock, seconds. Hosts are named by where they serve (host:port)."""

    def __init__(self) -> None:
        self._given: dict[str, dict[str, float]] = {}  # digest → who got it or is getting it → since when

    def ask_instead(self, digest: str, asker: str, failed: Collection[str], now: float, *, sent: bool = False
                    ) -> tuple[str, ...]:
        """Whom the asker should ask; empty: it is to be given the blob here.

        `failed`: whom the asker has asked in vain. `sent`: another host named this one to it.
        """
        others = tuple(host for host in self._fresh(digest, now) if host not in failed and host != asker)
        return others if len(others) >= (WIDTH if sent else DIRECT_WIDTH) else ()

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
