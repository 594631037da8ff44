"""Headers and queries of lists and uploads: pages, content ranges. Pure."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from urllib.parse import urlencode

from shoal.registry.errors import PageInvalid, RangeInvalid, UploadInvalid

_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,19})-([0-9]{1,19})(?:/[0-9*]+)?")


def page(entries: Sequence[str], last: str, n: str | None, default: int, most: int) -> tuple[list[str], bool]:
    """The sorted `entries` behind `last`, `n` of them at the most, and whether more follow."""
    if n is not None and not (n.isascii() and n.isdigit() and len(n) < 10):
        raise PageInvalid(f"n is {n[:40]!r}; it has to be a number")
    count = min(int(n), most) if n is not None else default
    begin = bisect.bisect_right(entries, last) if last else 0
    return list(entries[begin:begin + count]), count > 0 and begin + count < len(entries)


def next_link(path: str, last: str, n: int) -> str:
    """The header Link of a page that more follow."""
    return f'<{path}?{urlencode({"last": last, "n": n})}>; rel="next"'


def start_of(content_range: str | None, length: int | None, held: int) -> None:
    """Refuse a chunk that does not go on where the upload stands, or whose length is not what its range says."""
    if content_range is None:
        return
    found = _CONTENT_RANGE.fullmatch(content_range.strip())
    if not found:
        raise UploadInvalid(f"Content-Range is {content_range[:80]!r}; it has to be START-END")
    start, end = int(found[1]), int(found[2])
    if start != held:
        raise RangeInvalid(f"the chunk starts at {start}, but {held} bytes are here", held)
    if end < start or (length is not None and end - start + 1 != length):
        raise UploadInvalid(f"Content-Range {content_range[:80]} does not fit the body's length {length}")


def held_range(size: int) -> str:
    """The header Range of an upload that holds `size` bytes, as Docker's registry writes it (0-0 for none)."""
    return f"0-{max(size - 1, 0)}"
