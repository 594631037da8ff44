"""Gives networks a subnet and a VNI, services their virtual addresses and ports, tasks their addresses. Pure.

Managers allocate every address, so they know every entry. An address is free
again only when its task is over: ended as observed, removed, or given up before
any agent heard of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shoal.api.objects import Endpoint, Network, NetworkAttachment, Service, Task, TaskStatus, VirtualIP
from shoal.api.specs import ClusterSpec, PortConfig
from shoal.api.states import TaskState
from shoal.manager.allocator.ipam import INGRESS_SUBNET, AddressPool, configs, free_subnet, mac_of, overlapping
from shoal.manager.allocator.ports import FIRST, LAST, Ports
from shoal.manager.allocator.vni import VNIs
from shoal.manager.backlog import STEP, Backlog
from shoal.manager.controlloop import Decision
from shoal.manager.orchestrator.tasks import PENDING, is_over
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, Refusal, SetTaskStatus, Update
from shoal.manager.store.state import State

WAITING_MESSAGE = "waiting for its networks"


class _Exhausted(Exception):
    """There is nothing left to give; the message goes to the task."""


class Allocator:
    """Invariant: a pool holds what the store shows of it, and what this decider has proposed and not seen refused."""

    name = "allocator"

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._backlog = Backlog()
        self._pools: dict[str, AddressPool] = {}
        self._subnets: dict[str, tuple[str, ...]] = {}  # network id → subnets
        self._asked: dict[str, tuple[str, ...]] = {}  # network id → subnets its user wants, not yet its own
        self._vnis = VNIs()
        self._ports = Ports()
        self._networks: dict[str, None] = {}  # dirty
        self._services: dict[str, None] = {}  # dirty
        self._tasks: dict[str, None] = {}  # dirty
        self._blocked: dict[tuple[str, str], None] = {}  # (table, id): something was exhausted or not there
        self._problems: dict[str, str] = {}  # network or service id → why it has nothing

    # --- Decider ---

    def load(self, state: State, now: float) -> None:
        self._reset()
        if state.cluster is not None:
            self._vnis = VNIs(state.cluster.next_vni)
        for network in state.networks.values():
            self._network_seen(network)
        for service in state.services.values():
            self._service_seen(service)
        self._backlog.start(state.tasks)

    def observe(self, events: Sequence[Event], state: State, now: float) -> None:
        freed = False
        for event in events:
            match event.table:
                case "network":
                    freed = True
                    self._network_changed(event, state)
                case "service":
                    freed |= self._service_changed(event, state)
                case "task":
                    freed |= self._task_changed(event, state)
        if freed:
            self._unblock()

    def decide(self, state: State, now: float, limit: int) -> Decision:
        if not self._backlog.done:
            for task_id in self._backlog.take():
                if task_id in state.tasks:
                    self._task_seen(state.tasks[task_id])
            return Decision()
        changes: list[AnyChange] = []
        endpoints: dict[str, Endpoint] = {}  # of this turn
        for table, dirty in (("network", self._networks), ("service", self._services), ("task", self._tasks)):
            for _ in range(min(STEP, len(dirty))):
                if len(changes) >= limit:
                    break
                object_id = next(iter(dirty))
                del dirty[object_id]
                changes.extend(self._allocate(table, object_id, state, endpoints))
        return Decision(changes=(*self._mark(state), *changes))

    def _mark(self, state: State) -> list[AnyChange]:
        """Have the next leader go on where this one is: it sees no VNI of a network that is gone."""
        if state.cluster is None or state.cluster.next_vni == self._vnis.next:
            return []
        return [Update(record=msgspec.structs.replace(state.cluster, next_vni=self._vnis.next))]

    def refused(self, refusals: Sequence[tuple[AnyChange, Refusal]]) -> None:
        for change, _ in refusals:
            record = getattr(change, "record", None)
            if isinstance(record, Task):
                self._release_task(record)
                self._tasks[record.id] = None
            elif isinstance(record, Service):
                self._services[record.id] = None  # what it holds stays its own, and is found again
            elif isinstance(record, Network):
                self._forget_network(record.id, record.vni)
                self._networks[record.id] = None

    def deadline(self, now: float) -> float | None:
        dirty = self._networks or self._services or self._tasks or not self._backlog.done
        return now if dirty else None

    # --- taking in ---

    def _network_changed(self, event: Event, state: State) -> None:
        network = state.networks.get(event.id)
        if network is not None:
            self._network_seen(network)
        elif isinstance(event.old, Network):
            self._forget_network(event.id, event.old.vni)
            self._networks.pop(event.id, None)

    def _network_seen(self, network: Network) -> None:
        if network.spec.driver != "overlay":
            return
        if not network.ipam or not network.vni:
            self._networks[network.id] = None
            self._asked[network.id] = tuple(pool.subnet for pool in network.spec.pools if pool.subnet)
            return
        self._asked.pop(network.id, None)
        self._vnis.claim(network.vni, network.id)
        self._subnets[network.id] = tuple(config.subnet for config in network.ipam)
        if network.id not in self._pools:
            self._pools[network.id] = AddressPool(network.ipam[0])

    def _forget_network(self, network_id: str, vni: int) -> None:
        self._pools.pop(network_id, None)
        self._subnets.pop(network_id, None)
        self._asked.pop(network_id, None)
        self._vnis.release(vni, network_id)
        self._problems.pop(network_id, None)

    def _service_changed(self, event: Event, state: State) -> bool:
        service, old = state.services.get(event.id), event.old
        if service is not None:
            self._service_seen(service)
            return False
        if isinstance(old, Service):
            self._ports.release(old.endpoint.ports, old.id)
            self._ports.release(old.spec.endpoint.ports, old.id)
            for vip in old.endpoint.virtual_ips:
                self._release(vip.network_id, vip.addr, old.id)
        self._problems.pop(event.id, None)
        self._services.pop(event.id, None)
        return True

    def _service_seen(self, service: Service) -> None:
        for vip in service.endpoint.virtual_ips:
            pool = self._pools.get(vip.network_id)
            if pool is not None:
                pool.claim(vip.addr, service.id)
        self._ports.claim(service.endpoint.ports, service.id)
        self._services[service.id] = None

    def _task_changed(self, event: Event, state: State) -> bool:
        task, old = state.tasks.get(event.id), event.old
        if task is not None and not is_over(task):
            self._task_seen(task)
            return False
        self._tasks.pop(event.id, None)
        self._blocked.pop(("task", event.id), None)
        gone = task or old
        return isinstance(gone, Task) and self._release_task(gone)

    def _task_seen(self, task: Task) -> None:
        if is_over(task):
            return
        if task.status.state == TaskState.NEW and ("task", task.id) not in self._blocked:
            self._tasks[task.id] = None
        for attachment in task.attachments:
            pool = self._pools.get(attachment.network_id)
            if pool is not None:
                for address in attachment.addresses:
                    pool.claim(address, task.id)

    def _release_task(self, task: Task) -> bool:
        for attachment in task.attachments:
            for address in attachment.addresses:
                self._release(attachment.network_id, address, task.id)
        return bool(task.attachments)

    def _release(self, network_id: str, address: str, owner: str) -> None:
        pool = self._pools.get(network_id)
        if pool is not None:
            pool.release(address, owner)

    def _unblock(self) -> None:
        """Something was given back or came to be: whatever waited is tried again."""
        dirty = {"network": self._networks, "service": self._services, "task": self._tasks}
        for table, object_id in self._blocked:
            dirty[table][object_id] = None
        self._blocked.clear()

    # --- deciding ---

    def _allocate(self, table: str, object_id: str, state: State, endpoints: dict[str, Endpoint]) -> list[AnyChange]:
        match state.get(table, object_id):
            case Network() as network:
                return self._allocate_network(network, state)
            case Service() as service:
                return self._allocate_service(service, state, endpoints)
            case Task() as task if task.status.state == TaskState.NEW and not is_over(task):
                return self._allocate_task(task, state, endpoints)
        return []

    def _allocate_network(self, network: Network, state: State) -> list[AnyChange]:
        if network.vni and network.ipam:
            return []
        try:
            record = self._network_record(network, state)
        except _Exhausted as problem:
            self._problems[network.id] = str(problem)
            self._blocked[("network", network.id)] = None
            return []
        self._problems.pop(network.id, None)
        self._subnets[network.id] = tuple(config.subnet for config in record.ipam)
        return [Update(record=record)]

    def _network_record(self, network: Network, state: State) -> Network:
        cluster = state.cluster
        spec = cluster.spec if cluster is not None else ClusterSpec()
        name = network.spec.name
        others = [
            (other_id, subnet) for other_id, known in self._subnets.items() for subnet in known
            if other_id != network.id
        ]
        ipam = network.ipam
        if not ipam:
            asked_for = [subnet for known in self._asked.values() for subnet in known]
            taken = [*(subnet for _, subnet in others), *asked_for]
            fresh = free_subnet(spec.default_address_pool, spec.subnet_size, taken)
            if network.spec.ingress and not overlapping(str(INGRESS_SUBNET), others):
                fresh = str(INGRESS_SUBNET)
            ipam = configs(network.spec.pools, fresh)
            if not ipam:
                pools = ", ".join(spec.default_address_pool)
                raise _Exhausted(f"network {name} has no subnet: every /{spec.subnet_size} of {pools} is in use")
            for config in ipam:
                if other := overlapping(config.subnet, others):
                    raise _Exhausted(f"network {name} has no subnet: {config.subnet} overlaps with network {other}")
        asked = _asked_vni(network)
        if asked and not self._vnis.claim(asked, network.id):
            raise _Exhausted(f"network {name}: VNI {asked} is in use by another network")
        vni = asked or network.vni or self._vnis.take(network.id)
        if not vni:
            raise _Exhausted(f"network {name}: every VNI is in use")
        return msgspec.structs.replace(network, ipam=ipam, vni=vni)

    def _allocate_service(self, service: Service, state: State, endpoints: dict[str, Endpoint]) -> list[AnyChange]:
        try:
            endpoint = self._endpoint(service, state)
        except _Exhausted as problem:
            self._problems[service.id] = str(problem)
            self._blocked[("service", service.id)] = None
            return []
        if self._problems.pop(service.id, None):
            self._unblock()
        if endpoint == service.endpoint:
            return []
        kept = {(vip.network_id, vip.addr) for vip in endpoint.virtual_ips}
        for vip in service.endpoint.virtual_ips:
            if (vip.network_id, vip.addr) not in kept:
                self._release(vip.network_id, vip.addr, service.id)
        self._ports.release([port for port in service.endpoint.ports if port not in endpoint.ports], service.id)
        endpoints[service.id] = endpoint
        return [Update(record=msgspec.structs.replace(service, endpoint=endpoint))]

    def _endpoint(self, service: Service, state: State) -> Endpoint:
        """The endpoint that a service should have; what it has already stays. Raises _Exhausted."""
        mode = service.spec.endpoint.mode
        have = {vip.network_id: vip for vip in service.endpoint.virtual_ips}
        vips = []
        for target in service.spec.task.swarm_networks if mode == "vip" else ():
            pool = self._pool(target.target, state)
            vip = have.get(target.target)
            if vip is None or not pool.claim(vip.addr, service.id):
                vip = VirtualIP(network_id=target.target, addr=self._take(pool, target.target, service.id, state))
            vips.append(vip)
        return Endpoint(mode=mode, ports=self._published(service), virtual_ips=tuple(vips))

    def _published(self, service: Service) -> tuple[PortConfig, ...]:
        taken = self._ports.claim(service.spec.endpoint.ports, service.id)
        if taken is not None:
            raise _Exhausted(f"port {taken[1]}/{taken[0]} is published by another service already")
        ports = []
        given = {(port.protocol, port.target_port): port for port in service.endpoint.ports}
        for port in service.spec.endpoint.ports:
            if port.published_port or port.publish_mode != "ingress":
                ports.append(port)
                continue
            before = given.get((port.protocol, port.target_port))
            number = before.published_port if before else self._ports.take(port.protocol, service.id)
            if not number:
                raise _Exhausted(f"every port from {FIRST} to {LAST} is published already")
            ports.append(msgspec.structs.replace(port, published_port=number))
        return tuple(ports)

    def _allocate_task(self, task: Task, state: State, endpoints: dict[str, Endpoint]) -> list[AnyChange]:
        problem = self._problems.get(task.service_id, "")
        attachments: list[NetworkAttachment] = []
        if not problem:
            try:
                for wanted in task.spec.swarm_networks:
                    pool = self._pool(wanted.target, state)
                    if wanted.address:
                        address = _exactly(pool, wanted.address, task.id)
                    else:
                        address = self._take(pool, wanted.target, task.id, state)
                    attachments.append(
                        NetworkAttachment(
                            network_id=wanted.target,
                            addresses=(address,),
                            aliases=wanted.aliases,
                            mac=mac_of(address.partition("/")[0]),
                        )
                    )
            except _Exhausted as exhausted:
                problem = str(exhausted)
        record = msgspec.structs.replace(task, attachments=tuple(attachments))
        if not problem:
            return [Update(record=msgspec.structs.replace(record, status=PENDING))]
        self._release_task(record)
        self._blocked[("task", task.id)] = None
        if task.status.err == problem:
            return []
        status = TaskStatus(state=TaskState.NEW, message=WAITING_MESSAGE, err=problem)
        return [SetTaskStatus(id=task.id, status=status)]

    def _pool(self, network_id: str, state: State) -> AddressPool:
        """Raises _Exhausted where the network has none (yet)."""
        pool = self._pools.get(network_id)
        if pool is None:
            network = state.networks.get(network_id)
            missing = f"network {network_id} is not there" if network is None else (
                f"network {network.spec.name} has no subnet yet"
            )
            raise _Exhausted(self._problems.get(network_id, missing))
        return pool

    def _take(self, pool: AddressPool, network_id: str, owner: str, state: State) -> str:
        address = pool.take(owner)
        if address is None:
            network = state.networks.get(network_id)
            raise _Exhausted(
                f"no free address on network {network.spec.name if network else network_id}: "
                f"all {pool.size} of {pool.subnet} are in use"
            )
        return address


def _exactly(pool: AddressPool, address: str, owner: str) -> str:
    if not pool.claim(address, owner):
        raise _Exhausted(f"address {address} is in use, or not of subnet {pool.subnet}")
    return f"{address.partition('/')[0]}/{pool.subnet.prefixlen}"


def _asked_vni(network: Network) -> int:
    """The VNI that the user chose with the driver's option; 0 for none."""
    text = network.spec.driver_opts.get("com.docker.network.driver.overlay.vxlanid_list", "").partition(",")[0]
    return int(text) if text.isdigit() else 0
