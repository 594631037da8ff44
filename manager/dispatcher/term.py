"""One term of office of the dispatcher: its sessions, and the loops that serve them.

Three loops: one turns events of the store into messages, one commits what agents
report, one lets leases run out. Decisions are those of the pure parts; what a frame
means is in `_hear`. Everything here is gone with the term.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec
from aiohttp import WSCloseCode, web

from shoal.api.errors import InvalidArgument, NoLeader, Overloaded, PermissionDenied, Unavailable
from shoal.api.messages import (
    Applied,
    Attach,
    DescriptionUpdate,
    Detach,
    FindImage,
    FindNetwork,
    HeldImages,
    Hello,
    MayTake,
    Redirect,
    Release,
    Reply,
    Request,
    StatusAck,
    StatusUpdates,
    ToManager,
)
from shoal.api.objects import Node, NodeDescription, NodeStatus
from shoal.api.states import NodeState
from shoal.manager.ca.server import manager_peers
from shoal.manager.controlloop import Store
from shoal.manager.dispatcher.assignments import Assigner, Leaving
from shoal.manager.dispatcher.holdings import Holdings
from shoal.manager.dispatcher.liveness import Leases, Verdict, admit
from shoal.manager.dispatcher.release import Releases
from shoal.manager.dispatcher.requests import Requests
from shoal.manager.dispatcher.session import ProtocolError, Session, close
from shoal.manager.dispatcher.sessioninfo import lease_s, session_info
from shoal.manager.dispatcher.statuses import StatusQueue, hear
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, SetNodeStatus
from shoal.manager.store.memory import Resync, Watch
from shoal.manager.store.state import State

log = logging.getLogger(__name__)

MAX_SESSIONS = 20_000
DEBOUNCE_S = 0.004
"""Between two rounds of messages: a burst becomes one; the first event after a rest waits for nothing."""

COMMIT_S = 0.02
"""Between two commits of statuses, likewise."""

COMMIT_CHANGES = 1000
RETRY_S = 0.2
LATE_S = 0.25
"""A loop that woke this much too late was stalled, and so was the reading of frames."""

CATCH_UP_S = 0.25
"""After that, what hosts have sent meanwhile is read within this."""

TURN_S = 0.01
"""Messages are made for so long at a stretch."""


class Term:
    """`run` it as a loop of the leader; meanwhile `serve` sockets."""

    def __init__(
        self, store: Store, *, node_id: str, leader_addr: Callable[[], str], clock: Callable[[], float],
        mint_id: Callable[[], str],
    ) -> None:
        self._store, self._node_id = store, node_id
        self._leader_addr, self._clock, self._mint_id = leader_addr, clock, mint_id
        self._sessions: dict[str, Session] = {}  # by node id
        self._by_id: dict[str, Session] = {}
        self._newcomers: dict[str, Session] = {}  # node id → session that has no complete message yet
        self._assigner = Assigner()
        self._releases = Releases()
        self._statuses = StatusQueue()
        self._holdings = Holdings()
        self._requests = Requests(store, mint_id, self._holdings)
        self._leases = Leases(lease_s(store.view()))
        self._peers = manager_peers(store.view())
        self._reported = asyncio.Event()
        self._leased = asyncio.Event()
        self._over = False

    async def run(self) -> None:
        """Until cancelled, or until the office is lost (a group with NoLeader); sessions end with a redirect."""
        try:
            with self._store.watch() as watch:
                view = self._store.view()
                self._assigner.load(view)
                there = [node.id for node in view.nodes.values() if node.status.state != NodeState.DOWN]
                self._leases.load(there, self._clock())
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._tell(watch))
                    group.create_task(self._commit())
                    group.create_task(self._expire())
        finally:
            self._over = True
            for session in list(self._sessions.values()):
                session.end("this manager does not lead any more", Redirect(leader_addr=self._leader_addr()))

    # --- sessions ---

    def check(self, node_id: str, cluster_id: str) -> None:
        """Whether a node may begin a session here. Raises PermissionDenied, Unavailable and Overloaded."""
        view = self._store.view()
        if view.cluster is None:
            raise Unavailable("this manager has not caught up with the swarm yet: try again")
        if view.cluster.id != cluster_id:
            raise PermissionDenied(f"the certificate of node {node_id} belongs to another swarm")
        if node_id not in view.nodes:
            raise PermissionDenied(f"node {node_id} is not part of this swarm (any more): join it again")
        if len(self._sessions) >= MAX_SESSIONS and node_id not in self._sessions:
            raise Overloaded(f"this manager serves {MAX_SESSIONS} sessions already")

    async def serve(self, socket: web.WebSocketResponse, node_id: str, hello: Hello, remote: str) -> None:
        """One session, from its hello to its end."""
        now = self._clock()
        session = Session(socket, node_id, self._mint_id(), now)
        current = self._sessions.get(node_id)
        verdict = Verdict.WELCOME if current is None else admit(current.id, current.heard, hello.session_id, now)
        if verdict is Verdict.REFUSED:
            log.warning("event=session-refused node=%s remote=%s why=another host with this identity is there",
                        node_id, remote)
            await close(socket, WSCloseCode.POLICY_VIOLATION, f"another host is there as node {node_id}")
            return
        if current is not None:
            self._drop(current)
            current.end("a newer session of this node has begun")
        node = self._store.view().nodes.get(node_id)
        if self._over or node is None:
            await close(socket, WSCloseCode.TRY_AGAIN_LATER, "begin again")
            return
        self._sessions[node_id] = self._by_id[session.id] = session
        self._newcomers[node_id] = session
        try:
            self._begin(session, node, hello, now)
            log.info("event=session-begun node=%s session=%s remote=%s", node_id, session.id, remote)
            why = await session.serve(lambda message: self._hear(session, message))
            log.info("event=session-ended node=%s session=%s why=%s", node_id, session.id, why)
        finally:
            self._drop(session)

    def _begin(self, session: Session, node: Node, hello: Hello, now: float) -> None:
        self._inform(session, self._store.view())
        self._leases.open(node.id, now)
        self._leased.set()
        self._note_node(node, NodeStatus(state=NodeState.READY, addr=hello.addr), hello.description)
        if self._assigner.ready:
            self._complete(session)

    def _complete(self, session: Session) -> None:
        self._newcomers.pop(session.node_id, None)
        session.assign(self._assigner.complete(session.node_id))

    def _drop(self, session: Session) -> None:
        """Nothing of a session is kept; its node may have another one already."""
        self._by_id.pop(session.id, None)
        self._statuses.forget(session.id)
        if self._sessions.get(session.node_id) is not session:
            return
        del self._sessions[session.node_id]
        self._newcomers.pop(session.node_id, None)
        self._holdings.forget(session.node_id)
        self._assigner.disconnect(session.node_id)
        self._release(self._releases.gone(session.node_id))

    def _inform(self, session: Session, view: State) -> None:
        """Say what a node must know of the swarm, where it is not what was said last."""
        node = view.nodes.get(session.node_id)
        if node is None or view.cluster is None:
            return
        info = session_info(view.cluster, node, session.id, self._peers, self._node_id)
        if info != session.info:
            session.info = info
            session.say(info)

    # --- what agents say ---

    def _hear(self, session: Session, message: ToManager | None) -> None:
        """Take one message in. Raises ProtocolError."""
        session.heard = self._clock()
        if self._sessions.get(session.node_id) is not session:
            return  # it was replaced, and is about to end
        self._leases.renew(session.node_id, session.heard)
        match message:
            case StatusUpdates():
                self._hear_statuses(session, message)
            case Applied(sequence=sequence):
                self._release(self._releases.applied(session.node_id, min(sequence, session.sequence)))
            case DescriptionUpdate(description=description):
                if (node := self._store.view().nodes.get(session.node_id)) is not None:
                    self._note_node(node, None, description)
            case HeldImages():
                try:
                    self._holdings.hear(session.node_id, message)
                except InvalidArgument as error:
                    raise ProtocolError(error.message) from error
            case Hello():
                raise ProtocolError("a second hello")
            case Attach() | Detach() | FindNetwork() | FindImage() | MayTake():
                if session.busy:
                    session.say(Reply(id=message.id, status=503, error="too many requests of this node are waiting"))
                else:
                    session.ask(self._answer(session, message))

    def _hear_statuses(self, session: Session, message: StatusUpdates) -> None:
        heard = hear(self._store.view(), session.node_id, message.updates)
        if heard.refused:
            log.warning("event=status-refused node=%s tasks=%s why=not its own, or no state that an agent reports",
                        session.node_id, ",".join(each[:32] for each in heard.refused[:10]))
        if self._statuses.add(session.id, message.number, heard.news):
            session.say(StatusAck(number=message.number))
        self._reported.set()

    async def _answer(self, session: Session, request: Request) -> None:
        try:
            session.say(await self._requests.answer(session.node_id, request))
        except NoLeader:
            session.end("this manager does not lead any more", Redirect(leader_addr=self._leader_addr()))

    def _note_node(self, node: Node, status: NodeStatus | None, description: NodeDescription | None) -> None:
        """Have the store told of a node, where that is news."""
        waiting = self._statuses.node(node.id)
        known = node.status if waiting is None else waiting.status
        described = node.description if waiting is None or waiting.description is None else waiting.description
        status = known if status is None else status
        if status != known or (description is not None and description != described):
            self._statuses.add_node(SetNodeStatus(id=node.id, status=status, description=description))
            self._reported.set()

    # --- loops ---

    async def _tell(self, watch: Watch) -> None:
        """Events → rounds → messages."""
        told_at = float("-inf")
        while True:
            if not self._assigner.dirty:
                until = self._releases.deadline()
                self._observe(await watch.batch(None if until is None else max(until - self._clock(), 0)))
            pause_s = told_at + DEBOUNCE_S - self._clock() if self._assigner.ready else 0
            await asyncio.sleep(max(pause_s, 0))
            self._observe(watch.drain())
            if self._assigner.dirty:
                await self._tell_round()
                told_at = self._clock()
            self._release(self._releases.due(self._clock()))

    def _observe(self, events: Sequence[Event | Resync]) -> None:
        view = self._store.view()
        if any(isinstance(event, Resync) for event in events):
            log.info("event=assignments-reload sessions=%d", len(self._sessions))
            self._assigner.load(view)
            self._newcomers.update(self._sessions)
            self._requests.wake_all()
            self._inform_all(view)
            for session in [each for each in self._sessions.values() if each.node_id not in view.nodes]:
                self._node_gone(session.node_id)
            return
        changes = [event for event in events if isinstance(event, Event)]
        self._assigner.observe(changes, view)
        self._requests.observe(changes)
        for event in changes:
            if event.table == "node":
                self._node_changed(event, view)
            elif event.table == "cluster":
                self._leases.set_lease(lease_s(view), self._clock())
                self._inform_all(view)

    def _node_changed(self, event: Event, view: State) -> None:
        old, new = event.old, event.new
        if not isinstance(new, Node):
            self._node_gone(event.id)
        elif (session := self._sessions.get(event.id)) is not None:
            self._inform(session, view)
        if _manager(old) != _manager(new):
            self._inform_all(view)

    def _node_gone(self, node_id: str) -> None:
        self._leases.forget(node_id)
        if (session := self._sessions.get(node_id)) is not None:
            session.end("the node was removed from the swarm")

    def _inform_all(self, view: State) -> None:
        self._peers = manager_peers(view)
        for session in self._sessions.values():
            self._inform(session, view)

    async def _tell_round(self) -> None:
        """One round: differences to those who are connected, completes to newcomers once everything is known."""
        found = self._assigner.flush(self._store.view())
        sequences: dict[str, int] = {}
        turn = self._clock() + TURN_S
        for node_id, difference in found.differences.items():
            if (session := self._sessions.get(node_id)) is not None:
                sequences[node_id] = session.assign(difference)
            if self._clock() > turn:
                await asyncio.sleep(0)
                turn = self._clock() + TURN_S
        self._hold(found.leaving, sequences)
        while self._assigner.ready and self._newcomers:
            self._complete(next(iter(self._newcomers.values())))
            if self._clock() > turn:
                await asyncio.sleep(0)
                turn = self._clock() + TURN_S

    def _hold(self, leaving: Sequence[Leaving], sequences: Mapping[str, int]) -> None:
        """Keep tasks from being stopped until every node of their networks has what this round told it."""
        groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
        for task in leaving:
            groups.setdefault(task.networks, {}).setdefault(task.node_id, []).append(task.task_id)
        for networks, tasks in groups.items():
            concerned = (self._assigner.users(networks) | tasks.keys()) & sequences.keys() & self._sessions.keys()
            waits = {node_id: sequences[node_id] for node_id in sorted(concerned)}
            self._release(self._releases.hold(tasks, waits, self._clock()))

    def _release(self, tasks: Mapping[str, Sequence[str]]) -> None:
        for node_id, task_ids in tasks.items():
            if (session := self._sessions.get(node_id)) is not None:
                session.say(Release(task_ids=tuple(task_ids)))

    async def _commit(self) -> None:
        """What agents reported → the store → acknowledgements."""
        while True:
            await self._reported.wait()
            self._reported.clear()
            while self._statuses:
                batch = self._statuses.take(COMMIT_CHANGES)
                await self._propose(batch.changes)
                for session_id, number in self._statuses.committed(batch.mark):
                    if (session := self._by_id.get(session_id)) is not None:
                        session.say(StatusAck(number=number))
                await asyncio.sleep(COMMIT_S)

    async def _propose(self, changes: Sequence[AnyChange]) -> None:
        """Commit; tried again while the managers do not answer. Raises NoLeader."""
        while True:
            try:
                for _, refusal in await self._store.propose(changes):
                    log.debug("event=status-not-taken id=%s why=%s", refusal.id, refusal.reason)
                return
            except NoLeader:
                raise
            except Unavailable as error:
                log.warning("event=statuses-wait changes=%d why=%s", len(changes), error)
                await asyncio.sleep(RETRY_S)

    async def _expire(self) -> None:
        """Leases that have run out: the node is DOWN, and its session, if it has one, begins anew."""
        while True:
            self._leased.clear()
            until = self._leases.deadline()
            if until is None or until > self._clock():
                await self._sleep_until(until)
                continue
            late = self._clock() - until
            if late > LATE_S:
                log.warning("event=stalled seconds=%.3f", late)
                self._leases.stalled(late + CATCH_UP_S)
            for node_id in self._leases.expired(self._clock()):
                self._down(node_id)

    async def _sleep_until(self, until: float | None) -> None:
        try:
            async with asyncio.timeout(None if until is None else until - self._clock()):
                await self._leased.wait()
        except TimeoutError:
            return

    def _down(self, node_id: str) -> None:
        node = self._store.view().nodes.get(node_id)
        if (session := self._sessions.get(node_id)) is not None:
            self._drop(session)
            session.end("its lease has run out")
        if node is not None:
            log.warning("event=node-down node=%s hostname=%s lease=%g", node_id, node.description.hostname,
                        self._leases.lease_s)
            status = msgspec.structs.replace(node.status, state=NodeState.DOWN, message="heartbeat failure")
            self._note_node(node, status, None)


def _manager(node: object) -> object:
    """What of a node every other one is told."""
    return node.manager if isinstance(node, Node) else None

