"""The command `python -m shoal.manager` (also `shoald manager`): one manager process.

    init   makes a swarm of this host alone; an InitRequest (JSON) comes on standard input
    join   takes part with the certificate that this host was given
    run    takes part again with what is on disk

It ends with a plain sentence on standard error where it cannot go on: the daemon shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.api.membership import InitRequest
from shoal.manager.logfile import BoundedLog

if TYPE_CHECKING:
    from shoal.manager.store.raft import RaftTiming

log = logging.getLogger(__name__)

ELECTION_S = (0.1, 60.0)
MAX_REQUEST_BYTES = 1 << 20


def main() -> None:
    """Run until SIGTERM, SIGINT or `/internal/stop`."""
    parser = argparse.ArgumentParser(prog="shoald manager", description="The manager process of a host in a swarm.")
    parser.add_argument("command", choices=("init", "join", "run"))
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--run-root", type=Path, required=True)
    parser.add_argument("--election-timeout", type=float, metavar="SECONDS",
                        default=os.environ.get("SHOAL_ELECTION_TIMEOUT", "0.6"),
                        help="a leader that is silent for this long, up to twice as long, is replaced (default 0.6)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    given = parser.parse_args()
    set_up_logging(given.log_level)
    import uvloop

    try:
        uvloop.run(serve(given.command, given.data_root, given.run_root, given.election_timeout))
    except asyncio.CancelledError:
        return  # asked to end before it had begun
    except Exception as error:
        sys.exit(last_words(error))


async def serve(command: str, data_root: Path, run_root: Path, election_s: float) -> None:
    """Raises ShoalError, alone or in a group, where this manager cannot go on."""
    from shoal.manager.hostfolder import HostFolder
    from shoal.manager.manager import Manager, found, take_up

    timing = timing_of(election_s)
    allow_many_connections()
    loop, beginning = asyncio.get_running_loop(), asyncio.current_task()
    assert beginning is not None
    loop.set_exception_handler(report)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, beginning.cancel)
    folder = HostFolder(data_root)
    folder.lock()
    manager: Manager
    if command == "init":
        manager = await found(folder, run_root, read_request(), timing)
    else:
        manager = await take_up(folder, run_root, timing)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, manager.end)
    try:
        await manager.run()
    finally:
        await manager.close()
        log.info("event=stopped")


def timing_of(election_s: float) -> RaftTiming:
    """Raft's timing for an election timeout. Raises InvalidArgument."""
    from shoal.manager.store.raft import RaftTiming

    if not ELECTION_S[0] <= election_s <= ELECTION_S[1]:
        raise InvalidArgument(f"the election timeout has to be between {ELECTION_S[0]:g} and {ELECTION_S[1]:g} s, "
                              f"not {election_s:g}")
    return RaftTiming(election_min_s=election_s, election_max_s=2 * election_s, heartbeat_s=election_s / 6)


def allow_many_connections() -> None:
    """As many open files as this process may have: each node of the swarm holds a session."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def read_request() -> InitRequest:
    """Raises InvalidArgument."""
    data = sys.stdin.buffer.read(MAX_REQUEST_BYTES)
    try:
        return msgspec.json.decode(data, type=InitRequest)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"standard input holds no request to make a swarm: {error}") from error


def report(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What nobody was there to handle."""
    error = context.get("exception")
    log.warning("event=unhandled what=%s error=%s", context.get("message"), error,
                exc_info=error if isinstance(error, Exception) and not isinstance(error, OSError) else None)


def last_words(error: BaseException) -> str:
    """The sentence to end with; whatever is not a ShoalError is a bug and gets its traceback before it."""
    while isinstance(error, BaseExceptionGroup):
        error = next((each for each in error.exceptions if not isinstance(each, ShoalError)), error.exceptions[0])
    if isinstance(error, ShoalError):
        return error.message
    log.critical("event=failed", exc_info=error)
    return f"the manager failed: {str(error) or type(error).__name__}"


def set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), handlers=[BoundedLog()], datefmt="%Y-%m-%dT%H:%M:%S",
        format="%(asctime)s.%(msecs)03d level=%(levelname)s logger=%(name)s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(shorten)


def shorten(record: logging.LogRecord) -> bool:
    """A request that is no HTTP is one line, not a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if type(error).__module__ == "aiohttp.http_exceptions":
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
        record.msg, record.args = "event=request-dropped why=%.200s", (" ".join(str(error).split()),)
    return True
