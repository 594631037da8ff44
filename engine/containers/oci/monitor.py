"""conmon: one small process beside each container, which outlives this daemon.

It starts the runtime, holds the container's stdio, writes its log, and leaves its
exit code in a file. `Monitors.spawn` starts one; `find` finds one again.

    <run root>/containers/<id>/     the OCI bundle: config.json, hosts, hostname, resolv.conf
        monitor.json                which processes these are
        attach, ctl                 conmon's socket and FIFO
        exit                        the exit code, once there is one
        oom                         there once the kernel killed something for lack of memory
        cgroup                      where its cgroup is
        conmon.log                  what conmon complained of

The container waits in the runtime's exec.fifo until `Monitor.release`, so that
those who attach before the start miss nothing. Opening that FIFO and reading (runc)
or writing (crun) a byte is all that the runtime's `start` does; done here it saves a process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from shoal.api.errors import ShoalError
from shoal.engine.containers.files import read_record, write_bytes, write_record
from shoal.engine.containers.oci.process import Handle, start_child, start_ticks, with_argument
from shoal.engine.containers.oci.runtime import Runtime

CREATE_TIMEOUT_S = 120
RELEASE_TIMEOUT_S = 10
"""A container that waits for its release answers at once."""

MAX_MESSAGE_BYTES = 64 * 1024
RESIZE, REOPEN_LOG = 1, 2
"""Messages of conmon's control FIFO."""


class _Record(msgspec.Struct, frozen=True):
    """The two processes; the start times tell them from others that took their numbers."""

    conmon: int
    conmon_ticks: int
    pid: int
    pid_ticks: int


class RuntimeFailed(ShoalError):
    """The runtime could not make the container; the message is its own."""


class Monitor:
    """A container's conmon and its first process, while they run."""

    def __init__(self, bundle: Path, state: Path, conmon: Handle, init: Handle | None, pid: int) -> None:
        self.bundle = bundle
        self.pid = pid
        self._fifo = state / "exec.fifo"
        self._conmon = conmon
        self._init = init

    async def release(self) -> None:
        """Let the program begin, if it has not yet."""
        if self._answer_reader():
            return
        try:
            descriptor = os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            await self._readable(descriptor)
            with suppress(BlockingIOError):
                os.read(descriptor, 16)
            self._fifo.unlink(missing_ok=True)  # the runtime takes it for "not started yet"
        finally:
            os.close(descriptor)

    def _answer_reader(self) -> bool:
        """Write to a container that waits as crun's do, by reading. runc's wait until somebody reads.

        Written before unlinked: a daemon that is killed in between leaves a container that runs.
        """
        try:
            descriptor = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # nobody reads, or there is none
            return False
        try:
            with suppress(BrokenPipeError):
                os.write(descriptor, b"\0")
            self._fifo.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        return True

    async def _readable(self, descriptor: int) -> None:
        """Wait for the container to write, or to end; or, where it had written to a daemon that was killed, in vain."""
        loop = asyncio.get_running_loop()
        written = asyncio.Event()
        loop.add_reader(descriptor, written.set)
        waits = [asyncio.ensure_future(written.wait()), asyncio.ensure_future(self._conmon.wait())]
        try:
            await asyncio.wait(waits, timeout=RELEASE_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(descriptor)
            for wait in waits:
                wait.cancel()

    async def wait(self) -> None:
        """Until the container has ended and its output is written down."""
        await self._conmon.wait()
        self._conmon.exit_code()  # reaps it, where it is our child

    @property
    def program_ended(self) -> bool:
        return self._init is None or self._init.ended

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Called once the container's first process has ended; conmon may still have output to deliver."""
        if self._init is not None:
            self._init.when_ended(callback)

    def signal(self, number: int) -> None:
        """To the container's first process."""
        if self._init is not None:
            self._init.signal(number)

    @property
    def init_fd(self) -> int:
        """A pidfd of the container's first process, for as long as this is not closed; -1 where that has ended."""
        return self._init.fd if self._init is not None else -1

    def kill(self) -> None:
        """End conmon itself, and what it is just starting."""
        self._conmon.signal(9)

    def control(self, message: int, first: int = 0, second: int = 0) -> None:
        """Send to conmon's control FIFO. Raises ShoalError where it does not listen."""
        try:
            descriptor = os.open(self.bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ShoalError(f"conmon does not listen: {error.strerror}") from error
        try:
            os.write(descriptor, f"{message} {first} {second}\n".encode())
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go; they run on."""
        self._conmon.close()
        if self._init is not None:
            self._init.exit_code()  # reaps it, where it became our child because conmon was killed
            self._init.close()


def exit_of(bundle: Path) -> tuple[int, int] | None:
    """The exit code and when it was written, nanoseconds since the epoch; None where there is none."""
    file = bundle / "exit"
    try:
        return int(file.read_text()), file.stat().st_mtime_ns
    except (FileNotFoundError, ValueError):
        return None


def ran_out_of_memory(bundle: Path) -> bool:
    """Whether conmon saw the kernel kill for lack of memory; systemd removes the cgroup that could tell."""
    return (bundle / "oom").exists()


class Monitors:
    """Starts conmon, and finds it again. `root`: where the bundles are."""

    def __init__(self, root: Path, runtime: Runtime) -> None:
        self._root = root
        self.runtime = runtime
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        Path(runtime.root).mkdir(mode=0o700, parents=True, exist_ok=True)

    def bundle(self, container_id: str) -> Path:
        return self._root / container_id

    def state(self, container_id: str) -> Path:
        """Where the runtime keeps what it knows of the container."""
        return Path(self.runtime.root, container_id)

    async def spawn(
        self, container_id: str, spec: bytes, *, log: Sequence[str], tty: bool, stdin: bool, keep_stdin: bool
    ) -> Monitor:
        """Make the container, up to where its program would begin.

        `log`: the flags that say where its output goes. `keep_stdin`: also when a client leaves.
        Raises RuntimeFailed with the runtime's message; nothing of conmon is left then.
        """
        bundle = self.bundle(container_id)
        command = ["conmon", "--api-version", "1", "--sync", "--no-sync-log", "--full-attach",
                   "--cid", container_id, "--cuuid", container_id, "--bundle", str(bundle),
                   "--runtime", self.runtime.path,
                   *(word for flag in self.runtime.flags for word in ("--runtime-arg", flag)),
                   # with a log of its own, the runtime's standard error is the plain message
                   "--runtime-arg", f"--log={bundle / 'runtime.log'}",
                   "--container-pidfile", str(bundle / "pid"), "--persist-dir", str(bundle),
                   *log, "--log-level", "error"]
        command += ["--terminal"] * tty + ["--stdin"] * stdin + ["--leave-stdin-open"] * keep_stdin
        answers, its_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(answers, False)
        try:
            process = await start_child(lambda: _spawn(command, bundle, spec, its_end))
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(its_end)
        conmon = Handle(process.pid)
        try:
            async with asyncio.timeout(CREATE_TIMEOUT_S):
                pid = await _pid(answers, bundle)
        except BaseException as error:
            conmon.signal(9)
            await conmon.wait()
            process.poll()
            conmon.close()
            if isinstance(error, TimeoutError):
                raise RuntimeFailed(f"the runtime did not answer in {CREATE_TIMEOUT_S} s") from error
            raise
        finally:
            os.close(answers)
        process.returncode = 0  # it is waited for by its handle, not by subprocess
        init = _handle(pid)
        record = _Record(conmon.pid, start_ticks(conmon.pid), pid, start_ticks(pid))
        write_record(bundle / "monitor.json", record, durable=False)
        return Monitor(bundle, self.state(container_id), conmon, init, pid)

    def find(self, container_id: str) -> Monitor | None:
        """The conmon that an earlier daemon started, if it still runs."""
        bundle = self.bundle(container_id)
        record = read_record(bundle / "monitor.json", _Record)
        if record is None or not record.conmon_ticks or start_ticks(record.conmon) != record.conmon_ticks:
            return None
        conmon = _handle(record.conmon)
        if conmon is None:
            return None
        same = start_ticks(record.pid) == record.pid_ticks != 0
        return Monitor(bundle, self.state(container_id), conmon, _handle(record.pid) if same else None, record.pid)

    def sweep(self, container_id: str) -> None:
        """End a conmon that was being started when the daemon was killed. Blocking."""
        if self.bundle(container_id).exists():
            for pid in with_argument(str(self.bundle(container_id))):
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)

    def clear(self, container_id: str) -> None:
        """Remove the bundle and what the runtime knows of the container. Blocking."""
        for folder in (self.state(container_id), self.bundle(container_id)):
            shutil.rmtree(folder, ignore_errors=True)

    def known(self) -> list[str]:
        """The containers that have a bundle."""
        return [place.name for place in self._root.iterdir()]


def _spawn(command: list[str], bundle: Path, spec: bytes, answers: int) -> subprocess.Popen[bytes]:
    """Write the specification and start conmon, which answers on that pipe. Blocking."""
    write_bytes(bundle / "config.json", spec)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC", "_OCI_SYNCPIPE": str(answers)}
    with (bundle / "conmon.log").open("wb") as complaints:
        return subprocess.Popen(command, cwd=bundle, stdin=subprocess.DEVNULL, stdout=complaints, stderr=complaints,
                                pass_fds=(answers,), env=environment)


class _Answer(msgspec.Struct):
    data: int
    message: str = ""


async def _pid(answers: int, bundle: Path) -> int:
    """The container's first process, as conmon tells it. Raises RuntimeFailed."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()
    collected = bytearray()

    def read() -> None:
        data = os.read(answers, MAX_MESSAGE_BYTES)
        collected.extend(data)
        if (not data or b"\n" in data or len(collected) > MAX_MESSAGE_BYTES) and not line.done():
            line.set_result(bytes(collected))

    loop.add_reader(answers, read)
    try:
        answer = msgspec.json.decode(await line or b"{}", type=_Answer, strict=False)
    except msgspec.DecodeError as error:
        complaint = (bundle / "conmon.log").read_text(errors="replace")[-MAX_MESSAGE_BYTES:].strip()
        raise RuntimeFailed(f"conmon failed: {complaint or bytes(collected)!r}") from error
    finally:
        loop.remove_reader(answers)
    if answer.data <= 0:
        raise RuntimeFailed(answer.message.strip() or f"the runtime failed with {answer.data}")
    return answer.data


def _handle(pid: int) -> Handle | None:
    try:
        return Handle(pid)
    except ProcessLookupError:
        return None
