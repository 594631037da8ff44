"""The programs and libraries that Shoal stands on."""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from shoal.cli.doctor.facts import Program, Trial
from shoal.cli.doctor.gather.reading import output

VERSIONED = ("conmon", "catatonit", "runc", "crun")
PROGRAMS = (*VERSIONED, "nsenter", "ip")
SECCOMP_PROFILE = Path("/usr/share/containers/seccomp.json")


def programs() -> dict[str, Program]:
    return {name: _program(name) for name in PROGRAMS}


def _program(name: str) -> Program:
    path = shutil.which(name)
    if path is None:
        return Program()
    if name not in VERSIONED:
        return Program(path)
    version = re.search(r"\d+(?:\.\d+)+", output([path, "--version"]))
    return Program(path, version[0] if version else "")


def runtimes(installed: Mapping[str, Program]) -> tuple[Trial, ...]:
    """Each made to run a container, as the daemon would do it. Needs root."""
    from shoal.daemon.trials import try_runtimes

    return tuple(Trial(name, installed[name].version, driver, refusal)
                 for name, _, driver, refusal in try_runtimes())


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
