"""The locks on a host's roots: a second daemon on either of them is refused."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shoal.api.errors import Conflict


class RootLock:
    """An flock on `<root>/<name>`, held until released or the process ends."""

    def __init__(self, root: Path, name: str = "shoald.lock") -> None:
        """Takes the lock. Raises Conflict naming the holder."""
        self._path = root / name
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise Conflict(
                f"{root} is in use by another shoald (pid {holder or 'unknown'}): "
                "stop it, or choose other roots"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)
