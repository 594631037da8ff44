"""`SwarmHost`: whether this host is in a swarm, and what of it runs because of that.

    inactive ──init, join──► pending ──► active ──leave──► inactive

An agent runs on every node, a manager process where the certificate's role says
so. Both are brought back when they end; both follow the role that the managers want.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from shoal.api.errors import ShoalError, Unavailable
from shoal.api.membership import HOST_PORT, Identity, InitRequest, SwarmEvent, at_port
from shoal.api.objects import NodeDescription
from shoal.api.states import Role
from shoal.daemon.swarm.events import follow
from shoal.daemon.swarm.process import PROGRAM, ManagerProcess
from shoal.engine.images.distribution.puller import Puller
from shoal.worker.agent import Agent, ClusterNetworking
from shoal.worker.credentials import Credentials
from shoal.worker.enroll import JoinRequest, enroll
from shoal.worker.executor import Executor
from shoal.worker.hostserver import HostServer
from shoal.worker.peers.bringing import Peers

log = logging.getLogger(__name__)

JOIN_TIMEOUT_S = 20.0
RESTART_S = (0.2, 10.0)
"""First and longest wait before something that ended is started again."""

ALREADY = ('This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.')
NOT_PART = "This node is not part of a swarm"
STILL_JOINING = ("Timeout was reached before node joined. The attempt to join the swarm will continue in the "
                 'background. Use the "docker info" command to see the current swarm status of your node.')


class SwarmNetworking(ClusterNetworking, Protocol):
    """What the swarm's part needs of the network side."""


class SwarmHost:
    """`start` and `stop` with the daemon."""

    def __init__(
        self, *, data_root: Path, run_root: Path, networks: SwarmNetworking, executor: Callable[[str], Executor],
        describe: Callable[[], NodeDescription], publish: Callable[[SwarmEvent], None],
        host_port: int = HOST_PORT, program: Sequence[str] = PROGRAM, puller: Puller | None = None,
    ) -> None:
        """`publish` is told of each change in the swarm, while a manager runs on this host.

        `puller`: of the images that are shared with other hosts.
        """
        self.credentials = Credentials(data_root / "swarm")
        self.manager = ManagerProcess(data_root, run_root, program)
        self.networks = networks
        self.agent: Agent | None = None
        self.state = "inactive"
        self.error = ""
        self.manages = False  # the manager process is meant to run, and has been ready
        self._make_executor = executor
        self._describe = describe
        self._publish = publish
        self._host_port = host_port
        self.peers = Peers(puller, self.credentials, self._serves, lambda: self.agent) if puller is not None else None
        self._server: HostServer | None = None
        self._changing = asyncio.Lock()  # init, join and leave, one at a time
        self._watchers: list[asyncio.Task[None]] = []
        self._promoted = asyncio.Event()

    @property
    def identity(self) -> Identity | None:
        return self.credentials.identity

    def _serves(self) -> str:
        """Where other hosts reach this one's port, as host:port."""
        address = self.identity.advertise_addr if self.identity is not None else ""
        return at_port(address, self._host_port)

    # --- life ---

    async def start(self) -> None:
        """Take part again, if this host is in a swarm. What cannot run now is tried again later."""
        try:
            identity = self.credentials.load()
        except ShoalError as error:
            self.state, self.error = "error", error.message
            log.error("event=swarm-identity-broken error=%s", error)
            return
        if identity is not None:
            self.manages = identity.role is Role.MANAGER
            await self._take_part(identity)

    async def stop(self) -> None:
        """Let go; containers and the manager process go on."""
        await self._stop_watching()
        await self._stop_agent(leaving=False)
        await self.manager.close()
        if self.peers is not None:
            await self.peers.close()

    # --- init, join, leave ---

    async def init(self, request: InitRequest) -> str:
        """Make a swarm of this host alone. Returns its node id. Raises ShoalError; then nothing is left."""
        async with self._changing:
            self._must_be_free()
            self.state = "pending"
            try:
                self.manager.spawn("init", request)
                await self.manager.ready()
                identity = self.credentials.load()
                if identity is None:
                    raise ShoalError("the manager made no identity for this host")
                self.manages = True
                await self._take_part(identity)
                assert self.agent is not None
                await self.agent.joined(JOIN_TIMEOUT_S)
            except BaseException:
                await self._undo()
                raise
            return identity.node_id

    async def join(self, request: JoinRequest) -> None:
        """Join the swarm that the token belongs to. Raises ShoalError; then nothing is left.

        Unavailable (`STILL_JOINING`) where no session opens in time: joining goes on then.
        """
        async with self._changing:
            self._must_be_free()
            self.state = "pending"
            try:
                identity = await enroll(self.credentials, request)
                if identity.role is Role.MANAGER:
                    self.manager.spawn("join")
                    await self.manager.ready()
                    self.manages = True
                await self._take_part(self.credentials.load() or identity)
            except BaseException:
                await self._undo()
                raise
            assert self.agent is not None
            if not await self.agent.joined(JOIN_TIMEOUT_S):
                raise Unavailable(STILL_JOINING)

    async def leave(self, *, force: bool) -> None:
        """Leave the swarm: its containers are removed, and everything that was known of it. Raises Unavailable."""
        async with self._changing:
            identity = self.identity
            if identity is None and self.state == "inactive":
                raise Unavailable(NOT_PART)
            if identity is not None and identity.role is Role.MANAGER:
                if not force:
                    raise Unavailable(await self._why_not_leave())
                try:
                    await self.manager.leave(force=True)
                except ShoalError as error:
                    log.warning("event=left-without-notice error=%s", error)
            await self._stop_watching()
            await self.manager.stop()
            await self._stop_agent(leaving=True)
            self._forget()

    async def _why_not_leave(self) -> str:
        info = await self.manager.info()
        message = "You are attempting to leave the swarm on a node that is participating as a manager. "
        if info is None or info.managers <= 1:
            return message + ("Removing the last manager erases all current state of the swarm. "
                              "Use `--force` to ignore this message. ")
        if info.managers == 2:
            return message + ("Removing this node leaves 1 manager out of 2. Without a Raft quorum your swarm will be "
                              "inaccessible. The only way to restore a swarm that has lost consensus is to "
                              "reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message. ")
        return message + "The only way to leave is to demote it first. Use `--force` to suppress this message. "

    def _must_be_free(self) -> None:
        if self.identity is not None or self.state != "inactive":
            raise Unavailable(ALREADY)

    async def _undo(self) -> None:
        await self._stop_watching()
        await self.manager.stop()
        await self._stop_agent(leaving=True)
        self._forget()

    def _forget(self) -> None:
        self.credentials.clear()
        self.manages = False
        self.state, self.error = "inactive", ""

    # --- taking part ---

    async def _take_part(self, identity: Identity) -> None:
        self.state, self.error = "active", ""
        await self._start_agent(identity)
        loop = asyncio.get_running_loop()
        self.credentials.changed.clear()
        self._watchers = [
            loop.create_task(self._watch_manager(), name="manager process"),
            loop.create_task(self._watch_role(), name="role"),
        ]
        for watcher in self._watchers:
            watcher.add_done_callback(_report)

    async def _stop_watching(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    async def _start_agent(self, identity: Identity) -> None:
        executor = self._make_executor(identity.node_id)
        peers = self.peers
        self._server = HostServer(self.credentials, executor, peers.sharing if peers is not None else None)
        try:
            await self._server.start(identity.listen_addr, self._host_port)
        except OSError as error:  # logs cannot be read from elsewhere; everything else works
            log.error("event=host-port-taken port=%d error=%s", self._host_port, error)
        self.agent = Agent(self.credentials, executor, self.networks, self._describe,
                           peers.tell if peers is not None else None)
        await self.agent.start(self._agent_failed)

    async def _stop_agent(self, *, leaving: bool) -> None:
        agent, self.agent = self.agent, None
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
        if agent is not None:
            await agent.stop(leaving=leaving)

    def _agent_failed(self, error: BaseException) -> None:
        self.error = str(error)
        again = asyncio.get_running_loop().create_task(self._restart_agent(), name="agent again")
        again.add_done_callback(_report)
        self._watchers.append(again)

    async def _restart_agent(self) -> None:
        await asyncio.sleep(RESTART_S[0] * 5)
        if self.identity is not None:
            await self._stop_agent(leaving=False)
            await self._start_agent(self.identity)

    async def _watch_role(self) -> None:
        """Follow the role in the certificate: a manager process where it says manager, none where not."""
        while True:
            await self.credentials.changed.wait()
            self.credentials.changed.clear()
            identity = self.identity
            if identity is None:
                continue
            if identity.role is Role.WORKER and self.manages:
                log.info("event=demoted")
                self.manages = False
                await self.manager.stop()
                await asyncio.to_thread(shutil.rmtree, self.credentials.folder / "raft", ignore_errors=True)
            elif identity.role is Role.MANAGER and not self.manages:
                log.info("event=promoted")
                self.manages = True
                self._promoted.set()

    async def _watch_manager(self) -> None:
        """Adopt the manager process or start it, again and again, while this host is a manager."""
        failures = 0
        while True:
            if not self.manages:
                self._promoted.clear()
                await self._promoted.wait()
            pid = await self.manager.pid()
            if pid is None and self.manages:
                raft = self.credentials.folder / "raft"
                self.manager.spawn("run" if raft.exists() and any(os.scandir(raft)) else "join")
                pid = await self.manager.pid()
            started = asyncio.get_running_loop().time()
            if pid is not None:
                await self._follow_to_its_end(pid)
            if not self.manages:
                continue
            failures = 1 if asyncio.get_running_loop().time() - started > RESTART_S[1] else failures + 1
            log.warning("event=manager-ended pid=%s failures=%d", pid, failures)
            await asyncio.sleep(min(RESTART_S[0] * 2 ** (failures - 1), RESTART_S[1]))

    async def _follow_to_its_end(self, pid: int) -> None:
        events = asyncio.get_running_loop().create_task(follow(self.manager, self._publish), name="swarm events")
        events.add_done_callback(_report)
        try:
            await self.manager.ended(pid)
        finally:
            events.cancel()
            await asyncio.wait([events])


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("event=swarm-watcher-ended name=%s", task.get_name(), exc_info=error)
