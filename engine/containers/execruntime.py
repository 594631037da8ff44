"""The runtime as the way into a container: `runc exec`, which starts the program and leaves.

It gets our pipes, or sends us the terminal that it made; the program becomes this process's child (a subreaper).
So does what crun leaves of itself in the container where it fails: dead, and not reaped, it would keep the container
from ending.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import Any

import msgspec

from shoal.api.errors import ShoalError
from shoal.engine.containers.files import write_bytes
from shoal.engine.containers.nouns import Container
from shoal.engine.containers.oci.monitor import RuntimeFailed
from shoal.engine.containers.oci.process import Handle, children_in_containers, start_child
from shoal.engine.containers.oci.runtime import Runtime
from shoal.engine.containers.stdio.execstdio import ExecStdio

START_TIMEOUT_S = 60
REAP_TIMEOUT_S = 5

_PR_SET_CHILD_SUBREAPER = 36


class RuntimeEntry:
    """Implements `execs.Entry`. `root` is for the files of those that are starting."""

    def __init__(self, root: Path, runtime: Runtime) -> None:
        self._root = root
        self._runtime = runtime
        self._starting = 0
        self._failed = False  # some start has, and what it left is not reaped yet
        self._programs: dict[int, Handle] = {}
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(mode=0o700, parents=True)

    def forget(self, container_id: str) -> None:
        return

    async def close(self) -> None:
        return

    def prepare(
        self, container: Container, exec_id: str, process: Mapping[str, Any], home: str
    ) -> Callable[[ExecStdio], Awaitable[Handle]]:
        """See `execs.Entry`. The runtime finds the user's home by itself."""
        folder = self._root / exec_id[:16]
        folder.mkdir(mode=0o700)
        write_bytes(folder / "process.json", msgspec.json.encode(process))
        return partial(self._start, container.id, bool(process["terminal"]), folder)

    async def _start(self, container_id: str, tty: bool, folder: Path, stdio: ExecStdio) -> Handle:
        self._starting += 1
        try:
            handle = await self._run(container_id, tty, folder, stdio)
            self._programs = {one.pid: one for one in (*self._programs.values(), handle) if one.fd >= 0}
            return handle
        except BaseException:
            self._failed = True
            raise
        finally:
            self._starting -= 1
            await self._reap()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _reap(self) -> None:
        """End what starts that failed have left in containers: the runtime itself there, held by nobody.

        Not while some start is under way, whose program nobody holds yet; its end comes here too.
        """
        if self._starting or not self._failed:
            return
        self._failed = False
        held = {handle.pid for handle in self._programs.values() if handle.fd >= 0}
        for handle in [Handle(pid) for pid in children_in_containers(self._runtime.name) if pid not in held]:
            handle.signal(SIGKILL)
            try:
                async with asyncio.timeout(REAP_TIMEOUT_S):
                    await handle.wait()
                handle.exit_code()
            except TimeoutError:
                self._failed = True  # the kernel holds it: tried again after the next start
            finally:
                handle.close()

    async def _run(self, container_id: str, tty: bool, folder: Path, stdio: ExecStdio) -> Handle:
        _become_subreaper()
        command = [self._runtime.path, f"--root={self._runtime.root}", f"--log={folder / 'log'}", "--log-format=json",
                   "exec", "--detach", "--pid-file", str(folder / "pid"), "--process", str(folder / "process.json")]
        if tty:
            with stdio.listen(folder / "console") as listener:
                place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    command += ["--tty", "--console-socket", f"/proc/self/fd/{place}/console", container_id]
                    terminal = asyncio.ensure_future(stdio.accept_terminal(listener))
                    try:
                        await self._wait_runtime(command, (subprocess.DEVNULL,) * 3, (place,), folder)
                        await terminal
                    finally:
                        terminal.cancel()
                finally:
                    os.close(place)
        else:
            await self._wait_runtime([*command, container_id], stdio.open_pipes(), (), folder)
            stdio.close_theirs()
        return Handle(int((folder / "pid").read_text()))

    async def _wait_runtime(
        self, command: list[str], ends: tuple[int, int, int], passed: tuple[int, ...], folder: Path
    ) -> None:
        """Run the runtime to its end. Raises RuntimeFailed."""
        runtime = await start_child(lambda: subprocess.Popen(
            command, stdin=ends[0], stdout=ends[1], stderr=ends[2], pass_fds=passed))
        handle = Handle(runtime.pid)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await handle.wait()
        except BaseException as error:
            handle.signal(SIGKILL)
            await handle.wait()
            if isinstance(error, TimeoutError):
                raise RuntimeFailed(f"the runtime did not start the exec in {START_TIMEOUT_S} s") from error
            raise
        finally:
            code = runtime.wait()
            handle.close()
        if code:
            raise RuntimeFailed(_last_error(folder / "log"))


def _last_error(log: Path) -> str:
    """The last error of a runtime's log of JSON lines."""
    message = "it left no message"
    try:
        lines = log.read_bytes().splitlines()
    except FileNotFoundError:
        return message
    for line in lines:
        try:
            entry: dict[str, Any] = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if entry.get("level") in ("error", "fatal"):
            message = str(entry.get("msg", message))
    return message


def _become_subreaper() -> None:
    """Adopt the orphans among our descendants: the programs that the runtime leaves behind when it is done."""
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise ShoalError("cannot become a subreaper")
