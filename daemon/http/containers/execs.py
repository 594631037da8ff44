"""/exec: further programs in a container that runs."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.daemon.http.containers.config import words
from shoal.daemon.http.containers.detachkeys import DetachKeys, parse
from shoal.daemon.http.containers.routes import MAX_TERMINAL, terminal_size
from shoal.daemon.http.containers.stdio import carry, content_type, frame
from shoal.daemon.http.containers.wire import ExecStartWire, ExecWire
from shoal.daemon.http.hijack import HijackedResponse, hijack
from shoal.daemon.http.wire import body, empty, reply
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.nouns import Exec, ExecConfig

STDOUT = 1


class ExecRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_post("/containers/{id}/exec", self.create)
        router.add_post("/exec/{id}/start", self.start)
        router.add_post("/exec/{id}/resize", self.resize)
        router.add_get("/exec/{id}/json", self.inspect, allow_head=False)

    async def create(self, request: web.Request) -> web.Response:
        config = exec_config(await body(request, ExecWire))
        made = await self._engine.exec_create(request.match_info["id"], config)
        return reply({"Id": made.id}, 201)

    async def start(self, request: web.Request) -> web.StreamResponse:
        wanted = await body(request, ExecStartWire, required=False)
        size = _size(wanted.console_size)
        known = self._engine.exec_check(request.match_info["id"])
        if wanted.detach:
            await self._engine.exec_start(known.id, detach=True, console_size=size)
            return empty(200)
        codes = parse(known.config.detach_keys)
        # Whether there are frames is what this request says, not what the exec was made with.
        # The head goes out before anything can be said: some clients lose what comes with it.
        connection = hijack(request, content_type(request, tty=wanted.tty))
        try:
            attachment = await self._engine.exec_start(known.id, console_size=size)
        except ShoalError as error:  # as Docker does it: why it could not run is its output, and in its exit code
            data = f"{error.message}\r\n".encode()
            await connection.write(data if wanted.tty else frame(STDOUT, data))
            return HijackedResponse()
        assert attachment is not None
        await carry(connection, attachment, stdin=known.config.attach_stdin, closes_stdin=not attachment.tty,
                    keys=DetachKeys(codes) if attachment.tty else None, raw=wanted.tty)
        return HijackedResponse()

    async def resize(self, request: web.Request) -> web.Response:
        await self._engine.exec_resize(request.match_info["id"], *terminal_size(request))
        return empty(200)

    async def inspect(self, request: web.Request) -> web.Response:
        return reply(exec_json(self._engine.exec_inspect(request.match_info["id"])))


def exec_config(wire: ExecWire) -> ExecConfig:
    """Raises InvalidArgument naming the field."""
    if not words(wire.cmd):
        raise InvalidArgument("No exec command specified")
    if wire.working_dir and not wire.working_dir.startswith("/"):
        raise InvalidArgument(f"the working directory '{wire.working_dir}' is invalid, it needs to be an absolute path")
    for entry in wire.env:
        if not entry or entry.startswith("="):
            raise InvalidArgument(f"invalid environment variable: {entry}")
    parse(wire.detach_keys)
    return ExecConfig(
        command=words(wire.cmd), env=wire.env, working_dir=wire.working_dir, user=wire.user,
        tty=wire.tty, privileged=wire.privileged, attach_stdin=wire.attach_stdin, attach_stdout=wire.attach_stdout,
        attach_stderr=wire.attach_stderr, detach_keys=wire.detach_keys, console_size=_size(wire.console_size))


def _size(size: tuple[int, int] | None) -> tuple[int, int]:
    height, width = size or (0, 0)
    if not (0 <= height <= MAX_TERMINAL and 0 <= width <= MAX_TERMINAL):
        raise InvalidArgument(f"invalid ConsoleSize {[height, width]}: each from 0 to {MAX_TERMINAL}")
    return height, width


def exec_json(each: Exec) -> dict[str, Any]:
    config = each.config
    return {
        "ID": each.id,
        "Running": each.running,
        "ExitCode": each.exit_code,
        "ProcessConfig": {"tty": config.tty, "entrypoint": config.command[0], "arguments": list(config.command[1:]),
                          "privileged": config.privileged, **({"user": config.user} if config.user else {})},
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": not each.running and each.exit_code is not None,
        "ContainerID": each.container_id,
        "DetachKeys": config.detach_keys,
        "Pid": each.pid,
    }
