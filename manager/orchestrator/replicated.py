"""Replicated services: N slots, wherever there is room. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator

from shoal.api.objects import Service, Task
from shoal.api.states import TaskState
from shoal.manager.orchestrator.services import ServiceDecider, Turn
from shoal.manager.orchestrator.slots import SlotIndex, SlotNeeds, settle
from shoal.manager.orchestrator.tasks import SlotKey, is_live, new_task, stands_aside, want

SEARCHED = 2000
"""Slots among which the highest is looked for, in one turn."""


class ReplicatedOrchestrator(ServiceDecider):
    """Fills the lowest free slots, and empties those that are too many."""

    name = "replicated"
    kind = "replicated"

    def scale(self, service: Service, index: SlotIndex, turn: Turn) -> bool:
        missing = service.spec.mode.replicas - index.filled_count
        room = turn.limit - len(turn.changes)
        if missing > 0:
            self._fill(service, index, min(missing, room), turn)
        elif missing < 0:
            self._empty(service, index, min(-missing, room), turn)
        return abs(missing) <= room

    def _fill(self, service: Service, index: SlotIndex, count: int, turn: Turn) -> None:
        for key in _free_slots(index, count):
            tasks = index.records(key, turn.state)
            clear = all(stands_aside(task, turn.state) for task in tasks)
            create = new_task(
                service, key, self._mint, desired=TaskState.RUNNING if clear else TaskState.READY
            )
            turn.add((create,), f"task {create.record.id} fills slot {key} of {service.spec.name}")

    def _empty(self, service: Service, index: SlotIndex, count: int, turn: Turn) -> None:
        for key in surplus(index, count):
            self._slots.pop((service.id, key), None)
            rollout = self._rollouts.get(service.id)
            if rollout is not None:
                rollout.drop(key)
            gone = [task for task in index.records(key, turn.state) if task.desired < TaskState.REMOVE]
            turn.add(
                (want(task, TaskState.REMOVE) for task in gone),
                f"slot {key} of {service.spec.name} is one too many",
            )

    def settle_slot(
        self, service: Service, index: SlotIndex, key: SlotKey, tasks: list[Task], turn: Turn
    ) -> SlotNeeds:
        if not any(is_live(task) for task in tasks):
            if index.filled_count < service.spec.mode.replicas:
                self._services[service.id] = None  # some slot is to be filled, not always this one
            return SlotNeeds()
        return settle(key, tasks, self.situation(service, turn))


def _free_slots(index: SlotIndex, count: int) -> Iterator[int]:
    """The lowest numbers of slots that are not filled."""
    key = index.lowest_free
    while count > 0:
        if not index.filled(key):
            count -= 1
            yield key
        key += 1


def surplus(index: SlotIndex, count: int) -> list[SlotKey]:
    """The slots to empty: first those that do not run, then from the nodes with most of the service.

    Of equals the highest slot goes; of very many that do not run the latest, which costs no search.
    """
    victims: list[SlotKey]
    if len(index.waiting) <= SEARCHED:
        victims = list(heapq.nlargest(count, _numbers(index.waiting)))
    else:
        victims = list(itertools.islice(reversed(index.waiting), count))
    loads = [(-len(slots), node_id) for node_id, slots in index.running.items()]
    heapq.heapify(loads)
    left: dict[str, list[int]] = {}
    while len(victims) < count and loads:
        load, node_id = heapq.heappop(loads)
        slots = left.setdefault(node_id, sorted(_numbers(index.running[node_id])))
        victims.append(slots.pop())
        if load < -1:
            heapq.heappush(loads, (load + 1, node_id))
    return victims


def _numbers(keys: Iterable[SlotKey]) -> Iterator[int]:
    return (key for key in keys if isinstance(key, int))
