"""Sends tasks away from nodes that no longer suit them, after a change of the node. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.api.objects import Node, Task
from shoal.api.states import TaskState
from shoal.manager.backlog import STEP
from shoal.manager.controlloop import Decision
from shoal.manager.orchestrator.tasks import is_live, node_invalid, want
from shoal.manager.scheduler.constraints import node_satisfies
from shoal.manager.scheduler.filters import platform_fits
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, Refusal
from shoal.manager.store.state import State


class ConstraintEnforcer:
    """Looks at a node's tasks when its labels, role or description change, and when a leader begins."""

    name = "constraintenforcer"

    def __init__(self) -> None:
        self._nodes: dict[str, None] = {}  # dirty

    def load(self, state: State, now: float) -> None:
        self._nodes = dict.fromkeys(sorted(state.nodes))

    def observe(self, events: Sequence[Event], state: State, now: float) -> None:
        for event in events:
            if isinstance(event.old, Node) and isinstance(event.new, Node) and _traits(event.old) != _traits(event.new):
                self._nodes[event.id] = None

    def decide(self, state: State, now: float, limit: int) -> Decision:
        changes: list[AnyChange] = []
        reasons: list[str] = []
        looked_at = 0
        while self._nodes and len(changes) < limit and looked_at < STEP:
            node_id = next(iter(self._nodes))
            del self._nodes[node_id]
            node = state.nodes.get(node_id)
            if node is None or node_invalid(node):
                continue  # the orchestrators move everything anyway
            tasks = list(state.node_tasks(node_id))
            looked_at += 1 + len(tasks)
            for task in misplaced_tasks(node, tasks):
                changes.append(want(task, TaskState.SHUTDOWN))
                reasons.append(f"task {task.id} leaves node {node_id}: its constraints are not satisfied any more")
        return Decision(changes=tuple(changes), reasons=tuple(reasons))

    def refused(self, refusals: Sequence[tuple[AnyChange, Refusal]]) -> None:
        for change, _ in refusals:
            record = getattr(change, "record", None)
            if isinstance(record, Task):
                self._nodes[record.node_id] = None

    def deadline(self, now: float) -> float | None:
        return now if self._nodes else None


def misplaced_tasks(node: Node, tasks: Sequence[Task]) -> list[Task]:
    """The live tasks that this node does not suit (any more)."""
    return [
        task
        for task in sorted(tasks, key=lambda task: task.id)
        if is_live(task)
        and not task.status.state.terminal
        and task.service_id
        and not (
            node_satisfies(task.spec.placement.constraints, node)
            and platform_fits(task.spec.placement.platforms, node)
        )
    ]


def _traits(node: Node) -> object:
    """What constraints may ask of a node."""
    return (node.spec.labels, node.role, node.description, node.status.addr)
