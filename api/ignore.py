"""Patterns of paths, as .dockerignore and the sources of COPY have them. Pure.

Source: Docker's documentation of .dockerignore; Go's filepath.Match.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from shoal.api.errors import InvalidArgument


def read_patterns(text: str) -> list[str]:
    """The patterns of a .dockerignore: comments and empty lines left out, each cleaned as a path."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#") or not (pattern := line.strip()):
            continue
        exception = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip()
        if not pattern:
            raise InvalidArgument('illegal exclusion pattern: "!"')
        cleaned = posixpath.normpath(pattern).lstrip("/") if pattern != "/" else "."
        patterns.append(("!" if exception else "") + (cleaned or "."))
    return patterns


class Ignored:
    """Answers whether paths are left out. The last pattern that speaks of a path, or of a folder above it, decides."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [(re.compile(_regex(pattern.removeprefix("!"), stars_cross=True)), not pattern.startswith("!"))
                       for pattern in patterns]
        self.has_exceptions = any(not excludes for _, excludes in self._rules)

    def __contains__(self, path: str) -> bool:
        if not self._rules:
            return False
        parts = path.strip("/").split("/")
        prefixes = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        left_out = False
        for rule, excludes in self._rules:
            if left_out != excludes and any(rule.fullmatch(prefix) for prefix in prefixes):
                left_out = excludes
        return left_out


def has_wildcards(text: str) -> bool:
    return re.search(r"(?<!\\)(?:\\\\)*[*?\[]", text) is not None


def wildcard(pattern: str) -> re.Pattern[str]:
    """Go's filepath.Match: `*` and `?` do not cross a slash. Raises InvalidArgument for a malformed class."""
    return re.compile(_regex(pattern, stars_cross=False))


def _regex(pattern: str, *, stars_cross: bool) -> str:
    out, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*" and stars_cross and pattern[at : at + 1] == "*":
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
            out += ".*" if at >= len(pattern) else "(?:.*/)?"
        elif character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[":
            kind, at = _class(pattern, at)
            out += kind
        elif character == "\\" and at < len(pattern):
            out += re.escape(pattern[at])
            at += 1
        else:
            out += re.escape(character)
    return out


def _class(pattern: str, at: int) -> tuple[str, int]:
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges, begin = "", at
    while at < len(pattern) and (pattern[at] != "]" or at == begin):
        if pattern[at] == "\\" and at + 1 < len(pattern):
            at += 1
        elif pattern[at] == "-" and begin < at < len(pattern) - 1 and pattern[at + 1] != "]":
            ranges += "-"
            at += 1
            continue
        ranges += re.escape(pattern[at])
        at += 1
    if at >= len(pattern) or at == begin:
        raise InvalidArgument(f"syntax error in pattern: {pattern}")
    try:
        re.compile(f"[{ranges}]")
    except re.error:
        raise InvalidArgument(f"syntax error in pattern: {pattern}") from None
    return f"(?!/)[{'^' if negated else ''}{ranges}]", at + 1
