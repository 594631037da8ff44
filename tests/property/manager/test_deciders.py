"""Whatever users, nodes and containers do: no invariant breaks, and what was asked for comes about."""

from __future__ import annotations

import os

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shoal.api.objects import Network, Service, Task
from shoal.api.specs import SECOND_NS, ContainerSpec, IPAMPool, NetworkSpec, Placement, RestartPolicy, UpdateConfig
from shoal.api.states import Availability, NodeState, TaskState
from shoal.manager.deciders import deciders
from shoal.manager.store.changes import Create, Delete, SetNodeStatus, Update
from tests.fakes.controlplane import ControlPlane, cluster, minter, node, service
from tests.property.simulation.invariants import Invariants, over

MIB = 1 << 20
NODES = [f"n{number}" for number in range(5)]
SERVICES = ["s1", "s2", "s3"]
KINDS = st.sampled_from(["replicated", "global"])

placements = st.sampled_from(
    [
        Placement(),
        Placement(constraints=("node.labels.zone == a",)),
        Placement(preferences=("node.labels.zone",)),
        Placement(max_replicas=2),
    ]
)
policies = st.sampled_from(
    [
        RestartPolicy(delay_ns=0),
        RestartPolicy(delay_ns=2 * SECOND_NS),
        RestartPolicy(delay_ns=0, max_attempts=2),
        RestartPolicy(delay_ns=0, max_attempts=1, window_ns=5 * SECOND_NS),
        RestartPolicy(condition="none"),
        RestartPolicy(condition="on-failure", delay_ns=SECOND_NS),
    ]
)
updates = st.sampled_from(
    [
        None,
        UpdateConfig(parallelism=2, delay_ns=SECOND_NS),
        UpdateConfig(parallelism=0, monitor_ns=0),
        UpdateConfig(order="start-first"),
        UpdateConfig(failure_action="rollback"),
        UpdateConfig(failure_action="continue"),
    ]
)


class Cluster(RuleBasedStateMachine):
    """Five small nodes, three services at most, and everything that can happen to them."""

    @initialize()
    def begin(self) -> None:
        self.mint = minter()
        self.services: dict[str, str] = {}  # name → id
        self.control = ControlPlane(deciders(self.mint), limit=7)
        self.control.after_commit.append(Invariants().check)
        zones = {key: "ab"[position % 2] for position, key in enumerate(NODES)}
        self.control.must(Create(record=cluster()))
        self.control.must(*(
            Create(record=node(key, memory_bytes=300 * MIB, labels={"zone": zones[key]})) for key in NODES
        ))  # fmt: skip
        pools = (IPAMPool(subnet="10.9.0.0/28"),)
        self.control.must(Create(record=Network(id="net1", spec=NetworkSpec(name="tiny", pools=pools))))

    # --- users ---

    @rule(
        service_id=st.sampled_from(SERVICES), replicas=st.integers(0, 6), kind=KINDS,
        networks=st.sampled_from([(), ("net1",)]), memory=st.sampled_from([0, 100, 200]), placement=placements,
        restart=policies, update=updates,
    )  # fmt: skip
    def create_service(self, service_id, replicas, kind, networks, memory, placement, restart, update) -> None:
        if self._named(service_id) is None:
            record = service(
                f"{service_id}-{self.mint()}", replicas=replicas, kind=kind,
                networks=networks, memory_bytes=memory * MIB, placement=placement, restart=restart, update=update,
            )  # fmt: skip
            self.control.must(Create(record=record))
            self.services[service_id] = record.id

    def _named(self, service_id: str) -> Service | None:
        """Names come again, ids never do."""
        return self.control.state.services.get(self.services.get(service_id, ""))

    def _respec(self, stored: Service, **changes: object) -> None:
        spec = msgspec.structs.replace(stored.spec, **changes)
        record = msgspec.structs.replace(
            stored, spec=spec, previous_spec=stored.spec, spec_version=self.control.index + 1, update_status=None
        )
        self.control.must(Update(record=record, wanted=True))

    @rule(service_id=st.sampled_from(SERVICES), replicas=st.integers(0, 6))
    def scale(self, service_id, replicas) -> None:
        stored = self._named(service_id)
        if stored is not None:
            self._respec(stored, mode=msgspec.structs.replace(stored.spec.mode, replicas=replicas))

    @rule(service_id=st.sampled_from(SERVICES), image=st.sampled_from(["web:1", "web:2", "web:3"]))
    def change_image(self, service_id, image) -> None:
        stored = self._named(service_id)
        if stored is not None:
            self._respec(stored, task=msgspec.structs.replace(stored.spec.task, container=ContainerSpec(image=image)))

    @rule(service_id=st.sampled_from(SERVICES))
    def delete_service(self, service_id) -> None:
        stored = self._named(service_id)
        if stored is not None:
            self.control.must(Delete(table="service", id=stored.id))

    @rule(
        node_id=st.sampled_from(NODES), availability=st.sampled_from(list(Availability)), zone=st.sampled_from("ab")
    )
    def change_node(self, node_id, availability, zone) -> None:
        stored = self.control.state.nodes[node_id]
        spec = msgspec.structs.replace(stored.spec, availability=availability, labels={"zone": zone})
        self.control.must(Update(record=msgspec.structs.replace(stored, spec=spec), wanted=True))

    # --- nodes and containers ---

    @rule(node_id=st.sampled_from(NODES), state=st.sampled_from([NodeState.DOWN, NodeState.READY]))
    def node_state(self, node_id, state) -> None:
        status = self.control.state.nodes[node_id].status
        self.control.must(SetNodeStatus(id=node_id, status=msgspec.structs.replace(status, state=state)))

    @rule(pick=st.integers(0, 50), state=st.sampled_from([TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED]))
    def task_ends(self, pick, state) -> None:
        tasks = [task for task in self.control.state.tasks.values() if task.status.state >= TaskState.ASSIGNED]
        tasks = sorted((task for task in tasks if not task.status.state.terminal), key=lambda task: task.id)
        if tasks:
            self.control.report(tasks[pick % len(tasks)].id, state)

    @rule()
    def agents_obey(self) -> None:
        self.control.run_agents()

    # --- the leader ---

    @rule(position=st.integers(0, 6))
    def one_turn(self, position) -> None:
        self.control.turn(position)

    @rule(position=st.integers(0, 6))
    def one_decides(self, position) -> None:
        """And others get in between before it is committed."""
        self.control.decide(position)

    @rule(position=st.integers(0, 6))
    def one_lands(self, position) -> None:
        self.control.land(position)

    @rule()
    def all_decide_on_one_view(self) -> None:
        for position in range(len(self.control.deciders)):
            self.control.decide(position)

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0]))
    def time_goes_by(self, seconds) -> None:
        self.control.advance(seconds)

    @rule()
    def settle(self) -> None:
        self.control.settle()
        index = self.control.index
        self.control.settle()
        assert self.control.index == index, "deciding again changed something"

    @rule()
    def new_leader(self) -> None:
        self.control.new_leader(deciders(self.mint))

    # --- what must be true ---

    @invariant()
    @precondition(lambda self: hasattr(self, "control"))
    def decisions_are_bounded(self) -> None:
        assert self.control.largest_decision <= 2 * self.control.limit + 10

    def teardown(self) -> None:
        if not hasattr(self, "control"):
            return
        for key in NODES:
            stored = self.control.state.nodes[key]
            spec = msgspec.structs.replace(stored.spec, availability=Availability.ACTIVE)
            self.control.must(Update(record=msgspec.structs.replace(stored, spec=spec), wanted=True))
            status = msgspec.structs.replace(stored.status, state=NodeState.READY)
            self.control.must(SetNodeStatus(id=key, status=status))
        for _ in range(40):
            self.control.converge()
            self.control.advance(2.0)
        tasks, services = self.control.state.tasks, self.control.state.services
        self.control.new_leader(deciders(self.mint))
        self.control.converge()
        now = self.control.state
        changed = {key for key in {*now.tasks, *tasks} if _essence(now.tasks.get(key)) != _essence(tasks.get(key))}
        assert not changed, "a leader with fresh eyes saw work that the old one had missed"
        for key, stored in services.items():
            assert (now.services[key].spec, now.services[key].endpoint) == (stored.spec, stored.endpoint)
        for stored in self.control.state.services.values():
            self._converged(stored)
        for task in self.control.state.tasks.values():
            assert task.service_id in self.control.state.services, "a task outlived its service"
            assert over(task) or task.desired == TaskState.RUNNING

    def _converged(self, stored: Service) -> None:
        """As many slots are filled as asked for; what does not run says why."""
        live = self.control.live(stored.id)
        slots = {task.slot or task.node_id for task in live}
        start_first = stored.spec.update is not None and stored.spec.update.order == "start-first"
        assert len(live) <= len(slots) + start_first, "more than one slot has two live tasks"
        finished = {task.slot or task.node_id for task in self.control.tasks(stored.id) if over(task)} - slots
        wanted = stored.spec.mode.replicas if stored.spec.mode.kind == "replicated" else None
        if wanted is not None:
            assert len(slots) <= wanted
            if stored.spec.task.restart.condition == "any" and not stored.spec.task.restart.max_attempts:
                assert len(slots) == wanted
            else:
                assert len(slots) + len(finished) >= wanted
        for task in live:
            assert task.status.state == TaskState.RUNNING or task.status.err, f"{task.id} waits and does not say why"


def _essence(task: Task | None) -> object:
    """A task without the words of its status: why there is no room is not told again with each new count."""
    return task and (task.id, task.node_id, task.desired, task.status.state, bool(task.status.err))


Cluster.TestCase.settings = settings(
    max_examples=int(os.environ.get("FUZZ_RUNS", "300")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate),  # what fails is printed as it was found: shrinking takes minutes
)
TestDeciders = Cluster.TestCase
