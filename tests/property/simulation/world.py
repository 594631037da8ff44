"""A whole cluster from a seed: users, 50 hosts, three managers, and everything that goes wrong.

`simulate(seed)` raises Broken where an invariant does not hold after any commit,
or where the cluster has not come to what was asked of it in the end.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from typing import Any

import msgspec

from shoal.api.errors import NoLeader
from shoal.api.objects import Network, Service, StoredObject
from shoal.api.specs import SECOND_NS, ContainerSpec, NetworkSpec, Placement, RestartPolicy, ServiceSpec, UpdateConfig
from shoal.api.states import Availability, NodeState, TaskState
from shoal.manager.store.changes import AnyChange, Create, Delete, Outcome, Update
from shoal.manager.store.state import State
from tests.fakes.clock import run
from tests.fakes.controlplane import cluster, node, service
from tests.property.simulation.hosts import Dispatcher, Ground, Host
from tests.property.simulation.invariants import Broken
from tests.property.simulation.managers import Managers, Office, OutcomeUnknown

NODES = 50
CHAOS_S = 20.0
SETTLE_S = 90.0
MIB = 1 << 20


class World:
    """One run. All chance comes from its seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.managers = Managers(self.chance, self._serve)
        self.managers.log.checks.append(self._check_promises)
        self.managers.log.checks.append(self._watch_nodes)
        self._dispatcher: Dispatcher | None = None
        self._down_at: dict[str, float] = {}
        self.ground = Ground(
            lambda: self._dispatcher if self.managers.office is not None else None,
            lambda node_id: self._down_at.get(node_id, -1.0),
        )
        self._requests = itertools.count(1)
        self._promised: dict[str, list[ServiceSpec | None]] = {}  # what each service may be now: acknowledged, or tried
        self._background: set[asyncio.Task[None]] = set()  # awaited before the end

    async def _serve(self, office: Office) -> None:
        self._dispatcher = Dispatcher(office, self.chance)
        await self._dispatcher.serve()

    # --- what is watched after each commit ---

    def _check_promises(self, state: State) -> None:
        """No acknowledged change is gone."""
        for service_id, allowed in self._promised.items():
            stored = state.services.get(service_id)
            if (stored.spec if stored is not None else None) not in allowed:
                raise Broken(f"service {service_id} is not as was acknowledged")

    def _watch_nodes(self, state: State) -> None:
        now = asyncio.get_running_loop().time()
        for record in state.nodes.values():
            if record.status.state == NodeState.DOWN:
                self._down_at[record.id] = now

    # --- users ---

    async def write(self, *changes: AnyChange) -> Outcome:
        """As a client does: the same request again, until a leader answers."""
        request = f"client-{next(self._requests)}"
        if self.ground.failures and self.chance.random() < 0.05:
            self._spawn(self._crash_soon())
        while True:
            office = self.managers.office
            try:
                if office is not None:
                    return await office.commit(changes, request)
            except (NoLeader, OutcomeUnknown):
                pass
            await asyncio.sleep(0.2)

    async def _crash_soon(self) -> None:
        """The leader dies while this write, or what its loops make of it, is under way."""
        await asyncio.sleep(self.chance.uniform(0.0, 0.02))
        await self.managers.crash_leader()

    def view(self) -> State:
        """The newest state there is: what a linearizable read gives."""
        log = self.managers.log
        log.catch_up(0)
        return log.replicas[0].view()

    async def create(self, record: Service) -> None:
        self._promised[record.id] = [None, record.spec]
        outcome = await self.write(Create(record=record))
        assert not outcome.refusals
        self._promised[record.id] = [record.spec]

    async def respec(self, service_id: str, **changes: object) -> None:
        """Update until it is not out of sequence."""
        while True:
            stored = self.view().services.get(service_id)
            if stored is None:
                return
            spec = msgspec.structs.replace(stored.spec, **changes)
            promised = self._promised[service_id]
            self._promised[service_id] = [*promised, spec]
            record = msgspec.structs.replace(
                stored, spec=spec, previous_spec=stored.spec, spec_version=stored.meta.revision, update_status=None
            )
            outcome = await self.write(Update(record=record, wanted=True))
            self._promised[service_id] = promised if outcome.refusals else [spec]
            if not outcome.refusals:
                return

    async def delete(self, service_id: str) -> None:
        self._promised[service_id].append(None)
        await self.write(Delete(table="service", id=service_id))
        self._promised[service_id] = [None]

    async def edit_node(self, node_id: str, **changes: object) -> None:
        while True:
            stored = self.view().nodes[node_id]
            record: StoredObject = msgspec.structs.replace(stored, spec=msgspec.structs.replace(stored.spec, **changes))
            if not (await self.write(Update(record=record, wanted=True))).refusals:
                return

    def new_service(self, number: int) -> Service:
        chance = self.chance
        everywhere = chance.random() < 0.1
        return service(
            f"s{number}",
            replicas=chance.randint(1, 10),
            kind="global" if everywhere else "replicated",
            networks=("net1",) if chance.random() < 0.7 else (),
            memory_bytes=0 if everywhere else chance.choice([0, 40, 90]) * MIB,  # what is asked for always fits
            placement=chance.choice(
                [Placement(), Placement(constraints=("node.labels.zone == a",)),
                 Placement(preferences=("node.labels.zone",))]
            ),
            restart=RestartPolicy(delay_ns=chance.choice([0, SECOND_NS])),
            update=UpdateConfig(parallelism=chance.choice([0, 2]), monitor_ns=SECOND_NS, failure_action="continue"),
        )  # fmt: skip

    async def _users(self) -> None:
        numbers = itertools.count(1)
        until = asyncio.get_running_loop().time() + CHAOS_S
        while asyncio.get_running_loop().time() < until:
            alive = [service_id for service_id, allowed in self._promised.items() if allowed != [None]]
            deed = self.chance.random()
            if (deed < 0.4 and len(alive) < 5) or not alive:
                await self.create(self.new_service(next(numbers)))
            elif deed < 0.65:
                service_id = self.chance.choice(alive)
                mode = self.view().services[service_id].spec.mode
                await self.respec(service_id, mode=msgspec.structs.replace(mode, replicas=self.chance.randint(0, 12)))
            elif deed < 0.85:
                service_id = self.chance.choice(alive)
                task = self.view().services[service_id].spec.task
                image = ContainerSpec(image=f"web:{self.chance.randint(1, 9)}")
                await self.respec(service_id, task=msgspec.structs.replace(task, container=image))
            elif deed < 0.92:
                await self.delete(self.chance.choice(alive))
            else:
                availability = self.chance.choice(list(Availability))
                await self.edit_node(f"n{self.chance.randrange(NODES)}", availability=availability)
            await asyncio.sleep(self.chance.uniform(0.1, 1.5))

    # --- what goes wrong ---

    async def _trouble(self) -> None:
        until = asyncio.get_running_loop().time() + CHAOS_S
        while asyncio.get_running_loop().time() < until:
            await asyncio.sleep(self.chance.uniform(0.1, 1.0))
            host = self.ground.hosts[f"n{self.chance.randrange(NODES)}"]
            match self.chance.choice(["crash", "kill", "cut", "cut many", "leader"]):
                case "crash":
                    self._mend_later(host, "crash")
                case "kill":
                    self._mend_later(host, "kill")
                case "cut":
                    self._mend_later(host, "cut")
                case "cut many" if self.chance.random() < 0.3:
                    for other in self.chance.sample(sorted(self.ground.hosts), 10):
                        self._mend_later(self.ground.hosts[other], "cut")
                case "leader" if self.chance.random() < 0.4:
                    await self.managers.crash_leader()

    def _mend_later(self, host: Host, what: str) -> None:
        if not host.alive or host.cut:
            return

        async def act() -> None:
            if what == "cut":
                host.cut = True
            elif what == "kill":
                host.kill()
            else:
                host.crash()
            await asyncio.sleep(self.chance.choice([0.2, 1.0, 5.0, 12.0]))
            if what == "cut":
                host.cut = False
                if host.link is not None:
                    host.link.close()  # what was sent meanwhile is lost, and so is the connection
            else:
                host.start()

        self._spawn(act())

    def _spawn(self, action: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(action)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- a run ---

    async def run(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._callback_failed)
        zones = "aab"
        await self.managers.elect()
        records = [node(f"n{number}", memory_bytes=200 * MIB, state=NodeState.UNKNOWN,
                        labels={"zone": zones[number % 3]}) for number in range(NODES)]  # fmt: skip
        await self.write(Create(record=cluster()), Create(record=Network(id="net1", spec=NetworkSpec(name="web"))))
        await self.write(*(Create(record=record) for record in records))
        for record in records:
            self.ground.hosts[record.id] = Host(record.id, record.description, self.chance, self.ground)
        self.ground.failures = 0.03
        await asyncio.gather(self._users(), self._trouble())
        self.ground.failures = 0.0
        await asyncio.gather(*self._background)
        for number in range(NODES):
            if self.view().nodes[f"n{number}"].spec.availability != Availability.ACTIVE:
                await self.edit_node(f"n{number}", availability=Availability.ACTIVE)
        await self._settle()
        await self.managers.stop()
        self.managers.log.agree()

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a host's timer or a message raises ends the run."""
        error = context.get("exception")
        self.managers.failure = self.managers.failure or error or Broken(context["message"])

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_S
        while wrong := self._unfinished():
            if self.managers.failure is not None:
                raise self.managers.failure
            if loop.time() > until:
                raise Broken(f"not converged after {SETTLE_S:g} s: {wrong}")
            await asyncio.sleep(0.5)
        if self.managers.failure is not None:
            raise self.managers.failure

    def _unfinished(self) -> str:
        """What is still not as it should be; "" once nothing is."""
        if self.managers.failure is not None:
            return "the leader failed"
        state = self.view()
        running = {task.id for task in state.tasks.values() if task.status.state == TaskState.RUNNING}
        really = {task_id for host in self.ground.hosts.values() for task_id in host.containers}
        if running != really:
            return f"the managers think of {sorted(running - really)} and do not of {sorted(really - running)}"
        for record in state.nodes.values():
            if record.status.state != NodeState.READY:
                return f"node {record.id} is {record.status.state}"
        for stored in state.services.values():
            tasks = [task for task in state.service_tasks(stored.id) if task.id in running]
            zone_a = bool(stored.spec.task.placement.constraints)
            nodes = [each for each in state.nodes.values() if not zone_a or each.spec.labels["zone"] == "a"]
            wanted = stored.spec.mode.replicas if stored.spec.mode.kind == "replicated" else len(nodes)
            if len(tasks) != wanted:
                return f"{len(tasks)} of {wanted} tasks of {stored.id} run"
            if any(task.spec.container != stored.spec.task.container for task in tasks):
                return f"tasks of {stored.id} are outdated"
        stale = [task.id for task in state.tasks.values() if task.service_id not in state.services]
        return f"tasks without a service: {stale}" if stale else ""


def simulate(seed: int) -> World:
    """One run from a seed; on the way out every promise was kept."""
    world: list[World] = []

    async def main() -> None:
        world.append(World(seed))
        await world[0].run()

    run(main())
    return world[0]
