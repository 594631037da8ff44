"""Times as the API writes and reads them. Inside, a time is nanoseconds since the epoch; 0 is never."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from shoal.api.errors import InvalidArgument

NEVER = "0001-01-01T00:00:00Z"
SECOND_NS = 1_000_000_000

_UNIX = re.compile(r"(-?\d{1,12})(?:\.(\d{1,9}))?", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS_NS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def rfc3339(moment_ns: int) -> str:
    """As Go writes a time: UTC, nanoseconds, no zeros at the end."""
    if moment_ns <= 0:
        return NEVER
    seconds, rest = divmod(moment_ns, SECOND_NS)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def unix_ns(text: str, name: str) -> int:
    """Nanoseconds of "seconds[.fraction]"; 0 for an empty text. Raises InvalidArgument."""
    if not text:
        return 0
    found = _UNIX.fullmatch(text)
    if found is None:
        raise InvalidArgument(f'invalid value for "{name}": {text!r} is no UNIX timestamp')
    return int(found[1]) * SECOND_NS + int((found[2] or "").ljust(9, "0"))


def moment_ns(text: str, name: str, now_ns: int | None = None) -> int:
    """Nanoseconds of a UNIX timestamp, an RFC 3339 time or date, or a duration back from now.

    0 for an empty text. Raises InvalidArgument.
    """
    if not text or _UNIX.fullmatch(text):
        return unix_ns(text, name)
    if _PART.sub("", text) == "":
        back = sum(float(amount) * _UNITS_NS[unit] for amount, unit in _PART.findall(text))
        return (time.time_ns() if now_ns is None else now_ns) - int(back)
    found = stamp_ns(text)
    if not found:
        raise InvalidArgument(f'invalid value for "{name}": {text!r} is no time')
    return found


def stamp_ns(stamp: str) -> int:
    """Nanoseconds of an RFC 3339 time or date (UTC where it names no zone); 0 where it is none."""
    whole, dot, rest = stamp.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))] if dot else ""
    try:
        moment = datetime.fromisoformat(whole + rest[len(digits):].replace("Z", "+00:00") if dot
                                        else whole.replace("Z", "+00:00"))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0, int(moment.timestamp()) * SECOND_NS + int(digits[:9].ljust(9, "0")))
    except (ValueError, OverflowError):
        return 0
