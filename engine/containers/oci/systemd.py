"""systemd, where it is PID 1: whether it is, and the few things of it that the runtimes leave to us. Blocking.

Scopes are made by the runtimes. They end by themselves with their last process.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from shoal.api.errors import ShoalError

TRANSIENT = Path("/run/systemd/transient")
"""Here stands a file for each transient unit that systemd has in mind."""

FORGET_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 30
_STEP_S = 0.005


def is_init() -> bool:
    """Whether it is PID 1 as this process sees it (in a lab's host it is not). As sd_booted(3), and a look at PID 1."""
    try:
        return Path("/run/systemd/system").is_dir() and Path("/proc/1/comm").read_text().strip() == "systemd"
    except OSError:
        return False


def is_going_down() -> bool:
    """Whether it is PID 1 and takes the host down: its target for that is active, or will be. systemctl(1)."""
    if not is_init():
        return False
    try:
        done = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=CALL_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == "stopping"


def set_properties(unit: str, properties: Sequence[str]) -> None:
    """Tell it of limits, so that it does not set older ones again when it reloads. Raises ShoalError."""
    if properties:
        _systemctl("set-property", "--runtime", unit, *properties)


def let_go(unit: str, transient: Path = TRANSIENT) -> None:
    """Until it has forgotten an ended unit, so that one of the same name can begin. Raises ShoalError.

    That takes it a moment; one that does not end by itself is stopped.
    """
    file = transient / unit
    deadline = time.monotonic() + FORGET_TIMEOUT_S
    while file.exists():
        if time.monotonic() > deadline:
            _systemctl("stop", unit)
            return
        time.sleep(_STEP_S)


def _systemctl(*arguments: str) -> None:
    try:
        done = subprocess.run(["systemctl", "--no-ask-password", "--quiet", *arguments], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=CALL_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ShoalError(f"systemctl {arguments[0]} failed: {error}") from error
    if done.returncode:
        raise ShoalError(f"systemctl {' '.join(arguments)} failed: {done.stderr.strip()}")
