"""This daemon's side of the exec spawner: starts its process, gives it orders, waits for what comes of them."""

from __future__ import annotations

import asyncio
import logging
import marshal
import os
import platform
import socket
import subprocess
import sys
from contextlib import suppress
from fcntl import F_ADD_SEALS, fcntl
from pathlib import Path
from signal import SIGKILL

import shoal
from shoal.api.errors import ShoalError
from shoal.engine.containers.oci.monitor import RuntimeFailed
from shoal.engine.containers.oci.process import Handle, start_child
from shoal.engine.containers.spawner import kernel
from shoal.engine.containers.spawner.order import FAILED, START, STARTED, TERMINAL, Order

log = logging.getLogger(__name__)

READY_TIMEOUT_S = 30
RETRY_S = 60
"""After a start that failed: the host may have been out of memory, or of descriptors."""

_MAX_ANSWER_BYTES = 64 * 1024
_ROOT = str(Path(shoal.__path__[0]).parent)
_PROGRAM = ("import sys; sys.path.append(sys.argv[1]); "
            "from shoal.engine.containers.spawner import server; server.main(int(sys.argv[2]))")
_MFD_EXEC = 0x10


class Unavailable(ShoalError):
    """There is no spawner: the runtime has to do."""


class Spawner:
    """Its process starts with the first order, and anew where it has ended. Used from one event loop."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None
        self._process: Handle | None = None
        self._sending = asyncio.Lock()
        self._room = asyncio.Event()
        self._useless = ""  # why it could not be started, which is not tried again for a while
        self._useless_until_s = 0.0

    @property
    def pid(self) -> int:
        """Of its process; 0 where there is none."""
        return self._process.pid if self._process is not None and not self._process.ended else 0

    async def spawn(self, order: Order, init: int, stdio: tuple[int, ...], timeout_s: float) -> tuple[Handle, int]:
        """Start the program in the container of whose init this is a pidfd; and its terminal, -1 where it has none.

        Raises RuntimeFailed.
        """
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            answers = _Answers(ours)
            try:
                async with asyncio.timeout(timeout_s):
                    with its:
                        await self._send(order, [its.fileno(), init, *stdio])
                    await answers.wait()
                if answers.failure or not answers.pid:
                    raise RuntimeFailed(f"exec failed: {answers.failure or 'the exec spawner has ended'}")
            except TimeoutError as error:
                answers.abandon()
                if not answers.pid:  # it hangs
                    self._end_process()
                    self._let_go()
                raise RuntimeFailed(f"exec failed: the program did not start in {timeout_s:g} s") from error
            except BaseException:
                answers.abandon()
                raise
            return Handle(answers.pid), answers.terminal

    async def ready(self) -> None:
        """Raises Unavailable where it does not run and cannot be started."""
        async with self._sending:
            await self._running()

    async def _send(self, order: Order, descriptors: list[int]) -> None:
        """Raises RuntimeFailed."""
        payload = os.memfd_create("order")  # of any length
        try:
            os.pwrite(payload, marshal.dumps(dict(order)), 0)
            async with self._sending:
                for _ in range(2):  # it may have ended since
                    control = await self._running()
                    try:
                        await send_order(control, [payload, *descriptors], self._room)
                    except (BrokenPipeError, ConnectionResetError):
                        self._let_go()
                    else:
                        return
        finally:
            os.close(payload)
        raise RuntimeFailed("exec failed: the exec spawner ends as soon as it has started")

    async def _running(self) -> socket.socket:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._useless_until_s:
            raise Unavailable(self._useless)
        if self._control is None or not self.pid:
            self._let_go()
            try:
                await self._start()
            except Unavailable as error:
                self._useless, self._useless_until_s = error.message, now_s + RETRY_S
                raise
        assert self._control is not None
        return self._control

    async def _start(self) -> None:
        if platform.machine() not in kernel.MACHINES:
            raise Unavailable(f"the exec spawner does not know the machine {platform.machine()}")
        control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        complaints = os.memfd_create("complaints")
        try:
            try:
                process = await start_child(lambda: _spawn(its, complaints))
            except OSError as error:
                raise Unavailable(f"the exec spawner cannot be started: {error}") from error
            finally:
                its.close()
            process.returncode = 0  # it is waited for by its handle, not by subprocess
            self._process = handle = Handle(process.pid)
            handle.when_ended(lambda: _reap(handle))
            control.setblocking(False)
            try:
                async with asyncio.timeout(READY_TIMEOUT_S):
                    ready = await asyncio.get_running_loop().sock_recv(control, 16)
            except (TimeoutError, ConnectionResetError):
                ready = b""
            if not ready:
                self._end_process()
                said = os.pread(complaints, _MAX_ANSWER_BYTES, 0).decode(errors="replace").strip()
                raise Unavailable(f"the exec spawner does not start: {said[-500:]}")
        except BaseException:
            control.close()
            raise
        finally:
            os.close(complaints)
        self._control = control
        log.info("event=exec-spawner-started pid=%d", process.pid)

    def _end_process(self) -> None:
        if self._process is not None and self.pid:
            self._process.signal(SIGKILL)

    def _let_go(self) -> None:
        """It ends with its socket, if it has not."""
        if self._control is not None:
            asyncio.get_running_loop().remove_writer(self._control.fileno())
            self._control.close()
            self._control = None
            self._room.set()  # who waits for room sees that it is closed

    async def close(self) -> None:
        """End it. What it has started runs on."""
        self._let_go()
        if self._process is not None and self.pid:
            self._process.signal(SIGKILL)
            await self._process.wait()
        self._process = None


class _Answers:
    """What the spawner, and then the copy of it, say of one order, until the program runs or will not."""

    def __init__(self, connection: socket.socket) -> None:
        self.pid = 0
        self.terminal = -1
        self.failure = ""
        self._connection = connection
        self._over = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(connection.fileno(), self._read)

    def _read(self) -> None:
        while not self._over.done():
            try:
                message, ancillary, _, _ = self._connection.recvmsg(
                    _MAX_ANSWER_BYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                message, ancillary = b"", []
            if message[:1] == STARTED:
                self.pid = int(message[1:])
            elif message[:1] == TERMINAL and ancillary:
                self.terminal = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
            elif message[:1] == FAILED:
                self.failure = message[1:].decode(errors="replace")
            elif not message:
                self._stop()

    def _stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._connection.fileno())
        if not self._over.done():
            self._over.set_result(None)

    async def wait(self) -> None:
        """Until the other ends are closed: by the program's start, or by the end of those that had them."""
        await asyncio.shield(self._over)

    def abandon(self) -> None:
        """Leave nothing of it. What stands still just now ends later."""
        self._stop()
        if self.terminal >= 0:
            os.close(self.terminal)
        if self.pid:
            with suppress(ProcessLookupError):
                handle = Handle(self.pid)
                handle.signal(SIGKILL)
                handle.when_ended(lambda: _reap(handle))


def _reap(handle: Handle) -> None:
    handle.exit_code()
    handle.close()


def _spawn(control: socket.socket, complaints: int) -> subprocess.Popen[bytes]:
    """Start the process. Blocking."""
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    sealed = sealed_copy(python)
    try:
        end = os.dup(control.fileno())
        try:
            return subprocess.Popen(
                [python, "-I", "-S", "-E", "-c", _PROGRAM, _ROOT, str(end)],
                executable=f"/proc/self/fd/{sealed}", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=complaints, pass_fds=(end, sealed), cwd="/", env={}, start_new_session=True)
        finally:
            os.close(end)
    finally:
        os.close(sealed)


def sealed_copy(path: str) -> int:
    """A file in memory that is like that one, and that nobody ever changes."""
    try:
        copy = os.memfd_create("shoal-spawner", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError:  # before Linux 6.3, where all of them can be executed
        copy = os.memfd_create("shoal-spawner", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with Path(path).open("rb") as file:
            while os.sendfile(copy, file.fileno(), None, 1 << 24):
                pass
        os.fchmod(copy, 0o500)
        fcntl(copy, F_ADD_SEALS, kernel.SEALS)
    except BaseException:
        os.close(copy)
        raise
    return copy


async def send_order(control: socket.socket, descriptors: list[int], room: asyncio.Event) -> None:
    """Wait while the spawner has many; `room` is set when there may be room, and when the socket was closed.

    Raises BrokenPipeError or ConnectionResetError where nobody is at the other end, or the socket was closed.
    """
    loop = asyncio.get_running_loop()
    while control.fileno() >= 0:
        try:
            socket.send_fds(control, [START], descriptors, socket.MSG_NOSIGNAL)
            return
        except BlockingIOError:
            room.clear()
            loop.add_writer(control.fileno(), room.set)
            try:
                await room.wait()
            finally:
                if control.fileno() >= 0:
                    loop.remove_writer(control.fileno())
    raise ConnectionResetError("the exec spawner was let go of")
