"""What a check comes to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Level(StrEnum):
    """A problem: something that Shoal needs is not there. A warning: something works less well, or may fail later."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """`found`: what is there. `means` and `remedy`: what follows from it and what to do, where it is not ok."""

    check: str
    level: Level
    found: str
    means: str = ""
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Level.OK, found)


def warning(check: str, found: str, means: str, remedy: str = "") -> Finding:
    return Finding(check, Level.WARNING, found, means, remedy)


def problem(check: str, found: str, means: str, remedy: str = "") -> Finding:
    return Finding(check, Level.PROBLEM, found, means, remedy)


def summary(findings: Iterable[Finding]) -> str:
    """How many of each, in words."""
    counts = dict.fromkeys(Level, 0)
    for finding in findings:
        counts[finding.level] += 1
    words = [f"{counts[level]} {level.value}{'s' if counts[level] != 1 else ''}"
             for level in (Level.PROBLEM, Level.WARNING) if counts[level]]
    return ", ".join(words) or "nothing is missing"
