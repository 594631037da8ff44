"""What a pull or a push tells of itself, in the words that the docker command draws. Pure; the clock is given.

Source: moby, pkg/progress and distribution/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Line = dict[str, Any]
Sink = Callable[[Line], None]
"""Takes one line; it may not block."""

INTERVAL_S = 0.1


def ignore(line: Line) -> None:
    """A sink for who does not look."""


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


class Step:
    """The line of one layer. Of its many figures one in `INTERVAL_S` goes out, and the last."""

    def __init__(self, sink: Sink, digest: str, clock: Callable[[], float]) -> None:
        self._sink = sink
        self._id = short(digest)
        self._clock = clock
        self._next = 0.0

    def say(self, status: str) -> None:
        self._sink({"status": status, "progressDetail": {}, "id": self._id})

    def count(self, status: str, current: int, total: int) -> None:
        now = self._clock()
        if now < self._next and current != total:
            return
        self._next = now + INTERVAL_S
        self._sink({"status": status, "progressDetail": {"current": current, "total": total},
                    "progress": bar(current, total), "id": self._id})


def bar(current: int, total: int) -> str:
    """As old clients show it as it is."""
    if total <= 0:
        return f"{size(current):>8}"
    filled = min(current * 50 // total, 50)
    drawn = "=" * filled + (">" if filled < 50 else "")
    return f"[{drawn:<50}]  {size(current):>7}/{size(total)}"


def size(value: float) -> str:
    """Of so many bytes, in four digits: 1.234MB."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.4g}{units[0]}"
