"""Runs health checks: an exec every so often. What the results mean is decided in `health`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from shoal.api.errors import ShoalError
from shoal.engine.containers import health
from shoal.engine.containers.execs import Execs
from shoal.engine.containers.nouns import Container, ExecConfig, Health, HealthResult, Status
from shoal.engine.containers.table import Table

log = logging.getLogger(__name__)


class Prober:
    """One task for each container that runs and has a check. `shell_of` gives an image's SHELL."""

    def __init__(
        self, table: Table, execs: Execs, emit: Callable[[Container, str, dict[str, str]], None],
        shell_of: Callable[[str], tuple[str, ...]],
    ) -> None:
        self._table = table
        self._execs = execs
        self._emit = emit
        self._shell_of = shell_of
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, container: Container) -> None:
        self.stop(container)
        check = container.config.health_check
        command = health.command(check, self._shell_of(container.image_id))
        if check is not None and command is not None:
            self._tasks[container.id] = asyncio.get_running_loop().create_task(self._probe(container, command))

    def stop(self, container: Container) -> None:
        if (task := self._tasks.pop(container.id, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _probe(self, container: Container, command: tuple[str, ...]) -> None:
        check = container.config.health_check
        assert check is not None
        started_ns = container.state.started_ns
        while True:
            now = self._table.get(container.id).state.health or Health()
            await asyncio.sleep(health.next_delay_ns(now, check, started_ns, time.time_ns()) / 1e9)
            if self._table.get(container.id).state.status is Status.PAUSED:
                continue
            result = await self._once(container, command, health.timeout_ns(check))
            if not self._table.has(container.id) or not self._table.get(container.id).state.running:
                return
            before = self._table.get(container.id).state.health or Health()
            after = health.after(before, check, result, started_ns)
            self._table.change_state(container.id, health=after)
            if after.status != before.status:
                self._emit(container, f"health_status: {after.status}", {})

    async def _once(self, container: Container, command: tuple[str, ...], timeout_ns: int) -> HealthResult:
        """One check, whatever comes of it."""
        start_ns = time.time_ns()
        output = bytearray()
        try:
            record = self._execs.create(self._table.get(container.id), ExecConfig(
                command=command, attach_stdout=True, attach_stderr=True))
            try:
                async with asyncio.timeout(timeout_ns / 1e9):
                    code = await self._run(record.id, output)
            except TimeoutError:
                self._execs.kill(record.id)
                code = -1
                output[:] = f"Health check exceeded timeout ({timeout_ns / 1e9:g}s)".encode()
        except (ShoalError, OSError) as error:  # no descriptor left: the check has failed, and is tried again
            code, output = -1, bytearray(str(error).encode())
        return HealthResult(start_ns=start_ns, end_ns=time.time_ns(), exit_code=code,
                            output=output.decode(errors="replace"))

    async def _run(self, exec_id: str, output: bytearray) -> int:
        attachment = await self._execs.start(exec_id)
        assert attachment is not None
        try:
            while (chunk := await attachment.read()) is not None:
                room = health.MAX_OUTPUT_BYTES - len(output)
                output += chunk[1][:room]
            return await self._execs.wait(exec_id)
        finally:
            await attachment.detach()
