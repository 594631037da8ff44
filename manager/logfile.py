"""The process's log on standard error, kept within bounds where that is a file.

The daemon opens the file and hands it down; it is not reopened for as long as the process
runs. So what was written is copied aside, and the file cut to nothing in place.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 8 << 20
"""Of one file; the one before it is kept beside it as `.1`."""

LOOK_EVERY = 200
"""Records between two looks at its size."""


class BoundedLog(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to standard error (or another descriptor that is open for appending)."""

    def __init__(self, descriptor: int = 2, max_bytes: int = MAX_BYTES, look_every: int = LOOK_EVERY) -> None:
        super().__init__(sys.stderr if descriptor == 2 else os.fdopen(os.dup(descriptor), "w"))
        self._descriptor, self._max_bytes, self._look_every = descriptor, max_bytes, look_every
        self._records = 0

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        self._records += 1
        if self._records % self._look_every == 0:
            with suppress(OSError):  # a log that cannot be cut is no reason to end
                self._cut()

    def _cut(self) -> None:
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size <= self._max_bytes:
            return
        path = Path(f"/proc/self/fd/{self._descriptor}").readlink()
        shutil.copyfile(path, f"{path}.1")
        os.ftruncate(self._descriptor, 0)
