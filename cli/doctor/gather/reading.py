"""Files and programs as text; "" where they cannot be read or fail."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

PROGRAM_TIMEOUT_S = 5


def text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def unpacked(path: Path) -> str:
    try:
        return gzip.decompress(path.read_bytes()).decode(errors="replace")
    except OSError:
        return ""


def sysctl(name: str) -> str:
    return text(Path("/proc/sys", name.replace(".", "/"))).strip()


def output(command: list[str]) -> str:
    """What a program says on its standard output."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True, errors="replace", timeout=PROGRAM_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
