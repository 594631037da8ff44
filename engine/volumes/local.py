"""The `local` driver: folders that outlive containers, and file systems that are mounted at them.

    <root>/<name>/_data          what containers see

Options `type`, `device` and `o` are mounted at `_data` while somebody holds the volume.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.engine.storage.mount import unmount
from shoal.engine.volumes import options as rules
from shoal.engine.volumes.content import read_all
from shoal.engine.volumes.nouns import LOCAL, Told, Volume

MOUNT_TIMEOUT_S = 60
RESOLVE_TIMEOUT_S = 10


class LocalDriver:
    """See the module."""

    name = LOCAL

    def __init__(self, root: Path) -> None:
        self._root = root

    async def scope(self) -> str:
        return "local"

    def check(self, name: str, options: dict[str, str]) -> None:
        rules.check_name(name)
        rules.check_options(name, options)

    def mounts(self, volume: Volume) -> bool:
        return rules.is_file_system(volume.options)

    def place(self, name: str) -> Path:
        return self._root / name / "_data"

    async def create(self, name: str, options: dict[str, str]) -> None:
        try:
            await asyncio.to_thread(_make, self.place(name))
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, self._root / name, ignore_errors=True)
            raise ShoalError(f"create {name}: {error}") from error

    async def remove(self, name: str) -> None:
        """What is mounted at it. Its folder goes with its record (`sweep`)."""
        try:
            await asyncio.to_thread(_detach, self.place(name))
        except OSError as error:
            raise ShoalError(f"remove {name}: {error}") from error

    def sweep(self, name: str) -> None:
        """Delete the folder; never what is mounted in it. Blocking. Raises OSError."""
        _detach(self.place(name))
        shutil.rmtree(self._root / name, ignore_errors=True)

    async def get(self, name: str) -> Told | None:
        place = self.place(name)
        return Told(name=name, mountpoint=str(place)) if place.parent.is_dir() else None

    async def list(self) -> list[Told]:
        return [Told(name=each.name, mountpoint=str(each / "_data")) for each in self._root.iterdir()]

    async def mount(self, volume: Volume, holder: str) -> str:
        place = self.place(volume.name)
        if self.mounts(volume) and not await asyncio.to_thread(is_mounted, place):
            await _mount(volume, place)
        return str(place)

    async def unmount(self, volume: Volume, holder: str, *, last: bool) -> None:
        if last and self.mounts(volume):
            await asyncio.to_thread(unmount, self.place(volume.name))


def is_mounted(place: Path) -> bool:
    """Asked of the kernel's table: a look at the place itself would wait for a server that does not answer."""
    wanted = str(place).replace("\\", "\\134").replace(" ", "\\040")
    return any(line.split(" ", 5)[4] == wanted for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _detach(place: Path) -> None:
    while unmount(place):
        pass
    if is_mounted(place):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(place))


def _make(place: Path) -> None:
    place.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.chmod(0o755)
    place.parent.chmod(0o701)


async def _mount(volume: Volume, place: Path) -> None:
    """By mount(8), which knows the options of every file system, in a process of its own: servers may be silent."""
    address = ""
    if named := rules.address_of(volume.options):
        address = await _resolve(named)
    command = rules.mount_command(volume.options, str(place), address)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"})
    assert process.stderr is not None
    try:
        async with asyncio.timeout(MOUNT_TIMEOUT_S):
            said = await read_all(process.stderr)
            code = await process.wait()
    except TimeoutError:
        raise ShoalError(f"failed to mount local volume: {volume.options['device']} was not mounted in "
                         f"{MOUNT_TIMEOUT_S} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()  # and no wait: a mount that hangs may not die either
    if code:
        why = rules.without_passwords(said.decode(errors="replace").strip()) or volume.options["device"]
        raise ShoalError(f"failed to mount local volume: {why}")


async def _resolve(named: str) -> str:
    """An address of the server, IPv4 first, as Docker has it. Raises ShoalError."""
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(named, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise ShoalError(f"failed to mount local volume: error resolving passed in network volume address {named}: "
                         f"{error or 'no answer'}") from error
    return str(min(found, key=lambda each: each[0] != socket.AF_INET)[4][0])
