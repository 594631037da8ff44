"""A manager that says what a test wants, over the real CA and real TLS; and an executor without containers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

from aiohttp import web

from shoal.api.errors import NotFound, ShoalError
from shoal.api.jointoken import JoinToken
from shoal.api.messages import (
    Assignments,
    Heartbeat,
    Hello,
    ManagerPeer,
    NetworkInfo,
    Redirect,
    SessionInfo,
    StatusAck,
    StatusUpdates,
    encode,
    to_manager,
)
from shoal.api.objects import Task, TaskStatus
from shoal.api.states import Role
from shoal.manager.ca.issue import issue, new_key, new_request
from shoal.manager.ca.server import ca_routes
from shoal.manager.ca.tls import HostTLS
from shoal.manager.controlapi.errors import api_errors
from shoal.worker.executor import LogQuery, SeenCallback
from shoal.worker.taskmachine import Phase, Seen
from tests.unit.manager.controlapi_store import CLUSTER, MANAGER, Swarm

DEADLINE_S = 10.0


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition, by a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def write_certificate(folder: Path, swarm: Swarm, node_id: str, role: Role, cluster_id: str = CLUSTER) -> HostTLS:
    cluster = swarm.store.view().cluster
    assert cluster is not None
    key = new_key()
    folder.mkdir(parents=True, exist_ok=True)
    certificate = issue(cluster.root_ca, new_request(key), node_id=node_id, role=role, cluster_id=cluster_id,
                        lifetime_ns=10**9 * 86400, now=time.time())
    for name, text in (("node.key", key), ("node.crt", certificate), ("ca.crt", cluster.root_ca.cert_pem)):
        (folder / name).write_text(text)
    return HostTLS(folder)


class ScriptedManager:
    """Serves the CA for real and sessions by script. Several may share a `swarm`."""

    def __init__(self, folder: Path, swarm: Swarm, *, redirect_to: str | None = None) -> None:
        self.swarm = swarm
        self.tls = write_certificate(folder, swarm, MANAGER, Role.MANAGER)
        self.redirect_to = redirect_to
        self.role = Role.WORKER
        self.acking = True
        self.mute = False  # answers nothing any more, as a host that lost its power
        self.hellos: list[Hello] = []
        self.heard: list[Any] = []
        self.heartbeats = 0
        self.statuses: dict[str, list[TaskStatus]] = {}
        self.sockets: list[web.WebSocketResponse] = []
        self.first: list[Any] = [Assignments(sequence=1, complete=True)]
        self.peers: tuple[ManagerPeer, ...] = ()
        self.on_request: Callable[[Any], Any] = lambda message: None

    async def start(self) -> None:
        app = web.Application(middlewares=[api_errors])
        app.add_routes([*ca_routes(self.swarm.context), web.get("/dispatcher/v1/session", self._session)])
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.tls.server).start()
        self.addr = f"127.0.0.1:{self.runner.addresses[0][1]}"
        if not self.peers:
            self.peers = (ManagerPeer(node_id=MANAGER, addr=self.addr),)

    async def stop(self) -> None:
        for socket in self.sockets:
            await socket.close()
        await self.runner.cleanup()

    def token(self, role: Role = Role.WORKER) -> str:
        cluster = self.swarm.store.view().cluster
        assert cluster is not None
        secret = cluster.join_tokens.worker if role is Role.WORKER else cluster.join_tokens.manager
        return str(JoinToken(cluster.root_ca.digest, secret))

    async def say(self, message: Any) -> None:
        await self.sockets[-1].send_bytes(encode(message))

    async def drop(self) -> None:
        await self.sockets.pop().close()

    def states(self, task_id: str) -> list[str]:
        return [status.state.word for status in self.statuses.get(task_id, [])]

    async def _session(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        hello = to_manager.decode((await socket.receive()).data)
        assert isinstance(hello, Hello)
        if self.redirect_to is not None:
            await socket.send_bytes(encode(Redirect(leader_addr=self.redirect_to)))
            await socket.close()
            return socket
        await socket.send_bytes(encode(SessionInfo(
            session_id=f"s{len(self.hellos)}", node_id="", lease_s=0.6, role=self.role, managers=self.peers,
            leader=MANAGER, cluster_id=CLUSTER)))
        self.hellos.append(hello)
        self.sockets.append(socket)
        for message in self.first:
            await socket.send_bytes(encode(message))
        async for frame in socket:
            if self.mute:
                continue
            if frame.type.name == "PING":
                await socket.pong(frame.data)
            elif frame.type.name == "BINARY":
                await self._hear(socket, to_manager.decode(frame.data))
        return socket

    async def _hear(self, socket: web.WebSocketResponse, message: Any) -> None:
        if isinstance(message, Heartbeat):
            self.heartbeats += 1
            return
        self.heard.append(message)
        if isinstance(message, StatusUpdates):
            for task_id, status in message.updates:
                self.statuses.setdefault(task_id, []).append(status)
            if self.acking:
                await socket.send_bytes(encode(StatusAck(number=message.number)))
        elif (answer := self.on_request(message)) is not None:
            await socket.send_bytes(encode(answer))


class NoContainers:
    """An executor whose containers are entries in a dict that outlives it."""

    def __init__(self, containers: dict[str, Seen] | None = None) -> None:
        self.containers = {} if containers is None else containers
        self.calls: list[tuple[str, str]] = []
        self.refuse: dict[str, str] = {}  # call → message
        self._changed: SeenCallback = lambda task_id, seen: None

    async def open(self, changed: SeenCallback) -> dict[str, Seen]:
        self._changed = changed
        return dict(self.containers)

    async def close(self) -> None:
        self._changed = lambda task_id, seen: None

    async def prepare(self, task: Task) -> None:
        self._note("prepare", task.id)
        self.containers[task.id] = Seen(phase=Phase.CREATED, container_id="c" + task.id)

    async def start(self, task: Task) -> None:
        self._note("start", task.id)
        self.containers[task.id] = Seen(phase=Phase.RUNNING, container_id="c" + task.id, pid=7)

    async def stop(self, task_id: str, grace_s: float) -> None:
        self._note("stop", task_id)
        if self.seen(task_id).phase is Phase.RUNNING:
            self.containers[task_id] = Seen(phase=Phase.EXITED, container_id="c" + task_id, exit_code=143)

    async def remove(self, task_id: str) -> None:
        self._note("remove", task_id)
        self.containers.pop(task_id, None)

    def seen(self, task_id: str) -> Seen:
        return self.containers.get(task_id, Seen())

    async def logs(self, task_id: str, query: LogQuery) -> AsyncIterator[bytes]:
        if task_id not in self.containers:
            raise NotFound(f"no container of task {task_id}")
        yield b"\x01\0\0\0\0\0\0\x06hello\n"

    def exit(self, task_id: str, code: int) -> None:
        seen = Seen(phase=Phase.EXITED, container_id="c" + task_id, exit_code=code)
        self.containers[task_id] = seen
        self._changed(task_id, seen)

    def _note(self, call: str, task_id: str) -> None:
        self.calls.append((call, task_id))
        if call in self.refuse:
            raise ShoalError(self.refuse[call])


class NotedNetworks:
    """The network side, noting what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.known: dict[str, NetworkInfo] = {}
        self.underlay: tuple[str, int] | None = None

    def set_underlay(self, address: str, port: int = 4789) -> None:
        self.underlay = (address, port)

    async def apply_cluster(self, *, complete: bool = False, networks: Iterable[NetworkInfo] = (),
                            **rest: Any) -> None:
        assert self.underlay is not None, "the underlay comes first"
        if complete:
            self.known.clear()
        self.known.update({network.id: network for network in networks})
        self.told.append({"complete": complete, **{key: tuple(value) for key, value in rest.items()}})

    def cluster_networks(self) -> list[NetworkInfo]:
        return list(self.known.values())
