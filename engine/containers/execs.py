"""Programs started in containers that run: exec.

Who brings a program into its container is an `Entry`: the exec spawner, or the runtime.
Either way the program becomes this process's child, with no other process beside it. An exec
ends with the daemon's session to it, as its client does; its record is kept for a while in memory alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from signal import SIGKILL
from typing import Any, Protocol, TypeVar

import msgspec

from shoal.api.errors import Conflict, NotFound
from shoal.api.ids import new_container_id
from shoal.engine.containers.launcher import classify, hostname
from shoal.engine.containers.nouns import Container, Exec, ExecConfig, Status
from shoal.engine.containers.oci import capabilities, host, spec, users
from shoal.engine.containers.oci.monitor import RuntimeFailed
from shoal.engine.containers.oci.process import Handle
from shoal.engine.containers.stdio.client import STDERR, STDOUT, Client
from shoal.engine.containers.stdio.execstdio import ExecStdio

KEPT = 1000
"""Records. Of more, those are forgotten that have not been under way for the longest, but not at once:"""

KEPT_S = 60.0
"""so long a client has to start what it has created, and to ask for the code that it ended with."""

MOST_KEPT = 20_000

REST_OF_OUTPUT_S = 2.0
NOT_STARTED = 126
"""The exit code where not even the runtime was asked. Source: moby, daemon/exec.go."""

T = TypeVar("T")
Emit = Callable[[Container, str, dict[str, str]], None]
Start = Callable[[ExecStdio], Awaitable[Handle]]
"""Starts a program with this stdio. Raises RuntimeFailed with the runtime's message, or its words."""


class Entry(Protocol):
    """What brings a program into a container that runs."""

    def prepare(self, container: Container, exec_id: str, process: Mapping[str, Any], home: str) -> Start:
        """Of an OCI process; `home`: of its user. Blocking."""

    def forget(self, container_id: str) -> None:
        """The container has ended."""

    async def close(self) -> None:
        """What it has started runs on."""


class _Session:
    """One exec, and what of it runs."""

    def __init__(self, record: Exec) -> None:
        self.record = record
        self.stdio: ExecStdio | None = None
        self.handle: Handle | None = None
        self.begun = False
        self.killed = False  # it may still be starting
        self.ended = asyncio.Event()


class Execs:
    """See the module. `find` gives a container as it is now, `link_env` the variables of its links."""

    def __init__(self, entry: Entry, find: Callable[[str], Container], emit: Emit,
                 link_env: Callable[[Container], list[str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._entry = entry
        self._find = find
        self._emit = emit
        self._link_env = link_env
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._idle: OrderedDict[str, float] = OrderedDict()  # those not under way → since when, the longest first
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- records ---

    def get(self, exec_id: str) -> Exec:
        return self._session(exec_id).record

    def of(self, container_id: str) -> list[Exec]:
        return [one.record for one in self._sessions.values() if one.record.container_id == container_id]

    def _session(self, exec_id: str) -> _Session:
        session = self._sessions.get(exec_id)
        if session is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return session

    def create(self, container: Container, config: ExecConfig) -> Exec:
        """Raises Conflict where the container does not run."""
        _check_runs(container)
        record = Exec(id=new_container_id(), container_id=container.id, config=config)
        self._sessions[record.id] = _Session(record)
        self._idle[record.id] = self._clock()
        self._forget_some()
        self._emit(container, f"exec_create: {' '.join(config.command)}", {"execID": record.id})
        return record

    def _forget_some(self) -> None:
        while len(self._sessions) > KEPT and self._idle:
            exec_id, since = next(iter(self._idle.items()))
            if self._clock() - since < KEPT_S and len(self._sessions) <= MOST_KEPT:
                return
            del self._idle[exec_id], self._sessions[exec_id]

    def forget(self, container_id: str) -> None:
        """The container has ended: its execs that never ran are of no use any more."""
        self._entry.forget(container_id)
        for key, session in list(self._sessions.items()):
            if session.record.container_id == container_id and not session.begun:
                del self._idle[key], self._sessions[key]

    # --- running ---

    def check(self, exec_id: str) -> Exec:
        """Raises what `start` would before it starts anything."""
        return self._startable(exec_id)[0].record

    def _startable(self, exec_id: str) -> tuple[_Session, Container]:
        session = self._session(exec_id)
        if session.record.running:
            raise Conflict(f"exec command {exec_id} is already running")
        if session.begun:
            raise Conflict(f"exec command {exec_id} has already run")
        container = self._find(session.record.container_id)
        _check_runs(container)
        return session, container

    async def start(
        self, exec_id: str, *, detach: bool = False, console_size: tuple[int, int] = (0, 0)
    ) -> Client | None:
        """Start it; its client where it is not to be detached.

        The start runs to its end, also where the caller is cancelled: nobody reads what it says then.
        Raises Conflict where it ran already, InvalidArgument where its program cannot be run.
        """
        session, container = self._startable(exec_id)
        session.begun = True
        del self._idle[exec_id]
        starting = self._keep(self._start(session, container, detach, console_size))
        try:
            client = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_let_go)
            raise
        if not detach:
            return client
        client.let_go()
        return None

    async def _start(
        self, session: _Session, container: Container, detach: bool, console_size: tuple[int, int]
    ) -> Client:
        config = session.record.config
        streams = {STDOUT} if config.tty else set()
        streams |= {STDOUT} if config.attach_stdout else set()
        streams |= {STDERR} if config.attach_stderr and not config.tty else set()
        stdio = ExecStdio(tty=config.tty, stdin=config.attach_stdin and not detach,
                          streams=frozenset() if detach and not config.tty else frozenset(streams))
        session.stdio = stdio
        try:
            handle = await self._enter(session.record, container, stdio, console_size)
        except RuntimeFailed as error:
            failure, code = classify(f"OCI runtime exec failed: {error}: unknown")
            self._end(session, container, code)
            stdio.close()
            raise failure from error
        except BaseException:
            self._end(session, container, NOT_STARTED)
            stdio.close()
            raise
        session.handle = handle
        session.record = msgspec.structs.replace(session.record, running=True, pid=handle.pid)
        self._emit(container, f"exec_start: {' '.join(config.command)}", {"execID": session.record.id})
        client = stdio.begin()
        self._keep(self._until_end(session, container, stdio, handle))
        if session.killed:
            handle.signal(SIGKILL)
        return client

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _enter(
        self, record: Exec, container: Container, stdio: ExecStdio, console_size: tuple[int, int]
    ) -> Handle:
        """Start the program. Raises RuntimeFailed with the runtime's message, other ShoalErrors."""
        try:
            start = await asyncio.to_thread(self._prepare, record, container, console_size)
        except (FileNotFoundError, ProcessLookupError) as error:  # what is known of it goes with it
            raise Conflict(f"container {container.id} is not running") from error
        return await start(stdio)

    def _prepare(self, record: Exec, container: Container, console_size: tuple[int, int]) -> Start:
        """What is to be run. Blocking."""
        config, asked = record.config, container.host
        user, home = users.with_home(
            f"/proc/{container.state.pid}/root", config.user or container.config.user, asked.group_add)
        held = capabilities.effective(asked.cap_add, asked.cap_drop, privileged=asked.privileged or config.privileged,
                                      held=host.held_capabilities())
        env = spec.environment(
            msgspec.structs.replace(container.config, tty=config.tty,
                                    env=(*container.config.env, *config.env)),
            hostname(container), self._link_env(container))
        security = spec.security(asked.security_opt)
        process = spec.process(
            argv=config.command, env=env, cwd=config.working_dir or container.config.working_dir or "/", user=user,
            tty=config.tty, capabilities=held,
            no_new_privileges=security.no_new_privileges,
            apparmor=host.apparmor_profile(security.apparmor),
            console_size=console_size if all(console_size) else config.console_size)
        if asked.ulimits:
            process["rlimits"] = host.rlimits(asked.ulimits)
        return self._entry.prepare(container, record.id, process, home)

    async def _until_end(
        self, session: _Session, container: Container, stdio: ExecStdio, handle: Handle
    ) -> None:
        await handle.wait()
        code = handle.exit_code()
        handle.close()
        session.handle = None
        self._end(session, container, code)
        await stdio.finish_output(REST_OF_OUTPUT_S)

    def _end(self, session: _Session, container: Container, code: int) -> None:
        session.record = msgspec.structs.replace(session.record, running=False, exit_code=code, pid=0)
        session.ended.set()
        self._idle[session.record.id] = self._clock()
        self._emit(container, "exec_die", {"execID": session.record.id, "exitCode": str(code)})

    async def wait(self, exec_id: str) -> int:
        """Its exit code, once it has ended."""
        session = self._session(exec_id)
        await session.ended.wait()
        return session.record.exit_code or 0

    def kill(self, exec_id: str) -> None:
        """End it, if need be as soon as it has started; nothing where it has ended."""
        session = self._session(exec_id)
        session.killed = True
        if session.handle is not None:
            session.handle.signal(SIGKILL)

    def resize(self, exec_id: str, height: int, width: int) -> None:
        session = self._session(exec_id)
        if not session.record.running or session.stdio is None:
            raise Conflict(f"exec {exec_id} is not running")
        session.stdio.resize(height, width)

    async def close(self) -> None:
        """Let go of all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in self._sessions.values():
            if session.stdio is not None:
                session.stdio.close()
            if session.handle is not None:
                session.handle.close()
        await self._entry.close()


def _check_runs(container: Container) -> None:
    status = container.state.status
    if status is Status.PAUSED:
        raise Conflict(f"Container {container.id} is paused, unpause the container before exec")
    if status is Status.RESTARTING:
        raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
    if status is not Status.RUNNING:
        raise Conflict(f"container {container.id} is not running")


def _let_go(starting: asyncio.Task[Client]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().let_go()
