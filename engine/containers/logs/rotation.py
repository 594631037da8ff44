"""Logs that outgrow `max-size` are put aside: log → log.1 → log.2 …, at most `max-file` files in all.

The rename comes first, then conmon is told to open its log again: until it does, it
writes to the file that was put aside, so no line is lost (see docs/adr/0005).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.containers.logs import reader
from shoal.engine.containers.nouns import LogConfig
from shoal.engine.containers.oci.monitor import REOPEN_LOG, Monitor

PERIOD_S = 2.0
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
OPTIONS = ("max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode",
           "max-buffer-size")


def limits(config: LogConfig) -> tuple[int, int]:
    """Bytes of one file (0: no limit) and the number of files. Raises InvalidArgument."""
    options = config.options
    for key in options:
        if key not in OPTIONS:
            raise InvalidArgument(f"unknown log opt '{key}' for {config.driver or 'json-file'} log driver")
    size = options.get("max-size", "-1" if config.driver != "local" else "20m")
    files = options.get("max-file", "1" if config.driver != "local" else "5")
    if not files.isdecimal() or int(files) < 1:
        raise InvalidArgument(f"invalid log opt max-file: {files}")
    if size == "-1":
        return 0, 1
    found = _SIZE.match(size)
    if found is None or not float(found[1]):
        raise InvalidArgument(f"invalid log opt max-size: {size}")
    return int(float(found[1]) * _UNITS[found[2].lower()]), int(files)


def rotate(folder: Path, max_files: int, reopen: Callable[[], None]) -> None:
    """Put the log aside and have it opened anew; the oldest beyond `max_files` goes."""
    for number in range(max_files - 2, 0, -1):
        older = folder / f"{reader.NAME}.{number}"
        if older.exists():
            older.rename(folder / f"{reader.NAME}.{number + 1}")
    aside = folder / f"{reader.NAME}.1"
    (folder / reader.NAME).rename(aside)
    try:
        reopen()
    except ShoalError:
        aside.rename(folder / reader.NAME)
        raise
    if max_files == 1:
        aside.unlink()


class Rotation:
    """Looks at the logs that have a limit, every so often. `running`: (limit config, folder, monitor) of each."""

    def __init__(self, running: Callable[[], Iterable[tuple[LogConfig, Path, Monitor]]]) -> None:
        self._running = running
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            for config, folder, monitor in self._running():
                check(config, folder, monitor)


def check(config: LogConfig, folder: Path, monitor: Monitor) -> None:
    """Rotate one log, if it is too large."""
    size, files = limits(config)
    try:
        if size and not monitor.program_ended and (folder / reader.NAME).stat().st_size > size:
            rotate(folder, files, lambda: monitor.control(REOPEN_LOG))
    except (FileNotFoundError, ShoalError):
        return  # it has just ended
