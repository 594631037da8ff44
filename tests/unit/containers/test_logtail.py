"""The last lines of a log that was put aside at any place: between two lines, or in the middle of one."""

from __future__ import annotations

import asyncio
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shoal.engine.containers.logs import reader
from shoal.engine.containers.logs.inotify import Watches
from shoal.engine.containers.logs.logline import count, tail_offset
from shoal.engine.containers.nouns import LogQuery

STAMP = b"2026-11-25T01:16:15.000000000+00:00 stdout "


def entries(pieces: list[int], unfinished: bool) -> list[bytes]:
    """As conmon writes them: each line in one more piece than said; the last may never have been ended."""
    made = [entry for number, extra in enumerate(pieces)
            for entry in [*[STAMP + b"P %d-" % number] * extra, STAMP + b"F %d" % number]]
    return [*made, STAMP + b"P rest"] if unfinished else made


async def read(folder: Path, tail: int) -> list[bytes]:
    found = reader.lines(folder, LogQuery(tail=tail), runs=lambda: False, watches=Watches())
    return [line.content async for lines in found for line in lines]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=8), st.booleans(), st.lists(st.integers(0, 30), max_size=3),
       st.integers(0, 10))
@example(pieces=[0, 1, 0], unfinished=False, cuts=[2], tail=2)
@example(pieces=[0, 0], unfinished=True, cuts=[2], tail=1)
def test_the_tail_is_the_end_of_the_whole(pieces: list[int], unfinished: bool, cuts: list[int], tail: int) -> None:
    written = entries(pieces, unfinished)
    places = [0, *sorted(min(cut, len(written)) for cut in cuts), len(written)]
    with tempfile.TemporaryDirectory() as name:
        for number, (begin, end) in enumerate(pairwise(places)):
            age = len(places) - 2 - number
            path = Path(name, f"log.{age}" if age else "log")
            path.write_bytes(b"".join(entry + b"\n" for entry in written[begin:end]))
        whole = asyncio.run(read(Path(name), -1))
        assert len(whole) == len(pieces) + unfinished
        assert asyncio.run(read(Path(name), tail)) == (whole[-tail:] if tail else [])


@pytest.mark.parametrize("newest", [True, False])
def test_what_is_counted_is_what_is_found(newest: bool) -> None:
    block = b"".join(entry + b"\n" for entry in entries([1, 0, 2], unfinished=True))
    assert tail_offset(block, count(block, newest=newest), newest=newest) is None
    assert tail_offset(block, count(block, newest=newest) - 1, newest=newest) is not None
