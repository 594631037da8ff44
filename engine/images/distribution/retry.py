"""When to try again, and how long to wait before. Pure: the lots are the caller's."""

from __future__ import annotations

import msgspec


class RetryPolicy(msgspec.Struct, frozen=True):
    """At most `attempts` in a row without progress; the wait doubles from `first_s` up to `most_s`."""

    attempts: int = 6
    first_s: float = 0.25
    most_s: float = 10.0

    def delay_s(self, failures: int, lot: float) -> float | None:
        """The wait after so many failures in a row, or None to give up. `lot`: in [0, 1), spreads the waits."""
        if failures >= self.attempts:
            return None
        whole: float = min(self.first_s * 2.0 ** (failures - 1), self.most_s)
        return whole * (0.5 + lot / 2)


PATIENT = RetryPolicy()


def is_passing(status: int) -> bool:
    """Whether an answer of this status may be another one soon."""
    return status in (408, 425, 429) or 500 <= status < 600
