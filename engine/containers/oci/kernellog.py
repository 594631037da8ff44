"""What the kernel's log tells of processes that it killed for lack of memory.

For cgroups that are gone by then: systemd removes a scope with its last process, and
with it the counter that would tell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

LOG = "/dev/kmsg"
SLACK_S = 1.0
"""The log's clock and the monotonic one drift apart by less."""

MAX_RECORD_BYTES = 8192
MAX_RECORDS = 20_000


def killed_for_memory(group: str, started_ns: int) -> bool:
    """Whether something in the group was killed since then (nanoseconds since the epoch). A few milliseconds."""
    since_s = time.monotonic() - (time.time_ns() - started_ns) / 1e9 - SLACK_S
    with suppress(OSError):
        return tells_of(_records(), group, since_s)
    return False


def tells_of(records: Iterable[str], group: str, since_s: float) -> bool:
    """Whether one of the log's records is of a kill at the limit of the group, since then (seconds of uptime)."""
    for record in records:
        head, _, text = record.partition(";")
        if not text.startswith("oom-kill:") or float(head.split(",")[2]) / 1e6 < since_s:
            continue
        limited = dict(pair.partition("=")[::2] for pair in text.split(",")).get("oom_memcg", "")
        if f"{limited}/".startswith(f"{group}/"):
            return True
    return False


def _records() -> Iterator[str]:
    """Each record from the oldest on, up to now. Raises OSError where the log may not be read."""
    descriptor = os.open(LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for _ in range(MAX_RECORDS):
            try:
                yield os.read(descriptor, MAX_RECORD_BYTES).decode(errors="replace")
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # overwritten meanwhile: the next one comes
    finally:
        os.close(descriptor)
