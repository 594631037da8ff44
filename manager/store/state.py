"""The state of the cluster as one immutable value. Pure; no I/O, no clock.

Tables are hash tries (`immutables.Map`): a view is a reference, taken in O(1)
and never changed under its reader, so that a snapshot can be written in steps
while commands go on. Indexes are part of the value and kept by `Draft` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from immutables import Map

from shoal.api.objects import Cluster, Network, Node, Service, StoredObject, Task
from shoal.manager.store.changes import Outcome

EMPTY: Map[Any, Any] = Map()

REMEMBERED_REQUESTS = 4096
"""Outcomes kept for commands that are sent again."""


class State:
    """Everything the managers agree on. Treat as frozen: only `Draft` makes new ones.

    Invariant: an index names exactly the records of the tables.
    """

    __slots__ = ("clusters", "index", "names", "networks", "nodes", "outcomes", "requests", "services",
                 "tasks", "tasks_by_node", "tasks_by_service", "term")

    def __init__(self) -> None:
        self.index: int = 0  # Raft index of the last command
        self.term: int = 0  # of the leader in office
        self.clusters: Map[str, Cluster] = EMPTY
        self.nodes: Map[str, Node] = EMPTY
        self.services: Map[str, Service] = EMPTY
        self.tasks: Map[str, Task] = EMPTY
        self.networks: Map[str, Network] = EMPTY
        self.names: Map[tuple[str, str], str] = EMPTY  # (table, name) → id
        self.tasks_by_service: Map[str, Map[str, None]] = EMPTY
        self.tasks_by_node: Map[str, Map[str, None]] = EMPTY
        self.outcomes: Map[str, Outcome] = EMPTY  # request id → outcome
        self.requests: tuple[str, ...] = ()  # their order, oldest first

    # --- reading ---

    @property
    def cluster(self) -> Cluster | None:
        """The one cluster, once the first manager has made it."""
        return next(iter(self.clusters.values()), None)

    def table(self, name: str) -> Map[str, StoredObject]:
        """The records of one table by id."""
        return cast("Map[str, StoredObject]", getattr(self, name + "s"))

    def get(self, table: str, object_id: str) -> StoredObject | None:
        return self.table(table).get(object_id)

    def service_tasks(self, service_id: str) -> Iterator[Task]:
        """The tasks of one service, in no order."""
        for task_id in self.tasks_by_service.get(service_id, EMPTY):
            yield self.tasks[task_id]

    def node_tasks(self, node_id: str) -> Iterator[Task]:
        """The tasks that were given to one node, in no order."""
        for task_id in self.tasks_by_node.get(node_id, EMPTY):
            yield self.tasks[task_id]

    def named(self, table: str, name: str) -> StoredObject | None:
        """The service or network of this name."""
        object_id = self.names.get((table, name))
        return None if object_id is None else self.get(table, object_id)


def unique_name(record: StoredObject) -> str | None:
    """The name that no other record of its table may have."""
    if isinstance(record, Service | Network):
        return record.spec.name
    return None


class Draft:
    """A new state in the making: the changes of one command over a base state.

    `get` sees what was put before. `finish` gives the new state; the base is
    as it was, whatever happens.
    """

    def __init__(self, base: State) -> None:
        self._base = base
        self._put: dict[tuple[str, str], StoredObject | None] = {}

    def get(self, table: str, object_id: str) -> StoredObject | None:
        key = (table, object_id)
        if key in self._put:
            return self._put[key]
        return self._base.get(table, object_id)

    def holder_of_name(self, table: str, name: str) -> str | None:
        """The id of the record that has this name, the draft's own records included."""
        for (put_table, object_id), record in self._put.items():
            if put_table == table and record is not None and unique_name(record) == name:
                return object_id
        holder = self._base.names.get((table, name))
        if holder is None or (table, holder) in self._put:  # deleted or renamed in this draft
            return None
        return holder

    def put(self, table: str, object_id: str, record: StoredObject | None) -> None:
        """Set a record, or with None delete it."""
        self._put[(table, object_id)] = record

    def finish(self, index: int, term: int, request_id: str, outcome: Outcome) -> State:
        """The new state, with the command's outcome remembered."""
        base, state = self._base, State()
        state.index, state.term = index, term
        for name in ("cluster", "node", "service", "task", "network"):
            setattr(state, name + "s", self._table(name))
        state.names = self._names()
        state.tasks_by_service = self._index("service_id", base.tasks_by_service)
        state.tasks_by_node = self._index("node_id", base.tasks_by_node)
        state.outcomes, state.requests = _remember(base, request_id, outcome)
        return state

    def _table(self, name: str) -> Map[str, StoredObject]:
        table = self._base.table(name)
        if not any(put_table == name for put_table, _ in self._put):
            return table
        with table.mutate() as new:
            for (put_table, object_id), record in self._put.items():
                if put_table != name:
                    continue
                if record is not None:
                    new[object_id] = record
                elif object_id in new:
                    del new[object_id]
            table = new.finish()
        return table

    def _names(self) -> Map[tuple[str, str], str]:
        names = self._base.names
        for (table, object_id), record in self._put.items():
            old = self._base.get(table, object_id)
            old_name = unique_name(old) if old is not None else None
            new_name = unique_name(record) if record is not None else None
            if old_name != new_name and old_name is not None and names.get((table, old_name)) == object_id:
                names = names.delete((table, old_name))
            if new_name is not None and old_name != new_name:
                names = names.set((table, new_name), object_id)
        return names

    def _index(self, field: str, index: Map[str, Map[str, None]]) -> Map[str, Map[str, None]]:
        moved: dict[str, dict[str, bool]] = {}  # key → task id → belongs
        for (table, task_id), record in self._put.items():
            if table != "task":
                continue
            old = self._base.tasks.get(task_id)
            before = getattr(old, field) if old is not None else ""
            after = getattr(record, field) if record is not None else ""
            if before != after:
                if before:
                    moved.setdefault(before, {})[task_id] = False
                if after:
                    moved.setdefault(after, {})[task_id] = True
        for key, tasks in moved.items():
            with index.get(key, EMPTY).mutate() as members:
                for task_id, belongs in tasks.items():
                    if belongs:
                        members[task_id] = None
                    elif task_id in members:
                        del members[task_id]
                new = members.finish()
            index = index.set(key, new) if new else (index.delete(key) if key in index else index)
        return index


def _remember(base: State, request_id: str, outcome: Outcome) -> tuple[Map[str, Outcome], tuple[str, ...]]:
    """The table of outcomes with one more; the oldest quarter goes when it is full."""
    outcomes, requests = base.outcomes.set(request_id, outcome), (*base.requests, request_id)
    if len(requests) > REMEMBERED_REQUESTS:
        cut = REMEMBERED_REQUESTS // 4
        for old in requests[:cut]:
            outcomes = outcomes.delete(old)
        requests = requests[cut:]
    return outcomes, requests
