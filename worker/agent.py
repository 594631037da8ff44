"""The agent put together: session, networks, tasks, statuses, attachments, certificates.

Level-triggered: a complete message replaces everything, an increment changes it,
and in between containers and networks keep doing what they were last told, with
or without managers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Protocol

import msgspec

from shoal.api.errors import NotFound, PermissionDenied, Unavailable
from shoal.api.membership import VXLAN_PORT
from shoal.api.messages import (
    Applied,
    Assignments,
    Attach,
    Detach,
    FindImage,
    FindNetwork,
    FoundImage,
    HeldImages,
    Hello,
    MayTake,
    NetworkEndpoint,
    NetworkInfo,
    NetworkService,
    Release,
    Reply,
    SessionInfo,
    StatusAck,
    ToAgent,
)
from shoal.api.objects import NodeDescription, Task, TaskStatus
from shoal.api.sandbox import EndpointRequest
from shoal.api.states import Role, TaskState
from shoal.worker.assignments import Desired, Sequence
from shoal.worker.credentials import Credentials
from shoal.worker.executor import Executor
from shoal.worker.questions import Questions
from shoal.worker.renew import Renewer
from shoal.worker.reporter import Reporter
from shoal.worker.session import Dialer, Session, SessionLost, keep
from shoal.worker.tasks import Tasks

log = logging.getLogger(__name__)

ASSIGNMENTS_FILE = "assignments.msgpack"


class ClusterNetworking(Protocol):
    """The part of `overlay.Networks` that the agent drives."""

    def set_underlay(self, address: str, port: int = VXLAN_PORT) -> None: ...

    async def apply_cluster(
        self, *, complete: bool = False, networks: Iterable[NetworkInfo] = (), removed_networks: Iterable[str] = (),
        endpoints: Iterable[NetworkEndpoint] = (), removed_endpoints: Iterable[tuple[str, str]] = (),
        services: Iterable[NetworkService] = (), removed_services: Iterable[tuple[str, str]] = (),
    ) -> None: ...

    def cluster_networks(self) -> list[NetworkInfo]: ...


class Agent:
    """`start`, then it works until `stop`."""

    def __init__(
        self, credentials: Credentials, executor: Executor, networks: ClusterNetworking,
        describe: Callable[[], NodeDescription],
        tell_images: Callable[[Callable[[HeldImages], Awaitable[None]]], Awaitable[None]] | None = None,
    ) -> None:
        """`tell_images` is given what sends, in each session anew, and says what images are here until cancelled."""
        identity = credentials.identity
        assert identity is not None, "credentials are loaded first"
        self.node_id = identity.node_id
        self.leader = ""  # node id
        self.last_error = ""
        self._credentials = credentials
        self._networks = networks
        self._describe = describe
        self._tell_images = tell_images
        self._reporter = Reporter()
        self._fresh_status = asyncio.Event()
        self._tasks = Tasks(executor, self._report)
        self._desired = Desired(credentials.folder / ASSIGNMENTS_FILE, identity.node_id)
        self._dialer = Dialer(credentials.client)
        self._renewer = Renewer(credentials, self.addresses)
        self._questions = Questions()
        self._session_id = ""
        self._attached: dict[str, dict[str, str]] = {}  # container id → network id → task id
        self._running: asyncio.Task[None] | None = None
        self._failed: Callable[[BaseException], None] = lambda error: None

    # --- life ---

    async def start(self, failed: Callable[[BaseException], None] | None = None) -> None:
        """Take up what runs already, then look for the managers. `failed` hears of an end nobody asked for."""
        if failed is not None:
            self._failed = failed
        self._set_underlay(VXLAN_PORT)
        await self._tasks.open()
        self._take(self._desired.load())
        self._running = asyncio.get_running_loop().create_task(self._run(), name="agent")
        self._running.add_done_callback(self._over)

    async def stop(self, *, leaving: bool = False) -> None:
        """Let go; containers live on. `leaving`: the swarm's containers are stopped and removed."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        await self._dialer.close()
        if leaving:
            self._desired.discard()
            await self._tasks.stop_all()
            await self._networks.apply_cluster(complete=True)
        else:
            self._desired.close()
        await self._tasks.close()

    async def joined(self, timeout_s: float) -> bool:
        """Wait for a session; whether there is one."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._questions.open.wait()
        except TimeoutError:
            return False
        return True

    @property
    def connected(self) -> bool:
        return self._questions.session is not None

    def addresses(self) -> list[str]:
        """Where managers were last known, the leader first."""
        identity = self._credentials.identity
        if identity is None:
            return []
        known = [one.addr for one in sorted(identity.managers, key=lambda one: one.node_id != self.leader)]
        own = [identity.manager_addr] if identity.role is Role.MANAGER else []
        return list(dict.fromkeys([*known, *own]))

    # --- what others on this host ask ---

    async def attach(
        self, network: str, container_id: str, name: str, aliases: tuple[str, ...] = (), address: str = ""
    ) -> EndpointRequest:
        """A place for a container on an attachable network. Raises ShoalError with the managers' reason."""
        reply = await self._questions.ask(lambda number: Attach(
            id=number, network=network, container_id=container_id, name=name, aliases=aliases, address=address))
        if reply.attachment is None or not reply.attachment.attachments:
            raise Unavailable(f"the managers gave container {container_id} no address on network {network}")
        given = reply.attachment.attachments[0]
        if reply.network is not None:
            await self._networks.apply_cluster(networks=(reply.network,))
        self._attached.setdefault(container_id, {})[given.network_id] = reply.attachment.id
        return EndpointRequest(network=given.network_id, aliases=aliases, mac=given.mac,
                               address=given.addresses[0] if given.addresses else "")

    async def detach(self, container_id: str, network_id: str = "") -> None:
        """Give back a container's places (or the one on `network_id`). No error where it has none."""
        held = self._attached.get(container_id, {})
        for one in [network_id] if network_id else list(held):
            if (task_id := held.get(one)) is not None:
                try:
                    await self._questions.ask(partial(_detach, task_id))
                except NotFound:
                    log.debug("event=detached-already task=%s", task_id)
                if held.get(one) == task_id:
                    del held[one]
        if not held:
            self._attached.pop(container_id, None)

    def attachments(self) -> dict[str, dict[str, str]]:
        """Container id → network id → task id of what is attached."""
        return {container: dict(held) for container, held in self._attached.items() if held}

    async def find_network(self, reference: str) -> NetworkInfo | None:
        """An attachable network of the swarm, by id or name."""
        for known in self._networks.cluster_networks():
            if reference in (known.id, known.name):
                return known
        try:
            reply = await self._questions.ask(lambda number: FindNetwork(id=number, network=reference))
        except NotFound:
            return None
        return reply.network

    async def find_image(self, image: str) -> FoundImage | None:
        """Which other hosts have it; None where none has it, or no manager can be asked."""
        if not self._shares_images:
            return None
        try:
            return (await self._questions.ask(lambda number: FindImage(id=number, image=image))).image
        except NotFound:
            return None

    async def may_take(self, node_id: str, manifest: str) -> bool:
        """Whether a node may have a private image of this one. Not, where no manager can be asked."""
        if not self._shares_images:
            return False
        try:
            await self._questions.ask(lambda number: MayTake(id=number, node_id=node_id, manifest=manifest))
        except (PermissionDenied, Unavailable):
            return False
        return True

    @property
    def _shares_images(self) -> bool:
        session = self._questions.session
        return session is not None and session.info.shares_images

    # --- the session ---

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renewer.run())
            group.create_task(keep(self._dialer, self.addresses, self._hello, self._use, self._lost))

    def _over(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled() and (error := running.exception()) is not None:
            log.error("event=agent-ended", exc_info=error)
            self.last_error = str(error)
            self._failed(error)

    def _hello(self) -> Hello:
        identity = self._credentials.identity
        assert identity is not None
        return Hello(description=self._describe(), session_id=self._session_id,
                     addr=identity.data_path_addr or identity.advertise_addr)

    async def _use(self, session: Session) -> None:
        """Serve one session until it breaks."""
        self._reporter.reconnected()
        self._fresh_status.set()
        self._learn(session.info)
        self._questions.opened(session)
        self.last_error = ""
        log.info("event=session address=%s session=%s", session.address, session.info.session_id)
        inbox: asyncio.Queue[Assignments] = asyncio.Queue(256)
        async with asyncio.TaskGroup() as group:
            group.create_task(session.watch())
            group.create_task(self._send_statuses(session))
            group.create_task(self._apply_all(session, inbox))
            group.create_task(self._receive(session, inbox))
            if self._tell_images is not None and session.info.shares_images:
                group.create_task(_sent(self._tell_images(session.send)))

    def _lost(self, why: str) -> None:
        self._questions.lost(why)
        self.last_error = why

    async def _receive(self, session: Session, inbox: asyncio.Queue[Assignments]) -> None:
        sequence = Sequence()
        while True:
            message = await session.receive()
            if isinstance(message, Assignments):
                sequence.check(message)
                await inbox.put(message)
            else:
                self._hear(message, session)

    def _hear(self, message: ToAgent, session: Session) -> None:
        if isinstance(message, StatusAck):
            self._reporter.acked(message.number)
        elif isinstance(message, Release):
            self._tasks.release(message.task_ids)
        elif isinstance(message, Reply):
            self._questions.hear(message)
        elif isinstance(message, SessionInfo):
            session.info = message
            self._learn(message)
        else:
            raise SessionLost(f"manager {session.address} does not lead any more")

    def _learn(self, info: SessionInfo) -> None:
        """What a manager says of the swarm: the managers, the roots, the role it wants of this node."""
        identity = self._credentials.identity
        assert identity is not None
        if info.node_id and info.node_id != identity.node_id:
            raise SessionLost(f"the manager takes this node for {info.node_id}")
        self._session_id, self.leader = info.session_id, info.leader
        following = msgspec.structs.replace(
            identity, managers=info.managers or identity.managers, data_path_port=info.data_path_port)
        if following != identity:
            self._credentials.save(following)
        self._set_underlay(info.data_path_port)
        self._renewer.want(Role(info.role))

    def _set_underlay(self, port: int) -> None:
        identity = self._credentials.identity
        assert identity is not None
        self._networks.set_underlay(identity.data_path_addr or identity.advertise_addr, port)

    # --- assignments and statuses ---

    async def _apply_all(self, session: Session, inbox: asyncio.Queue[Assignments]) -> None:
        while True:
            message = await inbox.get()
            await self._apply(message)
            await session.send(Applied(sequence=message.sequence))

    async def _apply(self, message: Assignments) -> None:
        """Networks first, so that a container finds its own; then tasks."""
        if message.complete or has_network_part(message):
            await self._networks.apply_cluster(
                complete=message.complete, networks=message.networks, removed_networks=message.removed_networks,
                endpoints=message.endpoints, removed_endpoints=message.removed_endpoints,
                services=message.services, removed_services=message.removed_services)
        self._desired.apply(message)
        self._take(message.tasks, message.removed_tasks, complete=message.complete)

    def _take(self, tasks: Iterable[Task], removed: Iterable[str] = (), *, complete: bool = False) -> None:
        containers, removed = [], set(removed)
        for held in self._attached.values():
            for network_id in [one for one, task_id in held.items() if task_id in removed]:
                del held[network_id]
        for task in tasks:
            if task.spec.attachment is None:
                containers.append(task)
            else:
                self._take_attachment(task, task.spec.attachment)
        self._tasks.apply(containers, removed, complete=complete)

    def _take_attachment(self, task: Task, container_id: str) -> None:
        """An attachment runs as long as the managers want it: its container is the engine's."""
        if task.status.state.terminal:
            return
        wanted = task.desired <= TaskState.RUNNING
        if wanted:
            for attachment in task.attachments:
                self._attached.setdefault(container_id, {})[attachment.network_id] = task.id
        state = TaskState.RUNNING if wanted else TaskState.SHUTDOWN
        if task.status.state < state:
            self._report(task.id, TaskStatus(state=state, message="attached" if wanted else "detached"))

    def _report(self, task_id: str, status: TaskStatus) -> None:
        self._reporter.add(task_id, status)
        self._fresh_status.set()

    async def _send_statuses(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._fresh_status.wait()
            self._fresh_status.clear()
            while (wait_s := self._reporter.due_in(loop.time())) is not None:
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                if (updates := self._reporter.flush(loop.time())) is not None:
                    await session.send(updates)


async def _sent(telling: Awaitable[None]) -> None:
    await telling


def has_network_part(message: Assignments) -> bool:
    return bool(message.networks or message.removed_networks or message.endpoints or message.removed_endpoints
                or message.services or message.removed_services)


def _detach(task_id: str, number: int) -> Detach:
    return Detach(id=number, task_id=task_id)
