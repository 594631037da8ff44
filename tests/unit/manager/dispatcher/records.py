"""Records and a store for tests of the dispatcher, and an agent's memory of what it was told."""

from __future__ import annotations

from typing import Any

import msgspec

from shoal.api.messages import Assignments
from shoal.api.objects import (
    ContainerStatus,
    Endpoint,
    IPAMConfig,
    Network,
    NetworkAttachment,
    Node,
    NodeStatus,
    Service,
    Task,
    TaskStatus,
    VirtualIP,
)
from shoal.api.specs import ContainerSpec, EndpointSpec, NetworkAttachmentSpec, NetworkSpec, ServiceSpec, TaskSpec
from shoal.api.states import NodeState, TaskState
from shoal.manager.dispatcher.assignments import Assigner, Round
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, Create, Delete, SetNodeStatus, SetTaskStatus, Update
from shoal.manager.store.memory import Watch
from shoal.manager.store.state import State
from tests.unit.manager.controlapi_store import ImmediateStore


def node(node_id: str) -> Node:
    return Node(id=node_id, status=NodeStatus(state=NodeState.READY, addr=f"192.0.2.{node_id[1:]}"))


def network(network_id: str, number: int = 1, **fields: Any) -> Network:
    subnet = f"10.0.{number}"
    return Network(id=network_id, vni=4096 + number, ipam=(IPAMConfig(subnet=f"{subnet}.0/24", gateway=f"{subnet}.1"),),
                   spec=NetworkSpec(name=f"net-{network_id}", attachable=True, **fields))


def service(service_id: str, *network_ids: str, mode: str = "vip", aliases: tuple[str, ...] = ()) -> Service:
    targets = tuple(NetworkAttachmentSpec(target=each, aliases=aliases) for each in network_ids)
    vips = tuple(VirtualIP(network_id=each, addr=f"10.0.{each[1:]}.{200 + int(service_id[1:])}/24")
                 for each in network_ids) if mode == "vip" else ()
    return Service(id=service_id, endpoint=Endpoint(mode=mode, virtual_ips=vips),
                   spec=ServiceSpec(name=f"name-{service_id}", endpoint=EndpointSpec(mode=mode),
                                    task=TaskSpec(container=ContainerSpec(image="i"), networks=targets)))


def task(task_id: str, node_id: str = "n1", *network_ids: str, service_id: str = "s1",
         state: TaskState = TaskState.ASSIGNED, desired: TaskState = TaskState.RUNNING) -> Task:
    places = tuple(NetworkAttachment(network_id=each, addresses=(f"10.0.{each[1:]}.{task_id[1:]}/24",),
                                     mac=f"02:{each}:{task_id}") for each in network_ids)
    return Task(id=task_id, service_id=service_id, service_name=f"name-{service_id}", slot=int(task_id[1:]),
                node_id=node_id, spec=TaskSpec(container=ContainerSpec(image="i")), attachments=places,
                desired=desired, status=TaskStatus(state=state))


class Cluster:
    """A store with an assigner behind it, in step by hand."""

    def __init__(self, *records: Any) -> None:
        self.store = ImmediateStore()
        self.watch: Watch = self.store.watch().__enter__()
        self.assigner = Assigner()
        self.apply(*(Create(record=each) for each in records))
        self.assigner.load(self.view)
        self.watch.drain()
        self.round()

    @property
    def view(self) -> State:
        return self.store.view()

    def apply(self, *changes: AnyChange) -> None:
        for change in changes:
            self.store.apply(change)

    def round(self) -> Round:
        """Everything that is dirty, as one round."""
        self.assigner.observe([each for each in self.watch.drain() if isinstance(each, Event)], self.view)
        differences: dict[str, Assignments] = {}
        leaving: list[Any] = []
        while self.assigner.dirty:
            found = self.assigner.flush(self.view, 10_000)
            assert not differences or not found.differences, "one flush is enough"
            differences.update(found.differences)
            leaving += found.leaving
        return Round(differences, tuple(leaving))

    # --- what others do ---

    def status(self, task_id: str, state: TaskState, container_id: str = "") -> SetTaskStatus:
        container = ContainerStatus(container_id=container_id) if container_id else None
        return SetTaskStatus(id=task_id, status=TaskStatus(state=state, container=container))

    def want(self, task_id: str, desired: TaskState) -> Update:
        return Update(record=msgspec.structs.replace(self.view.tasks[task_id], desired=desired))

    def node_state(self, node_id: str, state: NodeState, addr: str = "") -> SetNodeStatus:
        status = self.view.nodes[node_id].status
        return SetNodeStatus(id=node_id, status=msgspec.structs.replace(status, state=state, addr=addr or status.addr))

    def gone(self, table: str, object_id: str) -> Delete:
        return Delete(table=table, id=object_id)


class Memory:
    """What an agent makes of its messages (as `worker.assignments` and `overlay.cluster` do)."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.networks: dict[str, Any] = {}
        self.endpoints: dict[tuple[str, str], Any] = {}
        self.services: dict[tuple[str, str], Any] = {}

    def take(self, message: Assignments) -> Memory:
        if message.complete:
            self.__init__()
        for key in message.removed_tasks:
            del self.tasks[key]
        self.tasks.update({each.id: each for each in message.tasks})
        for removed, table in ((message.removed_endpoints, self.endpoints), (message.removed_services, self.services)):
            for pair in removed:
                table.pop(pair, None)
        self.networks.update({each.id: each for each in message.networks})
        for each in message.endpoints:
            assert each.network_id in self.networks, "a network comes before its endpoints"
            self.endpoints[(each.network_id, each.id)] = each
        self.services.update({(each.network_id, each.id): each for each in message.services})
        for network_id in message.removed_networks:
            del self.networks[network_id]
            for table in (self.endpoints, self.services):
                for pair in [pair for pair in table if pair[0] == network_id]:
                    del table[pair]
        return self

    def facts(self) -> dict[str, Any]:
        """Everything, without the statuses of tasks: those are the node's own news."""
        told = {key: msgspec.structs.replace(each, status=TaskStatus()) for key, each in self.tasks.items()}
        return {"tasks": told, "networks": self.networks, "endpoints": self.endpoints, "services": self.services}
