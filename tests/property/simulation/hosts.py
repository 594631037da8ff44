"""Simulated hosts: agents that obey, containers that come and go, links that break, and the leader's end of them.

A host's disk survives its crash, its containers do not; when only its daemon
dies, they do. Messages keep their order while a link holds (it is one TCP
connection), and are lost with it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal.api.messages import Assignments, Heartbeat, Hello, StatusAck, StatusUpdates
from shoal.api.objects import NodeDescription, NodeStatus, Task, TaskStatus
from shoal.api.states import NodeState, TaskState
from shoal.manager.store.changes import AnyChange, SetNodeStatus, SetTaskStatus
from tests.property.simulation.invariants import Broken

if TYPE_CHECKING:
    from tests.property.simulation.managers import Office

LEASE_S = 3.0
EPOCH_S = 1000.0
"""The wall clock when a run begins."""

LOSS = 0.001
"""Chance that a message breaks its link."""


class Link:
    """One connection between a host and a leader's dispatcher."""

    def __init__(self, host: Host, dispatcher: Dispatcher, chance: random.Random) -> None:
        self.host, self.dispatcher = host, dispatcher
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self.up = True
        self._due = {"host": 0.0, "manager": 0.0}

    def to_manager(self, message: object) -> None:
        self._send("manager", lambda: self.dispatcher.received(self, message))

    def to_host(self, message: object) -> None:
        self._send("host", lambda: self.host.received(self, message))

    def _send(self, side: str, deliver: Callable[[], None]) -> None:
        if self._chance.random() < LOSS:
            self.close()
        at = max(self._due[side] + 1e-6, self._loop.time() + self._chance.uniform(0.0005, 0.01))  # ties would pass
        self._due[side] = at

        def arrive() -> None:
            if self.up and not self.host.cut:
                deliver()

        self._loop.call_at(at, arrive)

    def close(self) -> None:
        """Both ends notice (behind a cut they only miss each other's heartbeats)."""
        self.up = False
        if self.host.link is self:
            self.host.link = None


class Dispatcher:
    """The leader's end: sessions, leases, statuses in batches, assignments as differences."""

    def __init__(self, office: Office, chance: random.Random) -> None:
        self.office = office
        self._chance = chance
        self._links: dict[str, Link] = {}
        self._told: dict[str, dict[str, Task]] = {}
        self._heard: dict[str, float] = {}
        self._sequence = 0
        self._changes: list[AnyChange] = []
        self._acks: list[tuple[Link, int]] = []
        self._woken = asyncio.Event()

    async def serve(self) -> None:
        """Until the office closes."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with self.office.watch() as watch:
            state = self.office.view()
            self._heard = dict.fromkeys(state.nodes, begun)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._commit_statuses())
                group.create_task(self._watch_leases())
                while True:
                    events = await watch.batch()
                    touched: set[str] = set()
                    for event in events:
                        for record in (getattr(event, "old", None), getattr(event, "new", None)):
                            if isinstance(record, Task) and record.node_id:
                                touched.add(record.node_id)
                    for node_id in sorted(touched & self._links.keys()):
                        self._push(node_id)

    def connect(self, link: Link) -> None:
        old = self._links.pop(link.host.id, None)
        if old is not None:
            old.close()

    def received(self, link: Link, message: object) -> None:
        node_id = link.host.id
        self._heard[node_id] = asyncio.get_running_loop().time()
        match message:
            case Hello(description=description):
                self._links[node_id] = link
                self._told[node_id] = {}
                status = NodeStatus(state=NodeState.READY, addr=link.host.addr)
                self._queue(SetNodeStatus(id=node_id, status=status, description=description))
                self._push(node_id, complete=True)
            case StatusUpdates(number=number, updates=updates):
                for task_id, task_status in updates:
                    self._queue(SetTaskStatus(id=task_id, status=task_status))
                self._acks.append((link, number))

    def _queue(self, change: AnyChange) -> None:
        self._changes.append(change)
        self._woken.set()

    def _push(self, node_id: str, complete: bool = False) -> None:
        state, told = self.office.view(), self._told[node_id]
        wanted = {
            task.id: task
            for task in state.node_tasks(node_id)
            if task.status.state >= TaskState.ASSIGNED and not task.status.state.terminal
        }
        news = tuple(
            task for task in wanted.values() if task.id not in told or told[task.id].desired != task.desired
        )
        gone = tuple(task_id for task_id in told if task_id not in wanted)
        if news or gone or complete:
            self._sequence += 1
            self._told[node_id] = wanted
            self._links[node_id].to_host(
                Assignments(sequence=self._sequence, complete=complete, tasks=news, removed_tasks=gone)
            )

    async def _commit_statuses(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            changes, self._changes = self._changes, []
            acks, self._acks = self._acks, []
            if changes:
                await self.office.propose(changes)
            for link, number in acks:
                link.to_host(StatusAck(number=number))

    async def _watch_leases(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0.5)
            for node in self.office.view().nodes.values():
                late = loop.time() - self._heard.get(node.id, 0.0) > LEASE_S
                if late and node.status.state != NodeState.DOWN:
                    status = NodeStatus(state=NodeState.DOWN, addr=node.status.addr)
                    self._queue(SetNodeStatus(id=node.id, status=status))
                    link = self._links.pop(node.id, None)
                    if link is not None:
                        link.close()


class Host:
    """One host: its disk, its daemon and its containers."""

    def __init__(self, node_id: str, description: NodeDescription, chance: random.Random, world: Ground) -> None:
        self.id, self.addr = node_id, f"192.0.2.{int(node_id[1:]) + 1}"
        self.description = description
        self._chance, self._world = chance, world
        self._loop = asyncio.get_running_loop()
        self.cut = False
        self.alive = True  # the daemon
        self.link: Link | None = None
        self.tasks: dict[str, Task] = {}  # on disk
        self.statuses: dict[str, TaskStatus] = {}  # on disk
        self.containers: set[str] = set()  # in memory: tasks that really run
        self._unacked: dict[int, set[str]] = {}
        self._number = 0
        self._life = 0  # timers of an earlier life mean nothing
        self._busy: set[str] = set()
        self._heard = 0.0
        self._later(self._chance.uniform(0.0, 0.3), self._connect)
        self._later(1.0, self._beat)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        life = self._life

        def act() -> None:
            if self.alive and life == self._life:
                action()

        self._loop.call_later(seconds, act)

    # --- the session ---

    def _connect(self) -> None:
        if self.link is None and not self.cut and (dispatcher := self._world.dispatcher()) is not None:
            self.link = Link(self, dispatcher, self._chance)
            dispatcher.connect(self.link)
            self._heard = self._loop.time()
            self.link.to_manager(Hello(description=self.description))
            self._report(list(self.statuses))
        self._later(self._chance.uniform(0.2, 0.5), self._connect)

    def _beat(self) -> None:
        if self.link is not None:
            if self.link.dispatcher is not self._world.dispatcher():
                self.link.close()  # the leader has gone
            else:
                self.link.to_manager(Heartbeat())
        self._later(LEASE_S / 3, self._beat)

    def received(self, link: Link, message: object) -> None:
        if link is not self.link or not self.alive:
            return
        match message:
            case Assignments(complete=complete, tasks=tasks, removed_tasks=removed):
                known = {task.id for task in tasks}
                gone = [task_id for task_id in self.tasks if task_id not in known] if complete else list(removed)
                for task_id in gone:
                    self._forget(task_id)
                for task in tasks:
                    self.tasks[task.id] = task
                    self.statuses.setdefault(task.id, task.status)
                    self._advance(task.id)
            case StatusAck(number=number):
                self._unacked.pop(number, None)

    def _forget(self, task_id: str) -> None:
        """The manager has no such task (any more): nothing of it may run."""
        self.tasks.pop(task_id, None)
        self.statuses.pop(task_id, None)
        self.containers.discard(task_id)

    def _report(self, task_ids: list[str]) -> None:
        updates = tuple((task_id, self.statuses[task_id]) for task_id in task_ids if task_id in self.statuses)
        if self.link is not None and updates:
            self._number += 1
            self._unacked[self._number] = set(task_ids)
            self.link.to_manager(StatusUpdates(number=self._number, updates=updates))

    def _see(self, task_id: str, state: TaskState) -> None:
        if task_id in self.statuses and state > self.statuses[task_id].state:
            self.statuses[task_id] = TaskStatus(state=state, timestamp=EPOCH_S + self._loop.time())
            self._report([task_id])

    # --- containers ---

    def _advance(self, task_id: str) -> None:
        """Take one step towards what the manager wants of a task; another follows when that is done."""
        task = self.tasks.get(task_id)
        if task is None or task_id in self._busy:
            return
        state = self.statuses[task_id].state
        if state.terminal:
            self._report([task_id])  # the manager has not heard of it
        elif task.desired > TaskState.RUNNING:
            self._step(task_id, self._stop, 0.3 if task_id in self.containers else 0.01)
        elif state < TaskState.READY:
            self._see(task_id, TaskState.PREPARING)
            self._step(task_id, self._prepare, 0.3)
        elif state < TaskState.RUNNING and task.desired == TaskState.RUNNING:
            self._see(task_id, TaskState.STARTING)
            self._step(task_id, self._start, 0.2)

    def _step(self, task_id: str, action: Callable[[str], None], most_s: float) -> None:
        self._busy.add(task_id)

        def act() -> None:
            self._busy.discard(task_id)
            if task_id in self.tasks:
                action(task_id)
                self._advance(task_id)

        self._later(self._chance.uniform(0.001, most_s), act)

    def _prepare(self, task_id: str) -> None:
        fails = self._chance.random() < self._world.failures
        self._see(task_id, TaskState.REJECTED if fails else TaskState.READY)

    def _start(self, task_id: str) -> None:
        if self.tasks[task_id].desired > TaskState.RUNNING:
            return
        self.containers.add(task_id)
        self._world.started(self, self.tasks[task_id])
        self._see(task_id, TaskState.RUNNING)
        if self._chance.random() < self._world.failures * 2:
            self._later(self._chance.uniform(0.1, 5.0), lambda: self._exit(task_id))

    def _exit(self, task_id: str) -> None:
        if task_id in self.containers and self._world.failures:
            self.containers.discard(task_id)
            self._see(task_id, self._chance.choice([TaskState.FAILED, TaskState.COMPLETE]))

    def _stop(self, task_id: str) -> None:
        self.containers.discard(task_id)
        self._see(task_id, TaskState.SHUTDOWN)

    # --- what happens to hosts ---

    def kill(self) -> None:
        """The daemon dies; its containers live on."""
        self.alive = False
        self._life += 1
        self._busy.clear()
        if self.link is not None:
            self.link.close()

    def crash(self) -> None:
        """Power off: no peer sees a closing connection."""
        self.cut = True
        self.kill()
        self.containers.clear()

    def start(self) -> None:
        """The daemon begins with what is on disk, and compares it with what runs."""
        self.alive, self.cut = True, False
        self._life += 1
        for task_id in list(self.tasks):
            if TaskState.STARTING <= self.statuses[task_id].state <= TaskState.RUNNING and (
                task_id not in self.containers
            ):
                self._see(task_id, TaskState.FAILED)
            self._advance(task_id)
        self._later(self._chance.uniform(0.0, 0.3), self._connect)
        self._later(1.0, self._beat)


class Ground:
    """What hosts stand on: the way to the leader, and who notices what really runs."""

    def __init__(self, dispatcher: Callable[[], Dispatcher | None], was_down: Callable[[str], float]) -> None:
        self.dispatcher = dispatcher
        self._was_down = was_down
        self.hosts: dict[str, Host] = {}
        self.failures = 0.0

    def started(self, host: Host, task: Task) -> None:
        """A container begins: nobody else may hold its address, and nobody reachable its slot."""
        mine = {(each.network_id, address) for each in task.attachments for address in each.addresses}
        for other_host in self.hosts.values():
            for other_id in other_host.containers:
                other = other_host.tasks.get(other_id)
                if other is None or other_id == task.id:
                    continue
                theirs = {(each.network_id, address) for each in other.attachments for address in each.addresses}
                if mine & theirs:
                    raise Broken(f"containers of {task.id} and {other_id} both have {mine & theirs}")
                if not task.slot or (other.service_id, other.slot) != (task.service_id, task.slot):
                    continue
                if not self._was_lost(host, task) and not self._was_lost(other_host, other):
                    raise Broken(f"{other_id} still runs on {other_host.id} while {task.id} starts in its slot")

    def _was_lost(self, host: Host, task: Task) -> bool:
        """Whether the managers gave the host up while it had the task: then another may run in its place."""
        return self._was_down(host.id) >= task.meta.created_at - EPOCH_S
