"""The real state, the real `apply` and the real deciders, driven in one thread without waiting.

What `controlloop.drive` does with tasks and sockets this does in a loop: each
decider sees its events, decides, and has its changes applied. Time is a number.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence

from shoal.api.objects import Cluster, JoinTokens, Node, NodeDescription, NodeStatus, RootCA, Service, Task, TaskStatus
from shoal.api.specs import (
    SECOND_NS,
    ContainerSpec,
    NetworkAttachmentSpec,
    NodeSpec,
    Placement,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from shoal.api.states import NodeState, TaskState
from shoal.manager.controlloop import Decider, Decision
from shoal.manager.deciders import deciders
from shoal.manager.store.apply import Event, apply
from shoal.manager.store.changes import AnyChange, Command, Create, Delete, Outcome, SetTaskStatus, TakeOffice, Update
from shoal.manager.store.state import State

LIMIT = 200


def minter(prefix: str = "t") -> Callable[[], str]:
    """Ids that count up: equal runs mint equal ids."""
    numbers = itertools.count(1)
    return lambda: f"{prefix}{next(numbers):06d}"


class ControlPlane:
    """State and deciders. `after_commit` is called with each new state and its events."""

    def __init__(self, mine: list[Decider] | None = None, *, limit: int = LIMIT) -> None:
        self.state = State()
        self.now = 0.0
        self.index = 0
        self.limit = limit
        self.deciders = deciders(minter()) if mine is None else mine
        self.after_commit: list[Callable[[State, Sequence[Event]], None]] = []
        self.largest_decision = 0
        self.last: deque[str] = deque(maxlen=12)  # decisions, for whoever has to find out why
        self.term = 1
        self._pending: dict[int, list[Event]] = {}
        self._proposed: dict[int, Decision] = {}
        self.load()

    def load(self) -> None:
        """A leader begins: every decider starts over from the view."""
        for decider in self.deciders:
            decider.load(self.state, self.now)
        self._pending = {position: [] for position in range(len(self.deciders))}
        self._proposed = {}

    def new_leader(self, fresh: list[Decider]) -> None:
        """Another manager takes over: what the last one had in flight is refused, should it still be committed."""
        late = list(self._proposed.values())
        self.term += 1
        self.commit(TakeOffice(term=self.term))
        self.deciders = fresh
        self.load()
        for decision in late:
            outcome = self.commit(*decision.changes, term=self.term - 1)
            assert len(outcome.refusals) == len(decision.changes), "a deposed leader's command was applied"

    def commit(self, *changes: AnyChange, term: int = 0) -> Outcome:
        """One command through `apply`; everybody gets its events."""
        self.index += 1
        command = Command(request_id=f"r{self.index}", changes=changes, at=1000.0 + self.now, term=term)
        applied = apply(self.state, self.index, command)
        self.state = applied.state
        for events in self._pending.values():
            events.extend(applied.events)
        for check in self.after_commit:
            check(self.state, applied.events)
        return applied.outcome

    def must(self, *changes: AnyChange) -> None:
        """Commit what has to be accepted."""
        refusals = self.commit(*changes).refusals
        assert not refusals, refusals

    def decide(self, position: int) -> bool:
        """One decider reads its events and decides; whether it proposed anything. It lands later, perhaps refused."""
        if position in self._proposed:
            return False  # a loop waits for its own commit
        decider = self.deciders[position]
        events, self._pending[position] = self._pending[position], []
        if events:
            decider.observe(events, self.state, self.now)
        decision = decider.decide(self.state, self.now, self.limit)
        self.largest_decision = max(self.largest_decision, len(decision.changes))
        if not decision:
            return False
        self.last.append(f"{self.now:.3f} {decider.name}: {decision.reasons or decision.changes}")
        self._proposed[position] = decision
        return True

    def land(self, position: int) -> None:
        """What a decider proposed is committed."""
        decision = self._proposed.pop(position, None)
        if decision is None:
            return
        outcome = self.commit(*decision.changes, term=self.term)
        if outcome.refusals:
            refused = [(decision.changes[refusal.position], refusal) for refusal in outcome.refusals]
            self.deciders[position].refused(refused)

    def turn(self, position: int) -> bool:
        """One turn of one decider, committed at once; whether it changed anything."""
        if position in self._proposed:
            self.land(position)
            return True
        decided = self.decide(position)
        self.land(position)
        return decided

    def busy(self) -> bool:
        """Whether some decider has something to do although nothing more happens."""
        if any(self._pending.values()) or self._proposed:
            return True
        deadlines = (decider.deadline(self.now) for decider in self.deciders)
        return any(deadline is not None and deadline <= self.now for deadline in deadlines)

    def settle(self, turns: int = 3000) -> None:
        """Let all decide until none has anything left to do."""
        for _ in range(turns):
            for position in range(len(self.deciders)):
                self.turn(position)
            if not self.busy():
                return
        busy = [each.name for each in self.deciders if (at := each.deadline(self.now)) is not None and at <= self.now]
        raise AssertionError(f"the deciders never come to rest; busy: {busy}; last:\n" + "\n".join(self.last))

    def next_deadline(self) -> float | None:
        deadlines = [decider.deadline(self.now) for decider in self.deciders]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def advance(self, seconds: float) -> None:
        """Let time go by, stopping at each deadline on the way."""
        until = self.now + seconds
        while True:
            self.settle()
            deadline = self.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
        self.now = until
        self.settle()

    # --- what agents would do ---

    def report(self, task_id: str, state: TaskState, err: str = "") -> None:
        self.commit(SetTaskStatus(id=task_id, status=TaskStatus(state=state, err=err, timestamp=1000.0 + self.now)))

    def run_agents(self) -> bool:
        """Every node that is up obeys at once; whether any had to."""
        moved = False
        for task in sorted(self.state.tasks.values(), key=lambda task: task.id):
            node = self.state.nodes.get(task.node_id)
            if node is None or node.status.state != NodeState.READY or task.status.state.terminal:
                continue
            if task.status.state < TaskState.ASSIGNED:
                continue
            wanted = TaskState.SHUTDOWN if task.desired > TaskState.RUNNING else task.desired
            if task.status.state != wanted and not (wanted == TaskState.READY and task.status.state > wanted):
                self.report(task.id, wanted)
                moved = True
        return moved

    def converge(self) -> None:
        """Deciders and obedient agents until nothing changes."""
        for _ in range(1000):
            self.settle()
            if not self.run_agents():
                return
        raise AssertionError("the cluster never comes to rest")

    # --- reading ---

    def tasks(self, service_id: str = "s1") -> list[Task]:
        return sorted(self.state.service_tasks(service_id), key=lambda task: task.id)

    def live(self, service_id: str = "s1") -> list[Task]:
        return [task for task in self.tasks(service_id) if task.desired <= TaskState.RUNNING]

    def running(self, service_id: str = "s1") -> list[Task]:
        return [task for task in self.live(service_id) if task.status.state == TaskState.RUNNING]


def cluster(**spec: object) -> Cluster:
    from shoal.api.specs import ClusterSpec

    return Cluster(
        id="c1",
        spec=ClusterSpec(**spec),  # type: ignore[arg-type]
        root_ca=RootCA(cert_pem="", key_pem="", digest=""),
        join_tokens=JoinTokens(worker="", manager=""),
    )


def node(
    node_id: str, *, memory_bytes: int = 8 << 30, cpus: int = 4, labels: dict[str, str] | None = None,
    state: NodeState = NodeState.READY, addr: str = "192.0.2.1", **spec: object,
) -> Node:
    return Node(
        id=node_id,
        spec=NodeSpec(labels=labels or {}, **spec),  # type: ignore[arg-type]
        description=NodeDescription(
            hostname=f"host-{node_id}", resources=Resources(nano_cpus=cpus * SECOND_NS, memory_bytes=memory_bytes)
        ),
        status=NodeStatus(state=state, addr=addr),
    )


def service(
    service_id: str = "s1", *, replicas: int = 1, kind: str = "replicated", image: str = "web:1",
    networks: Sequence[str] = (), restart: RestartPolicy | None = None, placement: Placement | None = None,
    update: UpdateConfig | None = None, memory_bytes: int = 0, **fields: object,
) -> Service:
    from shoal.api.specs import ResourceRequirements

    return Service(
        id=service_id,
        spec=ServiceSpec(
            name=f"name-{service_id}",
            mode=ServiceMode(kind=kind, replicas=replicas),
            update=update,
            task=TaskSpec(
                container=ContainerSpec(image=image),
                networks=tuple(NetworkAttachmentSpec(target=network) for network in networks),
                restart=restart or RestartPolicy(),
                placement=placement or Placement(),
                resources=ResourceRequirements(reservations=Resources(memory_bytes=memory_bytes)),
            ),
            **fields,  # type: ignore[arg-type]
        ),
    )


__all__ = ["ControlPlane", "Create", "Delete", "Update", "cluster", "minter", "node", "service"]
