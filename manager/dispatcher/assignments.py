"""What each node has to run and know, and what a change of the store makes different in it. Pure.

A node gets its own tasks, the networks that they use, and of those networks every
endpoint and service. What is told of a network is derived once and shared: the
work of a round grows with what changed and with the nodes that hear of it, never
with the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from shoal.api.messages import Assignments, NetworkEndpoint, NetworkInfo, NetworkService
from shoal.api.objects import Node, Service, Task
from shoal.manager.backlog import STEP, Backlog
from shoal.manager.dispatcher.told import (
    KnownTask,
    known_task,
    network_info,
    reachable,
    same_for_its_node,
    service_networks,
    service_on,
)
from shoal.manager.store.apply import Event
from shoal.manager.store.state import State

_T = TypeVar("_T")


class Leaving(msgspec.Struct, frozen=True):
    """A task that is no longer wanted, and the networks it has just been taken out of."""

    task_id: str
    node_id: str
    networks: tuple[str, ...]


class Round(msgspec.Struct, frozen=True):
    """What one `flush` gives: for each connected node that it concerns what is different (its sequence is unset)."""

    differences: dict[str, Assignments]
    leaving: tuple[Leaving, ...] = ()


class _Network:
    """One network as it is told to every node on it, and what this round changed of it."""

    def __init__(self) -> None:
        self.info: NetworkInfo | None = None
        self.endpoints: dict[str, NetworkEndpoint] = {}
        self.services: dict[str, NetworkService] = {}
        self.backends: dict[str, dict[str, str]] = {}  # service id → task id → address, of healthy ones
        self.users: dict[str, int] = {}  # node id → endpoints there
        self.stale: dict[str, None] = {}  # services to look at
        self.new_info = False
        self.new_endpoints: dict[str, NetworkEndpoint | None] = {}
        self.new_services: dict[str, NetworkService | None] = {}

    @property
    def empty(self) -> bool:
        return self.info is None and not self.endpoints and not self.services and not self.stale

    def settle(self) -> None:
        """What was new has been told."""
        self.new_info = False
        self.new_endpoints, self.new_services = {}, {}


class Assigner:
    """`load`, `observe` and `flush`; a node that connects gets `complete`, and from then on has its part of each round.

    Invariant: to what a connected node was told, its part of a round adds up to what `complete` would say.
    """

    def __init__(self) -> None:
        self._told: dict[str, set[str]] = {}  # connected node → the networks it was told of
        self._reset()

    def _reset(self) -> None:
        self._backlog = Backlog()
        self._tasks: dict[str, KnownTask] = {}
        self._on_node: dict[str, dict[str, Task]] = {}
        self._networks: dict[str, _Network] = {}
        self._uses: dict[str, dict[str, int]] = {}  # node id → network id → endpoints there
        self._service_networks: dict[str, tuple[str, ...]] = {}
        self._dirty: dict[tuple[str, str], None] = {}
        self._touched: dict[str, _Network] = {}  # in this round
        self._moved: dict[str, None] = {}  # nodes whose networks may be others, in this round
        self._new_tasks: dict[str, dict[str, Task | None]] = {}  # connected node → task id → task, in this round

    # --- taking in ---

    def load(self, state: State) -> None:
        """Start over from a view. Whoever was connected has to connect again, once `ready`."""
        self._reset()
        self._told.clear()
        self._dirty.update(dict.fromkeys(("network", each) for each in state.networks))
        self._dirty.update(dict.fromkeys(("service", each) for each in state.services))
        self._backlog.start(state.tasks)

    @property
    def ready(self) -> bool:
        """Whether the whole view was taken in: a complete message before that would have containers removed."""
        return self._backlog.done

    @property
    def dirty(self) -> bool:
        """Whether `flush` has something to look at."""
        return bool(self._dirty) or not self._backlog.done

    def observe(self, events: Sequence[Event], state: State) -> None:
        """Mark what these events concern. `state` is the view after them."""
        for event in events:
            if event.table in ("task", "network", "service"):
                self._dirty[(event.table, event.id)] = None
            elif event.table == "node" and _seen_by_others(event.old) != _seen_by_others(event.new):
                self._dirty.update(dict.fromkeys(("task", task.id) for task in state.node_tasks(event.id)))

    # --- giving out ---

    def complete(self, node_id: str) -> Assignments:
        """Everything that a node is to run and know as of the last round; it is connected from now on."""
        networks = {each: self._networks[each] for each in self._uses.get(node_id, ()) if self._networks[each].info}
        self._told[node_id] = set(networks)
        return Assignments(
            sequence=0,
            complete=True,
            tasks=tuple(self._on_node.get(node_id, {}).values()),
            networks=tuple(network.info for network in networks.values() if network.info is not None),
            endpoints=tuple(each for network in networks.values() for each in network.endpoints.values()),
            services=tuple(each for network in networks.values() for each in network.services.values()),
        )

    def disconnect(self, node_id: str) -> None:
        self._told.pop(node_id, None)

    def users(self, network_ids: Iterable[str]) -> set[str]:
        """The connected nodes on any of these networks."""
        found: set[str] = set()
        for network_id in network_ids:
            if (network := self._networks.get(network_id)) is not None:
                found.update(node_id for node_id in network.users if node_id in self._told)
        return found

    def flush(self, state: State, limit: int = STEP) -> Round:
        """Look at some `limit` dirty records, and tell what became different."""
        leaving: list[Leaving] = []
        for task_id in () if self._backlog.done else self._backlog.take(limit):
            self._look_at_task(task_id, state, leaving)
        for _ in range(min(limit, len(self._dirty))):
            table, object_id = next(iter(self._dirty))
            del self._dirty[(table, object_id)]
            if table == "task":
                self._look_at_task(object_id, state, leaving)
            elif table == "network":
                self._look_at_network(object_id, state)
            else:
                self._look_at_service(object_id, state)
        for network_id, network in self._touched.items():
            self._look_at_backends(network_id, network, state)
        differences = self._differences()
        self._end_round()
        return Round(differences, tuple(leaving))

    def _end_round(self) -> None:
        for network_id, network in self._touched.items():
            network.settle()
            if network.empty:
                del self._networks[network_id]
        self._touched, self._moved, self._new_tasks = {}, {}, {}

    # --- looking at what is dirty ---

    def _look_at_task(self, task_id: str, state: State, leaving: list[Leaving]) -> None:
        old, new = self._tasks.get(task_id), known_task(state.tasks.get(task_id), state)
        if new == old:
            return
        if new is None:
            del self._tasks[task_id]
        else:
            self._tasks[task_id] = new
        self._tell_task(task_id, old, new)
        before = {each.network_id: each for each in old.endpoints} if old is not None else {}
        after = {each.network_id: each for each in new.endpoints} if new is not None else {}
        service_id = new.task.service_id if new is not None else old.task.service_id if old is not None else ""
        for network_id in before | after:
            self._set_endpoint(network_id, task_id, service_id, before.get(network_id), after.get(network_id))
        if old is not None and new is not None and old.wanted and not new.wanted and after:
            leaving.append(Leaving(task_id, new.task.node_id, tuple(after)))

    def _tell_task(self, task_id: str, old: KnownTask | None, new: KnownTask | None) -> None:
        if old is not None and new is None:
            node_id = old.task.node_id
            self._on_node[node_id].pop(task_id)
            if not self._on_node[node_id]:
                del self._on_node[node_id]
            self._note_task(node_id, task_id, None)
        if new is not None:
            self._on_node.setdefault(new.task.node_id, {})[task_id] = new.task
            if old is not None and same_for_its_node(old.task, new.task):
                return
            self._note_task(new.task.node_id, task_id, new.task)

    def _note_task(self, node_id: str, task_id: str, task: Task | None) -> None:
        if node_id in self._told:
            self._new_tasks.setdefault(node_id, {})[task_id] = task

    def _set_endpoint(
        self, network_id: str, task_id: str, service_id: str, old: NetworkEndpoint | None, new: NetworkEndpoint | None
    ) -> None:
        if old == new:
            return
        network = self._touch(network_id)
        if new is None:
            network.endpoints.pop(task_id, None)
        else:
            network.endpoints[task_id] = new
        network.new_endpoints[task_id] = new
        self._count(network_id, network, old, -1)
        self._count(network_id, network, new, +1)
        if service_id and _backend(old) != _backend(new):
            backends = network.backends.setdefault(service_id, {})
            if (address := _backend(new)) is not None:
                backends[task_id] = address
            else:
                backends.pop(task_id, None)
            if not backends:
                del network.backends[service_id]
            network.stale[service_id] = None

    def _count(self, network_id: str, network: _Network, endpoint: NetworkEndpoint | None, by: int) -> None:
        if endpoint is None:
            return
        uses = self._uses.setdefault(endpoint.node_id, {})
        for table, key in ((uses, network_id), (network.users, endpoint.node_id)):
            table[key] = table.get(key, 0) + by
            if not table[key]:
                del table[key]
        if not uses:
            del self._uses[endpoint.node_id]
        self._moved[endpoint.node_id] = None

    def _look_at_network(self, network_id: str, state: State) -> None:
        info = network_info(state.networks.get(network_id))
        network = self._touch(network_id)
        if info != network.info:
            network.info, network.new_info = info, True

    def _look_at_service(self, service_id: str, state: State) -> None:
        service = state.services.get(service_id)
        old, new = self._service_networks.pop(service_id, ()), service_networks(service)
        if new:
            self._service_networks[service_id] = new
        for network_id in dict.fromkeys((*old, *new)):
            self._touch(network_id).stale[service_id] = None

    def _look_at_backends(self, network_id: str, network: _Network, state: State) -> None:
        for service_id in network.stale:
            service = state.services.get(service_id)
            backends = tuple(sorted(network.backends.get(service_id, {}).values()))
            new = service_on(service, network_id, backends) if isinstance(service, Service) else None
            if new == network.services.get(service_id):
                continue
            if new is None:
                network.services.pop(service_id, None)
            else:
                network.services[service_id] = new
            network.new_services[service_id] = new
        network.stale = {}

    def _touch(self, network_id: str) -> _Network:
        network = self._networks.get(network_id)
        if network is None:
            network = self._networks[network_id] = _Network()
        self._touched[network_id] = network
        return network

    # --- what is different ---

    def _differences(self) -> dict[str, Assignments]:
        concerned = dict.fromkeys(self._new_tasks)
        concerned.update((node_id, None) for node_id in self._moved if node_id in self._told)
        for network in self._touched.values():
            if network.new_info or network.new_endpoints or network.new_services:
                concerned.update((node_id, None) for node_id in network.users if node_id in self._told)
        shared = {network_id: _difference_of(network_id, network) for network_id, network in self._touched.items()}
        found = {node_id: self._difference(node_id, shared) for node_id in concerned}
        return {node_id: each for node_id, each in found.items() if each != _NOTHING}

    def _difference(self, node_id: str, shared: dict[str, Assignments]) -> Assignments:
        tasks = self._new_tasks.get(node_id, {})
        told = self._told[node_id]
        used = {each: self._networks[each] for each in self._uses.get(node_id, ()) if self._networks[each].info}
        parts = [shared[each] if each in told else _all_of(network)
                 for each, network in used.items() if each in shared or each not in told]
        removed_networks = tuple(sorted(told - used.keys()))
        self._told[node_id] = set(used)
        return Assignments(
            sequence=0,
            tasks=tuple(task for task in tasks.values() if task is not None),
            removed_tasks=tuple(task_id for task_id, task in tasks.items() if task is None),
            removed_networks=removed_networks,
            networks=_joined([part.networks for part in parts]),
            endpoints=_joined([part.endpoints for part in parts]),
            removed_endpoints=_joined([part.removed_endpoints for part in parts]),
            services=_joined([part.services for part in parts]),
            removed_services=_joined([part.removed_services for part in parts]),
        )


_NOTHING = Assignments(sequence=0)


def _joined(parts: list[tuple[_T, ...]]) -> tuple[_T, ...]:
    """One tuple of several; the very same where there is only one, so that nodes share it."""
    return parts[0] if len(parts) == 1 else tuple(each for part in parts for each in part)


def _difference_of(network_id: str, network: _Network) -> Assignments:
    return Assignments(
        sequence=0,
        networks=(network.info,) if network.new_info and network.info is not None else (),
        endpoints=tuple(each for each in network.new_endpoints.values() if each is not None),
        removed_endpoints=tuple((network_id, key) for key, each in network.new_endpoints.items() if each is None),
        services=tuple(each for each in network.new_services.values() if each is not None),
        removed_services=tuple((network_id, key) for key, each in network.new_services.items() if each is None),
    )


def _all_of(network: _Network) -> Assignments:
    return Assignments(
        sequence=0,
        networks=(network.info,) if network.info is not None else (),
        endpoints=tuple(network.endpoints.values()),
        services=tuple(network.services.values()),
    )


def _backend(endpoint: NetworkEndpoint | None) -> str | None:
    return endpoint.address if endpoint is not None and endpoint.healthy else None


def _seen_by_others(node: object) -> tuple[bool, str] | None:
    """What of a node other nodes are told through its endpoints."""
    return (reachable(node), node.status.addr) if isinstance(node, Node) else None

