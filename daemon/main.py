"""The command `shoald`: settings, logging, signals. What a host consists of is in `daemon`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from shoal.api.errors import ShoalError
from shoal.daemon.memory import give_back_early
from shoal.daemon.notify import Notifier
from shoal.daemon.settings import Settings, from_arguments


def main() -> None:
    """Run until SIGTERM or SIGINT. Containers live on, unless systemd takes the host down."""
    if sys.argv[1:2] == ["manager"]:
        from importlib import import_module

        sys.argv = [f"{sys.argv[0]} manager", *sys.argv[2:]]
        import_module("shoal.manager.main").main()  # a process of its own, which knows nothing of a daemon
        return
    try:
        settings = from_arguments()
        _set_up_logging(settings.log_level)
        give_back_early()
        import uvloop

        uvloop.run(run(settings))
    except ShoalError as error:
        sys.exit(f"shoald: {error.message}")


async def run(settings: Settings) -> None:
    """Serve until a signal asks to stop."""
    from shoal.daemon.daemon import Daemon

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    systemd = Notifier()
    daemon = Daemon(settings, systemd)
    try:
        await daemon.start()
        systemd.notify("READY=1")
        await stop.wait()
    finally:
        systemd.notify("STOPPING=1")
        await daemon.stop()


def _set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s.%(msecs)03d level=%(levelname)s logger=%(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
