"""Logs of services and tasks: read from the nodes that have them, merged as they come.

A node that cannot be reached costs its own lines and a warning among the others,
never the whole answer. With `follow`, tasks that start later are followed too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from shoal.api.errors import InvalidArgument, NotFound
from shoal.api.membership import at_port
from shoal.api.objects import Task
from shoal.api.states import NodeState, TaskState
from shoal.manager.controlapi.context import ControlContext
from shoal.manager.controlapi.frames import STDERR, BrokenStream, FrameReader, details, frame, with_details
from shoal.manager.controlapi.lookups import find_service, find_task
from shoal.manager.controlapi.requests import flag, version_of
from shoal.manager.store.memory import Watch
from shoal.manager.store.state import State

log = logging.getLogger(__name__)

QUEUE_FRAMES = 256
CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 10.0
"""A node that says nothing for so long, although nobody follows, is given up."""

MAX_SOURCES = 500
"""Tasks whose logs one request reads at once; the newest are preferred, and a warning says so."""


class LogRoutes:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/services/{id}/logs", self.of_service), web.get("/tasks/{id}/logs", self.of_task)]

    async def of_service(self, request: web.Request) -> web.StreamResponse:
        service = find_service(self._context.store.view(), request.match_info["id"])
        container = service.spec.task.container
        merge = Merge(self._context, request, service.id, None)
        return await merge.answer(raw=container is not None and container.tty)

    async def of_task(self, request: web.Request) -> web.StreamResponse:
        task = find_task(self._context.store.view(), request.match_info["id"])
        if task.spec.container is None:
            raise NotFound(f"task {task.id} is an attachment: its container's logs are on its own host")
        merge = Merge(self._context, request, None, task.id)
        return await merge.answer(raw=task.spec.container.tty)


class Merge:
    """One request's logs: of a service's tasks, or of one task."""

    def __init__(
        self, context: ControlContext, request: web.Request, service_id: str | None, task_id: str | None
    ) -> None:
        self._context = context
        self._request = request
        self._service_id, self._task_id = service_id, task_id
        self._raw = False
        self._details, self._timestamps = flag(request, "details"), flag(request, "timestamps")
        self._follow = flag(request, "follow")
        self._query = _query(request)
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_FRAMES)
        self._started: set[str] = set()
        self._readers: dict[str, tuple[Task, asyncio.Task[None]]] = {}
        self._early: dict[str, TaskState] = {}  # asked for in this state, when they had nothing to follow yet
        self._watch: Watch | None = None

    async def answer(self, raw: bool) -> web.StreamResponse:
        """Stream until every source has ended (never, where it follows a service that is there)."""
        response = web.StreamResponse()
        kind = "raw" if raw else "multiplexed"
        response.content_type = (
            f"application/vnd.docker.{kind}-stream" if version_of(self._request) >= (1, 42) else "text/plain"
        )
        self._raw = raw
        await response.prepare(self._request)
        try:
            async with asyncio.TaskGroup() as readers:
                source = readers.create_task(self._read_all())
                try:
                    while (data := await self._frames.get()) is not None:
                        await response.write(data)
                    await response.write_eof()
                finally:
                    source.cancel()
        except* ConnectionError:
            log.debug("the reader of logs went away path=%s", self._request.path)
        return response

    async def _read_all(self) -> None:
        with self._context.store.watch() as watch:  # before the view, so that no task falls between
            self._watch = watch
            async with asyncio.TaskGroup() as readers:
                await self._start_new(readers)
                while self._present() if self._follow else self._reading():
                    await watch.batch()
                    await self._drop_lost()
                    if self._follow:
                        await self._start_new(readers)
        await self._frames.put(None)

    def _reading(self) -> bool:
        """Whether there is still something to read of what is there."""
        return any(not reader.done() for _, reader in self._readers.values())

    def _present(self) -> bool:
        """Whether there is still something to follow."""
        view = self._context.store.view()
        if self._service_id is not None:
            return self._service_id in view.services
        return any(not task.status.state.terminal for task in self._about(view))

    def _about(self, view: State) -> list[Task]:
        if self._service_id is not None:
            return list(view.service_tasks(self._service_id))
        task = view.tasks.get(self._task_id or "")
        return [] if task is None else [task]

    async def _start_new(self, readers: asyncio.TaskGroup) -> None:
        view = self._context.store.view()
        new = [task for task in self._about(view)
               if task.id not in self._started and _has_logs(task) and task.status.state != self._early.get(task.id)]
        new.sort(key=lambda task: (-task.meta.created_at, task.id))
        room = MAX_SOURCES - len(self._started)
        if len(new) > room:
            skipped = new[max(room, 0)]
            await self._warn(skipped, f"there are more than {MAX_SOURCES} tasks: the oldest are left out")
        for task in new:
            self._started.add(task.id)
        for task in new[: max(room, 0)]:
            reader = readers.create_task(self._read(task, view))
            reader.add_done_callback(self._look_again)
            self._readers[task.id] = (task, reader)

    def _look_again(self, reader: asyncio.Task[None]) -> None:
        if self._watch is not None and not self._follow:
            self._watch.wake()  # it may have been the last

    async def _drop_lost(self) -> None:
        """Stop waiting for nodes that went down: a crash closes no connection."""
        nodes = self._context.store.view().nodes
        for task, reader in list(self._readers.values()):
            if reader.done():
                del self._readers[task.id]
                continue
            node = nodes.get(task.node_id)
            if node is None or node.status.state is NodeState.DOWN:
                reader.cancel()
                del self._readers[task.id]
                await self._warn(task, f"node {task.node_id} is not available any more")

    async def _read(self, task: Task, view: State) -> None:
        """One task's log. What goes wrong becomes a warning."""
        node = view.nodes.get(task.node_id)
        if node is None:
            await self._warn(task, f"node {task.node_id} is not part of the swarm any more")
            return
        if node.status.state is NodeState.DOWN or not node.status.addr:
            await self._warn(task, f"node {node.id} is not available")
            return
        prefix = details(_attributes(task)) if self._details else b""
        said = False
        try:
            async for stream, message in self._messages(task, node.status.addr):
                said = True
                if prefix:
                    message = with_details(message, prefix, self._timestamps)
                await self._frames.put(message if self._raw else frame(stream, message))
        except (aiohttp.ClientError, OSError, TimeoutError, BrokenStream, NotFound) as error:
            log.info("logs cut short task=%s node=%s error=%s", task.id, node.id, error)
            await self._warn(task, f"node {node.id} is not available: {str(error) or type(error).__name__}")
        else:
            if not said and task.status.state < TaskState.RUNNING:
                self._ask_again(task)

    def _ask_again(self, task: Task) -> None:
        """Its container was there and did not run yet: its host had nothing to follow."""
        self._early[task.id] = task.status.state
        self._started.discard(task.id)
        if self._watch is not None:
            self._watch.wake()  # that it runs may be known by now

    async def _messages(self, task: Task, address: str) -> AsyncIterator[tuple[int, bytes]]:
        context, reader = self._context, FrameReader()
        url = f"{context.host_scheme}://{at_port(address, context.host_port)}/tasks/{task.id}/logs"
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=CONNECT_TIMEOUT_S,
            sock_connect=CONNECT_TIMEOUT_S,
            sock_read=None if self._follow else SILENCE_TIMEOUT_S,
        )
        async with context.host_session().get(url, params=self._query, timeout=timeout) as answer:
            if answer.status == 404:  # its container is gone already, and its log with it
                return
            if answer.status != 200:
                why = (await answer.content.read(300)).decode(errors="replace")
                raise BrokenStream(f"it answered {answer.status}: {why}")
            async for data in answer.content.iter_any():
                for each in reader.feed(data):
                    yield each

    async def _warn(self, task: Task, why: str) -> None:
        text = f"warning: incomplete log stream. some logs could not be retrieved for the following reasons: {why}\n"
        message = text.encode()
        if self._details:
            message = with_details(message, details(_attributes(task)), timestamps=False)
        if self._timestamps:
            message = b"0001-01-01T00:00:00.000000000Z " + message
        await self._frames.put(message if self._raw else frame(STDERR, message))


def _attributes(task: Task) -> dict[str, str]:
    """What the docker command turns into `service.slot.id@node`."""
    return {
        "com.docker.swarm.node.id": task.node_id,
        "com.docker.swarm.service.id": task.service_id,
        "com.docker.swarm.task.id": task.id,
    }


def _has_logs(task: Task) -> bool:
    """Whether there is, or was, a container to ask for."""
    if not task.node_id:
        return False
    container = task.status.container
    return task.status.state == TaskState.RUNNING or (container is not None and bool(container.container_id))


def _query(request: web.Request) -> dict[str, str]:
    """What a node is asked. Raises InvalidArgument."""
    stdout, stderr = flag(request, "stdout"), flag(request, "stderr")
    if not stdout and not stderr:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail, since = request.query.get("tail", "") or "all", request.query.get("since", "") or "0"
    if tail != "all" and not (tail.isascii() and tail.lstrip("-").isdigit()):
        raise InvalidArgument(f"invalid tail {tail!r}: a number of lines, or all")
    if not since.replace(".", "", 1).isascii() or not since.replace(".", "", 1).isdigit():
        raise InvalidArgument(f"invalid since {since!r}: seconds since the epoch")
    chosen = {"stdout": stdout, "stderr": stderr, "follow": flag(request, "follow"),
              "timestamps": flag(request, "timestamps")}  # fmt: skip
    return {**{name: "1" for name, on in chosen.items() if on}, "tail": tail, "since": since}
