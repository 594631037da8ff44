"""The manager process of this host: started apart from the daemon, so that it outlives it, and found again.

It speaks on a private socket in the run root. Whoever answers there is it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
import msgspec

from shoal.api.errors import ShoalError, Unavailable
from shoal.api.membership import InitRequest, ManagerInfoReply

log = logging.getLogger(__name__)

SOCKET, LOG = "manager.sock", "manager.log"
READY_TIMEOUT_S = 60.0
"""A slow host needs most of it to start, and a long election timeout the rest. Who ended is noticed at once."""
CALL_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 5.0
PROGRAM = (sys.executable, "-m", "shoal.manager")
_POLL_S = 0.02


class ManagerProcess:
    """At most one on a host: it holds a lock of its own."""

    def __init__(self, data_root: Path, run_root: Path, program: Sequence[str] = PROGRAM) -> None:
        self._program = program
        self._data_root = data_root
        self._run_root = run_root
        self.socket = run_root / SOCKET
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._client: aiohttp.ClientSession | None = None

    def client(self) -> aiohttp.ClientSession:
        """An HTTP client of the private socket."""
        if self._client is None or self._client.closed:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self.socket), limit=0), auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=CALL_TIMEOUT_S))
        return self._client

    async def close(self) -> None:
        """Let go of it; it goes on."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def spawn(self, command: str, request: InitRequest | None = None) -> None:
        """Start it with `init`, `join` or `run`. See `ready`."""
        arguments = [*self._program, command,
                     "--data-root", str(self._data_root), "--run-root", str(self._run_root)]
        self.socket.unlink(missing_ok=True)
        with (self._run_root / LOG).open("ab") as output:
            self._log_start = output.tell()
            child = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True, cwd="/")
        assert child.stdin is not None
        with suppress(BrokenPipeError), child.stdin as given:
            if request is not None:
                given.write(msgspec.json.encode(request))
        self._child = child
        log.info("event=manager-started command=%s pid=%d", command, child.pid)

    async def ready(self, timeout_s: float = READY_TIMEOUT_S) -> ManagerInfoReply:
        """Wait until it serves and knows a leader. Raises ShoalError with what it said where it ended."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            if self._child is not None and self._child.poll() is not None:
                raise ShoalError(self._last_words())
            info = await self.info()
            if info is not None and info.is_ready:
                return info
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable("the manager is not ready in time: no leader could be heard")
            await asyncio.sleep(_POLL_S)  # another process: there is nothing to wait on

    async def info(self) -> ManagerInfoReply | None:
        """What it says of itself; None where it does not answer."""
        if not self.socket.exists():
            return None
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S), self.client().get("http://manager/internal/info") as answer:
                if answer.status != 200:
                    return None
                return msgspec.msgpack.decode(await answer.read(), type=ManagerInfoReply)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError):
            return None

    async def ended(self, pid: int) -> None:
        """Return once the process `pid` has ended."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            if self._child is not None and self._child.pid == pid:
                self._child.poll()

    async def pid(self) -> int | None:
        """Of the process that runs, if any."""
        if self._child is not None and self._child.poll() is None:
            return self._child.pid
        info = await self.info()
        return info.pid if info is not None else None

    async def leave(self, *, force: bool) -> None:
        """Have it leave the managers. Raises ShoalError with its reason."""
        try:
            async with asyncio.timeout(10), self.client().post(
                    "http://manager/internal/leave", json={"force": force}) as answer:
                if answer.status >= 400:
                    raise Unavailable((await answer.text())[:500])
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise Unavailable(f"the manager of this host does not answer: {why}") from error

    async def stop(self) -> None:
        """End it: asked first, then told."""
        pid = await self.pid()
        if pid is None:
            return
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(CALL_TIMEOUT_S), self.client().post("http://manager/internal/stop"):
                pass
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self.ended(pid)
                return
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        await self.ended(pid)

    def _last_words(self) -> str:
        """The last line that it wrote."""
        with (self._run_root / LOG).open("rb") as file:
            file.seek(self._log_start)
            lines = file.read()[-4096:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "the manager process ended without a word"
