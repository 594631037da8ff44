"""How answers are shown: tables, progress, ages. rich is loaded only where a terminal is there to draw on."""

from __future__ import annotations

import datetime
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import click


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn by rich on a terminal, else in plain columns that scripts can cut."""
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        drawn = Table(*headings, box=SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            drawn.add_row(*(cell.replace("[", r"\[") for cell in row))
        Console().print(drawn)
        return
    lines = [list(headings), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress on stderr: call what is given with how many there are and how many there are to be.

    A bar on a terminal, else a line for each change.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, whole: progress.update(task, completed=done, total=whole)
        return
    shown: tuple[int, int] | None = None

    def show(done: int, whole: int) -> None:
        nonlocal shown
        if shown != (done, whole):
            shown = done, whole
            click.echo(f"{done} of {whole} {what}", err=True)

    yield show


@contextmanager
def reading(file: BinaryIO, what: str) -> Iterator[BinaryIO]:
    """`file`, with a bar of how much of it was read where there is a terminal and it has a size."""
    status = os.fstat(file.fileno())
    if not sys.stderr.isatty() or not stat.S_ISREG(status.st_mode):
        yield file
        return
    from rich.console import Console
    from rich.progress import wrap_file

    with wrap_file(file, status.st_size, description=what, console=Console(stderr=True), transient=True) as wrapped:
        yield wrapped


def short(object_id: str) -> str:
    """An id as it is shown: 12 characters, without the digest's algorithm."""
    return object_id.removeprefix("sha256:")[:12]


def age(stamp: str | int | float) -> str:
    """How long ago: `stamp` is RFC 3339 or seconds since the epoch."""
    if isinstance(stamp, str):
        text = stamp.split(".")[0].rstrip("Z")
        then = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
    else:
        then = datetime.datetime.fromtimestamp(stamp, datetime.UTC)
    seconds = max(0, int((datetime.datetime.now(datetime.UTC) - then).total_seconds()))
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {word}{'s' if count != 1 else ''} ago"
    return "just now"


def pairs(words: Sequence[str], what: str) -> dict[str, str]:
    """`key=value` words as a dictionary; a word without `=` has an empty value."""
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if not key:
            raise click.BadParameter(f"{word!r} is no {what}: write key=value")
        found[key] = value
    return found


def size(word: str | None) -> int | None:
    """Bytes out of `512m`, `2g`, `100000`; None stays None."""
    if word is None:
        return None
    units = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    digits = word.lower().removesuffix("b") if word[-1:] in "bB" and word[-2:-1].isalpha() else word.lower()
    unit = units.get(digits[-1:], 0)
    try:
        return int(float(digits[:-1]) * unit) if unit else int(digits)
    except ValueError:
        raise click.BadParameter(f"{word!r} is no size: write 512m or 2g") from None
