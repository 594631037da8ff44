"""File systems of volumes, mounted and unmounted by mount(8) and umount(8), which know the options of each.

They are processes of their own, for the kernel waits for a server that is silent: as long
as it likes, and not always so that a signal ends it. No thread of this process waits with
it. What has not ended by its deadline is left to itself, and known.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.engine.volumes import options as rules
from shoal.engine.volumes.background import Background
from shoal.engine.volumes.content import read_all

log = logging.getLogger(__name__)

MOUNT_TIMEOUT_S = 60.0
UNMOUNT_TIMEOUT_S = 10.0
RESOLVE_TIMEOUT_S = 10
_LOOK_S = 0.1
_HINT = "dmesg(1) may have more information after failed mount system call."


def is_mounted(place: Path) -> bool:
    """Asked of the kernel's table: a look at the place itself would wait for a server that does not answer."""
    wanted = str(place).replace("\\", "\\134").replace(" ", "\\040")
    return any(line.split(" ", 5)[4] == wanted for line in Path("/proc/self/mountinfo").read_text().splitlines())


class Mounter:
    """Invariant: a mount that was given up and comes about all the same is taken away before the next one begins."""

    def __init__(
        self, *, mounted: Callable[[Path], bool] = is_mounted, mount_timeout_s: float = MOUNT_TIMEOUT_S,
        unmount_timeout_s: float = UNMOUNT_TIMEOUT_S,
    ) -> None:
        self._mounted = mounted
        self._mount_timeout_s = mount_timeout_s
        self._unmount_timeout_s = unmount_timeout_s
        self._given_up: dict[Path, asyncio.Task[None]] = {}
        self._background = Background()

    async def mount(self, options: Mapping[str, str], place: Path) -> None:
        """Unless something is mounted there. Raises ShoalError; nothing is mounted then, nor will be."""
        await self._settle(place)
        if await asyncio.to_thread(self._mounted, place):
            return
        named = rules.address_of(options)
        command = rules.mount_command(options, str(place), await _resolve(named) if named else "")
        program = _Program(self._background, *command)
        try:
            done, _ = await asyncio.wait([program.ending], timeout=self._mount_timeout_s)
        finally:
            if not program.ending.done():
                program.kill()
                self._given_up[place] = self._background.begin(self._take_away(program, place))
        if not done:
            raise ShoalError(f"failed to mount local volume: {options['device']} was not mounted in "
                             f"{self._mount_timeout_s:g} s")
        code, said = program.ending.result()
        if code:
            why = rules.without_passwords(said.replace(_HINT, "").strip()) or options["device"]
            raise ShoalError(f"failed to mount local volume: {why}")

    async def unmount(self, place: Path) -> None:
        """Whatever is mounted there. It goes at once; what its server has still to be told may take longer.

        Raises ShoalError where it stays.
        """
        await self._settle(place)
        await self._detach(place)

    async def _detach(self, place: Path) -> None:
        while await asyncio.to_thread(self._mounted, place):
            ending = self._background.begin(self._unmount(place))
            while not ending.done():  # it is gone long before a server that is silent lets umount(8) go
                await asyncio.wait([ending], timeout=_LOOK_S)
                if not await asyncio.to_thread(self._mounted, place):
                    return
            code, said = ending.result()
            if code:
                raise ShoalError(f"failed to unmount local volume: {said.strip()}")

    async def _unmount(self, place: Path) -> tuple[int, str]:
        # lazily; with no helper and without a look at the place, either of which might wait for the server
        program = _Program(self._background, "umount", "-l", "-i", "-c", "--", str(place))
        if (await asyncio.wait([program.ending], timeout=self._unmount_timeout_s))[0]:
            return program.ending.result()
        program.kill()
        return -1, f"{place} is still mounted after {self._unmount_timeout_s:g} s"

    async def _take_away(self, program: _Program, place: Path) -> None:
        """Once that mount has ended, well or not."""
        try:
            await program.ending
            await self._detach(place)
        except ShoalError as error:
            log.warning("event=late-mount-not-unmounted place=%s error=%s", place, error)
        finally:
            del self._given_up[place]

    async def _settle(self, place: Path) -> None:
        """Raises ShoalError while a mount that was given up has not ended."""
        late = self._given_up.get(place)
        if late is not None and not (await asyncio.wait([late], timeout=self._unmount_timeout_s))[0]:
            raise ShoalError(f"mount(8) at {place} was given up, and has not ended yet")

    async def close(self) -> None:
        """What is not done yet goes on, unknown to anybody."""
        await self._background.close()


class _Program:
    """A process in a session of its own, begun and waited for behind whoever wants it, who may go at any moment.

    `ending`: its exit code and what it complains of. Raises ShoalError where there is no such program.
    """

    def __init__(self, background: Background, *command: str) -> None:
        self._process: Process | None = None
        self._killed = False
        self.ending = background.begin(self._run(command))

    async def _run(self, command: Sequence[str]) -> tuple[int, str]:
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}, cwd="/", start_new_session=True)
        except OSError as error:
            raise ShoalError(f"{command[0]}(8) cannot be run: {error.strerror}") from error
        if self._killed:
            self.kill()
        assert process.stderr is not None
        said = await read_all(process.stderr)  # to the end of its helpers, too, which hold its output
        return await process.wait(), said.decode(errors="replace")

    def kill(self) -> None:
        """With its helpers. What hangs in the kernel may not die."""
        self._killed = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


async def _resolve(named: str) -> str:
    """An address of the server, IPv4 first, as Docker has it. Raises ShoalError."""
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(named, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise ShoalError(f"failed to mount local volume: error resolving passed in network volume address {named}: "
                         f"{error or 'no answer'}") from error
    return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])
