"""Global services: one slot on every node that takes the service. Pure."""

from __future__ import annotations

from shoal.api.objects import Node, Service, Task
from shoal.api.states import Availability, NodeState
from shoal.manager.orchestrator.services import ServiceDecider, Turn
from shoal.manager.orchestrator.slots import SlotIndex, SlotNeeds, settle
from shoal.manager.orchestrator.tasks import SlotKey, node_invalid
from shoal.manager.scheduler.constraints import node_satisfies
from shoal.manager.scheduler.filters import platform_fits
from shoal.manager.store.apply import Event
from shoal.manager.store.state import State


class GlobalOrchestrator(ServiceDecider):
    """A slot's key is its node's id. Nodes come and go; a paused one keeps what it has."""

    name = "global"
    kind = "global"

    def scale(self, service: Service, index: SlotIndex, turn: Turn) -> bool:
        """Every node is looked at as a slot of its own."""
        self._slots.update(dict.fromkeys((service.id, node_id) for node_id in sorted(turn.state.nodes)))
        return True

    def _node_changed(self, event: Event, state: State) -> None:
        super()._node_changed(event, state)
        self._slots.update(dict.fromkeys((service_id, event.id) for service_id in self._indexes))

    def settle_slot(
        self, service: Service, index: SlotIndex, key: SlotKey, tasks: list[Task], turn: Turn
    ) -> SlotNeeds:
        node = turn.state.nodes.get(str(key))
        must_leave = node_invalid(node) or node is None or not _suits(service, node)
        may_create = not must_leave and node is not None and _takes_new(node)
        return settle(key, tasks, self.situation(service, turn, may_create=may_create, must_leave=must_leave))


def _suits(service: Service, node: Node) -> bool:
    placement = service.spec.task.placement
    return node_satisfies(placement.constraints, node) and platform_fits(placement.platforms, node)


def _takes_new(node: Node) -> bool:
    return node.status.state == NodeState.READY and node.spec.availability == Availability.ACTIVE
