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
import signal
import sys
from pathlib import Path

import msgspec

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.api.membership import InitRequest

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1 << 20


def main() -> None:
    """Run until SIGTERM, SIGINT or `/internal/stop`."""
    parser = argparse.ArgumentParser(prog="shoald manager", description="The manager process of a host in a swarm.")
    parser.add_argument("command", choices=("init", "join", "run"))
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--run-root", type=Path, required=True)
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    given = parser.parse_args()
    set_up_logging(given.log_level)
    import uvloop

    try:
        uvloop.run(serve(given.command, given.data_root, given.run_root))
    except asyncio.CancelledError:
        return  # asked to end before it had begun
    except Exception as error:
        sys.exit(last_words(error))


async def serve(command: str, data_root: Path, run_root: Path) -> None:
    """Raises ShoalError, alone or in a group, where this manager cannot go on."""
    from shoal.manager.hostfolder import HostFolder
    from shoal.manager.manager import Manager, found, take_up

    loop, beginning = asyncio.get_running_loop(), asyncio.current_task()
    assert beginning is not None
    loop.set_exception_handler(report)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, beginning.cancel)
    folder = HostFolder(data_root)
    folder.lock()
    manager: Manager
    if command == "init":
        manager = await found(folder, run_root, read_request())
    else:
        manager = await take_up(folder, run_root)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, manager.end)
    try:
        await manager.run()
    finally:
        await manager.close()
        log.info("event=stopped")


def read_request() -> InitRequest:
    """Raises InvalidArgument."""
    data = sys.stdin.buffer.read(MAX_REQUEST_BYTES)
    try:
        return msgspec.json.decode(data, type=InitRequest)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"standard input holds no request to make a swarm: {error}") from error


def report(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What ended a connection before anybody could handle it: garbage, a foreign certificate."""
    error = context.get("exception")
    log.warning("event=connection-dropped what=%s error=%s", context.get("message"), error,
                exc_info=error if not isinstance(error, OSError) and isinstance(error, BaseException) else None)


def last_words(error: BaseException) -> str:
    """The sentence to end with; whatever is not a ShoalError is a bug and gets its traceback before it."""
    while isinstance(error, BaseExceptionGroup):
        error = next((each for each in error.exceptions if not isinstance(each, ShoalError)), error.exceptions[0])
    if isinstance(error, ShoalError):
        return error.message
    log.critical("event=failed", exc_info=error)
    return f"the manager failed: {error or type(error).__name__}"


def set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, datefmt="%Y-%m-%dT%H:%M:%S",
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
