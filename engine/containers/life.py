"""The life of containers: started, stopped, ended, started again.

Invariant: whatever changes one container holds its lock. A container that runs has
a `Monitor` here and one task that waits for its end; whoever stops it only signals,
and waits for that task to have taken the end in.
"""

from __future__ import annotations

import asyncio
import logging
import signal as signals
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from shoal.api.errors import Conflict, ShoalError, in_words
from shoal.engine.containers import health, restart
from shoal.engine.containers.launcher import Launcher, translate
from shoal.engine.containers.merge import parse_signal
from shoal.engine.containers.nouns import Container, Health, State, Status
from shoal.engine.containers.oci.monitor import Monitor, RuntimeFailed, exit_of
from shoal.engine.containers.restarts import Restarts
from shoal.engine.containers.stdio.client import Client
from shoal.engine.containers.stdio.console import Console
from shoal.engine.containers.table import Table
from shoal.engine.containers.waits import Waits

log = logging.getLogger(__name__)

DEFAULT_STOP_TIMEOUT_S = 10
KILL_TIMEOUT_S = 10.0
LOST_EXIT_CODE = 255
"""Of a container whose end nobody saw: the host was switched off, or conmon was killed."""

Hook = Callable[[Container], None]
Emit = Callable[[Container, str, dict[str, str]], None]


class Life:
    """See the module. The hooks are told of each container that began to run and that has ended.

    `remove` takes away what removes itself at its end.
    """

    def __init__(
        self, table: Table, launcher: Launcher, waits: Waits, *, emit: Emit, started: Hook, ended: Hook,
        remove: Callable[[str], Awaitable[None]],
    ) -> None:
        self._table = table
        self._launcher = launcher
        self._waits = waits
        self._emit = emit
        self._started = started
        self._ended = ended
        self._remove = remove
        self.monitors: dict[str, Monitor] = {}  # of those that run
        self._consoles: dict[str, Console] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self.restarts = Restarts(self._start_again)
        self._watches: set[asyncio.Task[None]] = set()

    # --- with the engine ---

    async def recover(self) -> None:
        """Find again what runs, take in what has ended, start what is to be started."""
        for container in self._table.all():
            await self._recover(container)
        for container in self._table.all():
            if container.state.status is Status.RESTARTING or _wants_start(container):
                self._table.change_state(container.id, status=Status.RESTARTING)
                self.restarts.later(container.id)

    async def _recover(self, container: Container) -> None:
        monitors = self._launcher.monitors
        if (monitor := monitors.find(container.id)) is not None:
            if container.state.status not in (Status.RUNNING, Status.PAUSED):
                container = self._record_start(container, monitor)  # killed between the start and its record
            self.monitors[container.id] = monitor
            self._keep(monitor.release())
            self._watch(container, monitor)
            log.info("event=container-found container=%s pid=%d", container.id, monitor.pid)
        elif container.state.status in (Status.RUNNING, Status.PAUSED):
            await self._take_end(container.id, None)
        elif monitors.bundle(container.id).exists():
            await asyncio.to_thread(monitors.sweep, container.id)
            await self._launcher.clear(container)

    async def close(self) -> None:
        """Let go; containers live on."""
        tasks = [*self._watches, *self.restarts.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for monitor in self.monitors.values():
            monitor.close()
        for console in self._consoles.values():
            console.end()

    # --- what runs ---

    def monitor(self, container: Container) -> Monitor:
        """Raises Conflict where it does not run."""
        monitor = self.monitors.get(container.id)
        if monitor is None:
            raise Conflict(f"container {container.id} is not running")
        return monitor

    async def join(self, container: Container, *, stdin: bool, streams: frozenset[int]) -> Client:
        """Its stdio for one more client: from now on if it runs, else from its start on."""
        console = self._consoles.get(container.id)
        if console is None:
            config = container.config
            console = Console(tty=config.tty, stdin_once=config.ends_stdin)
            self._consoles[container.id] = console
        monitor = self.monitors.get(container.id)
        client = console.join(stdin=stdin, streams=streams)
        if monitor is not None:
            try:
                await console.connect(monitor.bundle)
            except ShoalError as error:
                log.debug("event=attach-refused container=%s error=%s", container.id, error)  # it is just ending
        return client

    def lock(self, container_id: str) -> asyncio.Lock:
        return self._locks.setdefault(container_id, asyncio.Lock())

    def forget(self, container_id: str) -> None:
        """It has been removed."""
        self.restarts.forget(container_id)
        for known in (self._locks, self._consoles):
            known.pop(container_id, None)

    # --- start ---

    async def start(self, container_id: str) -> None:
        """By hand. No error where it runs. Raises ShoalError."""
        async with self.lock(container_id):
            container = self._table.get(container_id)
            status = container.state.status
            if status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if status in (Status.REMOVING, Status.DEAD):
                raise Conflict("container is marked for removal and cannot be started")
            if container.state.running:
                return
            self.restarts.forget_delay(container_id)
            self._table.change_state(container_id, has_been_manually_stopped=False, restart_count=0)
            failure = await self._start(container_id)
        if failure is not None:
            if container.host.auto_remove:
                await self._remove(container_id)
            raise failure

    async def _start(self, container_id: str) -> ShoalError | None:
        """Start it; its lock is held. Returns why it did not start, which its state says too."""
        container = self._table.get(container_id)
        try:
            monitor = await self._launcher.launch(container)
            self.monitors[container_id] = monitor
            console = self._consoles.get(container_id)
            if console is not None and console.wanted:
                await console.connect(monitor.bundle)
            container = self._record_start(container, monitor)
            await monitor.release()
        except (ShoalError, OSError) as error:
            return await self._record_failure(container, error)
        self._watch(container, monitor)
        self._emit(container, "start", {})
        log.info("event=container-started container=%s pid=%d", container_id, monitor.pid)
        return None

    def _record_start(self, container: Container, monitor: Monitor) -> Container:
        checked = health.command(container.config.health_check) is not None
        state = State(
            status=Status.RUNNING, pid=monitor.pid, started_ns=time.time_ns(), finished_ns=container.state.finished_ns,
            health=Health() if checked else None, restart_count=container.state.restart_count)
        return self._table.change(container.id, state=state)

    async def _record_failure(self, container: Container, error: ShoalError | OSError) -> ShoalError:
        if isinstance(error, RuntimeFailed):
            failure, code = translate(error)
        else:
            failure, code = (error if isinstance(error, ShoalError) else ShoalError(in_words(error))), 128
        log.warning("event=start-failed container=%s error=%s", container.id, failure)
        monitor = self.monitors.pop(container.id, None)
        if monitor is not None:
            monitor.kill()
            monitor.close()
            await self._launcher.clear(container)
        if (console := self._consoles.pop(container.id, None)) is not None:
            console.end()
        before = container.state
        self._table.change_state(
            container.id, status=Status.EXITED if before.started_ns else Status.CREATED, pid=0, exit_code=code,
            error=failure.message, finished_ns=time.time_ns() if before.started_ns else 0)
        self._waits.ended(self._table.get(container.id))
        return failure

    # --- the end ---

    def _watch(self, container: Container, monitor: Monitor) -> None:
        console = self._consoles.get(container.id)
        monitor.when_ended(lambda: self._flush(container.id))
        if console is not None and monitor.program_ended:
            console.flush()
        self._keep(self._until_end(container.id, monitor))
        self._started(container)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    def _flush(self, container_id: str) -> None:
        if (console := self._consoles.get(container_id)) is not None:
            console.flush()

    async def _until_end(self, container_id: str, monitor: Monitor) -> None:
        await monitor.wait()
        try:
            await self._take_end(container_id, monitor)
        except Exception:
            log.exception("event=end-not-taken container=%s", container_id)
            raise

    async def _take_end(self, container_id: str, monitor: Monitor | None) -> None:
        """The container has ended: write that down, clear up, then tell everybody."""
        async with self.lock(container_id):
            container = self._table.get(container_id)
            self._ended(container)
            ended = self._how_it_ended(container)
            # before anything is cleared away: the exit code outlives a kill of this daemon at any point
            self._table.change_state(container_id, **ended)
            self.monitors.pop(container_id, None)
            try:
                await self._launcher.clear(container)
            except (ShoalError, OSError):
                log.exception("event=not-cleared container=%s", container_id)
            if monitor is not None:
                monitor.close()
            container = self._settle(self._table.get(container_id))
        if (console := self._consoles.pop(container_id, None)) is not None:
            console.end()
        self._announce_end(container)
        if container.state.status is Status.RESTARTING:
            self.restarts.later(container_id)
        elif container.host.auto_remove and not self.restarts.is_by_hand(container_id):
            await self._remove(container_id)

    def _how_it_ended(self, container: Container) -> dict[str, Any]:
        state = container.state
        seen = exit_of(self._launcher.monitors.bundle(container.id))
        if seen is None and state.finished_ns > state.started_ns:
            seen = state.exit_code, state.finished_ns  # written down by a daemon that was killed then
        code, when = seen if seen is not None else (LOST_EXIT_CODE, time.time_ns())
        killed = self._launcher.ran_out_of_memory(container, code)
        return {"exit_code": code, "finished_ns": max(when, state.started_ns + 1),
                "oom_killed": killed or state.oom_killed}

    def _settle(self, container: Container) -> Container:
        """Exited, or about to be started again."""
        status = Status.RESTARTING if self.restarts.wanted(container) else Status.EXITED
        self._table.change_state(container.id, status=status, pid=0)
        return self._table.get(container.id)

    def _announce_end(self, container: Container) -> None:
        state = container.state
        if state.oom_killed:
            self._emit(container, "oom", {})
        ran_s = (state.finished_ns - state.started_ns) // 1_000_000_000
        self._emit(container, "die", {"exitCode": str(state.exit_code), "execDuration": str(ran_s)})
        log.info("event=container-ended container=%s exit_code=%d", container.id, state.exit_code)
        self._waits.ended(container)

    # --- again ---

    async def _start_again(self, container_id: str) -> None:
        async with self.lock(container_id):
            if not self._table.has(container_id):
                return
            state = self._table.get(container_id).state
            if state.status is not Status.RESTARTING or self.restarts.going_down:
                return
            self.restarts.begun(container_id)
            self._table.change_state(container_id, restart_count=state.restart_count + 1)
            if await self._start(container_id) is None:
                return
            # it could not be started (its network is not there yet?): its policy still holds
            if self._settle(self._table.get(container_id)).state.status is Status.RESTARTING:
                self.restarts.later(container_id)

    async def _give_up_restarting(self, container_id: str) -> None:
        async with self.lock(container_id):
            self.restarts.give_up(container_id)
            if self._table.get(container_id).state.status is Status.RESTARTING:
                self._table.change_state(container_id, status=Status.EXITED, has_been_manually_stopped=True)

    # --- signals ---

    async def stop(self, container_id: str, timeout_s: int | None, signal: str) -> None:
        container = self._table.get(container_id)
        number = parse_signal(signal or container.config.stop_signal or "TERM")
        if timeout_s is None:
            timeout_s = container.config.stop_timeout_s
        if timeout_s is None:
            timeout_s = DEFAULT_STOP_TIMEOUT_S
        if container.state.status is Status.RESTARTING:
            await self._give_up_restarting(container_id)
            container = self._table.get(container_id)
        if not container.state.running:
            return
        ended = self._waits.wait(container, "next-exit")
        if container_id in self.monitors:  # else its end is just being taken in
            self._signal(container, number)
        try:
            async with asyncio.timeout(timeout_s if timeout_s >= 0 else None):
                await asyncio.shield(ended)
        except TimeoutError:
            await self._kill(container, ended)
        self._emit(container, "stop", {})

    async def restart(self, container_id: str, timeout_s: int | None, signal: str) -> None:
        with self.restarts.by_hand(container_id):
            await self.stop(container_id, timeout_s, signal)
            await self.start(container_id)
        self._emit(self._table.get(container_id), "restart", {})

    async def kill(self, container_id: str, signal: str) -> None:
        """Send a signal; returns once it has ended where that is KILL. Raises Conflict where it does not run."""
        number = parse_signal(signal)
        container = self._table.get(container_id)
        if container.state.status is Status.RESTARTING:
            await self._give_up_restarting(container_id)
            container = self._table.get(container_id)
            if container_id not in self.monitors:
                return
        if container_id not in self.monitors:
            raise Conflict(f"cannot kill container: {container_id}: container {container_id} is not running")
        if number != signals.SIGKILL:
            self._signal(container, number)
            return
        await self._kill(container, self._waits.wait(container, "next-exit"))

    def _signal(self, container: Container, number: int) -> None:
        """Send it. One that is meant to end the container makes it stay down, and wakes it if it is paused."""
        stops = parse_signal(container.config.stop_signal) if container.config.stop_signal else number
        monitor = self.monitor(container)
        if number in (stops, signals.SIGKILL) and not self.restarts.going_down:
            self._table.change_state(container.id, has_been_manually_stopped=True)
        monitor.signal(number)
        if container.state.status is Status.PAUSED and number in (stops, signals.SIGKILL):
            self._launcher.cgroups.freeze(self._launcher.group(container), False)
            self._table.change_state(container.id, status=Status.RUNNING)
        self._emit(container, "kill", {"signal": str(number)})

    async def _kill(self, container: Container, ended: asyncio.Future[Any]) -> None:
        """KILL to its first process, then to everything in its cgroup. Raises ShoalError where that does not help."""
        if not ended.done() and container.id in self.monitors:
            self._signal(self._table.get(container.id), signals.SIGKILL)
        for _ in range(2):
            try:
                async with asyncio.timeout(KILL_TIMEOUT_S):
                    await asyncio.shield(ended)
                return
            except TimeoutError:
                await asyncio.to_thread(self._launcher.cgroups.kill, self._launcher.group(container))
        raise ShoalError(f"container {container.id} was killed, but its end did not come")

    # --- pause ---

    async def pause(self, container_id: str, *, frozen: bool) -> None:
        async with self.lock(container_id):
            container = self._table.get(container_id)
            status = container.state.status
            if status is Status.RESTARTING:
                raise Conflict(f"Container {container_id} is restarting, wait until the container is running")
            self.monitor(container)
            if frozen and status is Status.PAUSED:
                raise Conflict(f"Container {container_id} is already paused")
            if not frozen and status is not Status.PAUSED:
                raise Conflict(f"Container {container_id} is not paused")
            await asyncio.to_thread(self._launcher.cgroups.freeze, self._launcher.group(container), frozen)
            self._table.change_state(container_id, status=Status.PAUSED if frozen else Status.RUNNING)
        self._emit(container, "pause" if frozen else "unpause", {})


def _wants_start(container: Container) -> bool:
    """Whether the start of the engine starts it."""
    state = container.state
    return state.status is Status.EXITED and state.started_ns > 0 and restart.wants_start(
        container.host.restart, manually_stopped=state.has_been_manually_stopped, exit_code=state.exit_code,
        restarts=state.restart_count)
