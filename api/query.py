"""The queries of the Docker API, read as Docker reads them: flags, filters, labels. Pure.

Both halves of the API use it; which filters a route knows is the route's affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from shoal.api.errors import InvalidArgument

Filters = dict[str, list[str]]


def is_on(value: str) -> bool:
    """A flag: anything but "", 0, no, false and none is true."""
    return value.strip().lower() not in ("", "0", "no", "false", "none")


def parse_filters(raw: str, allowed: frozenset[str] | None = None) -> Filters:
    """`raw` is {"label": ["a=b"]}, or the old form {"label": {"a=b": true}}; empty: none.

    Raises InvalidArgument for what is neither, and for a key that is not `allowed`.
    """
    if not raw:
        return {}
    try:
        parsed = msgspec.json.decode(raw, type=dict[str, list[str] | dict[str, bool]])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"invalid filter: {error}") from error
    found: Filters = {}
    for key, values in parsed.items():
        if allowed is not None and key not in allowed:
            raise InvalidArgument(f"invalid filter '{key}'")
        found[key] = [value for value, on in values.items() if on] if isinstance(values, dict) else values
    return found


def labels_match(wanted: Iterable[str], labels: Mapping[str, str]) -> bool:
    """Whether `labels` has each of `wanted`, "key" or "key=value"."""
    for each in wanted:
        key, equals, value = each.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
