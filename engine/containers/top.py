"""The processes of a container, as `ps` on the host shows them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection

from shoal.api.errors import InvalidArgument, ShoalError

_PID_TITLE = "PID"
_FORBIDDEN = re.compile(r"(?:^|\s)\w*o[a-z,]*=")  # a renamed column may pose as the PID
TIMEOUT_S = 10


def run(arguments: str, pids: Collection[int]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of those processes. Blocking. Raises InvalidArgument where ps refuses or shows no PID."""
    if _FORBIDDEN.search(arguments):
        raise InvalidArgument(f'specifying "{arguments}" is not allowed: columns cannot be renamed')
    try:
        done = subprocess.run(["ps", *arguments.split()], capture_output=True, text=True, errors="replace",
                              timeout=TIMEOUT_S)
    except FileNotFoundError as error:
        raise ShoalError("ps is not installed on this host") from error
    if done.returncode:
        raise InvalidArgument(f"Error running ps: {done.stderr.strip() or done.returncode}")
    return parse(done.stdout, pids)


def parse(output: str, pids: Collection[int]) -> tuple[list[str], list[list[str]]]:
    """Pure. The last column takes what is left of a line."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if _PID_TITLE not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index(_PID_TITLE)
    rows = []
    for line in lines[1:]:
        words = line.split(None, len(titles) - 1)
        if len(words) > column and words[column].isdecimal() and int(words[column]) in pids:
            rows.append(words)
    return titles, rows
