"""Processes that this one may not have started: named without a race, waited for without polling."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_NAME_LENGTH = 15
"""So much of a program's name the kernel keeps."""


def start_ticks(pid: int) -> int:
    """When the process started, in ticks since the boot; 0 where there is none. With the pid it names a process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def with_argument(argument: str) -> Iterator[int]:
    """The processes that have `argument` on their command line."""
    wanted = os.fsencode(argument)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                    yield int(entry.name)


def children_in_containers(name: str) -> list[int]:
    """This process's children of that name, dead ones too, that are in PID namespaces below its own."""
    _, own = _name_and_depth("self")
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # that thread has ended
            found += children.read_text().split()
    return [int(pid) for pid in found for its_name, depth in (_name_and_depth(pid),)
            if its_name == name[:_NAME_LENGTH] and depth > own]


def _name_and_depth(pid: str) -> tuple[str, int]:
    """In how many PID namespaces, each within the last, it has a number."""
    try:
        lines = Path("/proc", pid, "status").read_text(errors="replace").splitlines()
    except OSError:
        return "", 0
    values = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    return " ".join(values["Name"]), len(values.get("NSpid", ()))


async def start_child(begin: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """The child that `begin` starts, in a thread. Where the caller is cancelled meanwhile, none is left."""
    starting = asyncio.ensure_future(asyncio.to_thread(begin))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_end)
        await asyncio.wait([starting])  # what it is given, the caller may close now
        raise


def _end(starting: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        with starting.result() as child:  # waits for it
            child.kill()


class Handle:
    """A process held by a pidfd: what is signalled is that process, never one that took its number."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError."""
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        self._ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._fd, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait(self) -> None:
        """Until it has ended."""
        await asyncio.shield(self._ended)

    def when_ended(self, callback: Callable[[], None]) -> None:
        self._ended.add_done_callback(lambda done: None if done.cancelled() else callback())

    @property
    def fd(self) -> int:
        """The pidfd; -1 once it is closed."""
        return self._fd

    @property
    def ended(self) -> bool:
        return self._ended.done()

    def signal(self, number: int) -> None:
        """No error where it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def exit_code(self) -> int:
        """The exit code of a child that has ended, which is thereby reaped; -1 where it is not ours."""
        try:
            result = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return -1
        if result is None:
            return -1
        return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._ended.cancel()
