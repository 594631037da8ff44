"""What an agent asks: places on attachable networks for containers of `docker run`, networks by name, images.

An attachment is a task of its own, with the container's id in place of a container;
the allocator gives it an address like any other.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable
from typing import TypeVar

from shoal.api.errors import Conflict, InvalidArgument, NoLeader, NotFound, PermissionDenied, ShoalError, Unavailable
from shoal.api.membership import HOST_PORT, at_port
from shoal.api.messages import (
    Attach,
    Detach,
    FindImage,
    FindNetwork,
    FoundImage,
    MayTake,
    NetworkInfo,
    Reply,
    Request,
)
from shoal.api.objects import Network, Task
from shoal.api.reference import parse
from shoal.api.specs import NetworkAttachmentSpec, TaskSpec
from shoal.api.states import TaskState
from shoal.manager.controlapi.lookups import find_network
from shoal.manager.controlloop import Store
from shoal.manager.dispatcher.holdings import Holdings, images_used, may_take
from shoal.manager.dispatcher.told import network_info, reachable
from shoal.manager.orchestrator.tasks import CREATED, age_order
from shoal.manager.store.apply import Event
from shoal.manager.store.changes import AnyChange, Create, Delete
from shoal.manager.store.state import State

WAIT_S = 8.0
"""For so long a question waits for the allocator."""

MAX_ALIASES = 64
MAX_NAME = 255

_T = TypeVar("_T")


class Requests:
    """Answers of one term. `observe` wakes those that wait for a record."""

    def __init__(self, store: Store, mint_id: Callable[[], str], holdings: Holdings) -> None:
        self._store = store
        self._holdings = holdings
        self._mint_id = mint_id
        self._waiting: dict[str, set[asyncio.Event]] = {}  # record id → who waits for it

    def observe(self, events: Iterable[Event]) -> None:
        if self._waiting:
            for event in events:
                for waiter in self._waiting.get(event.id, ()):
                    waiter.set()

    def wake_all(self) -> None:
        """Events were missed."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.set()

    async def answer(self, node_id: str, request: Request) -> Reply:
        """The reply to one question; a refusal is one too. Raises NoLeader where the term is over."""
        try:
            match request:
                case Attach():
                    task, info = await self._attach(node_id, request)
                    return Reply(id=request.id, attachment=task, network=info)
                case Detach():
                    await self._detach(node_id, request.task_id)
                    return Reply(id=request.id)
                case FindNetwork():
                    network = self._network(request.network)
                    return Reply(id=request.id, network=await self._info(network.id, request.network))
                case FindImage():
                    return Reply(id=request.id, image=self._find_image(node_id, request.image))
                case MayTake():
                    if not may_take(self._holdings, self._store.view(), request.node_id, request.manifest):
                        raise PermissionDenied(f"no task of node {request.node_id} uses image {request.manifest}")
                    return Reply(id=request.id)
        except NoLeader:
            raise
        except ShoalError as error:
            return Reply(id=request.id, status=error.status, error=error.message)

    # --- images ---

    def _find_image(self, node_id: str, image: str) -> FoundImage:
        view, wanted = self._store.view(), parse(image)
        found = self._holdings.find(wanted, node_id, private=wanted in images_used(view, node_id))
        nodes = [view.nodes.get(each) for each in found.node_ids] if found is not None else []
        there = [at_port(node.status.addr, HOST_PORT) for node in nodes if node is not None and reachable(node)]
        if found is None or not there:
            raise NotFound(f"no other host has image {image}")
        return FoundImage(digest=found.digest, peers=tuple(there), private=found.private)

    # --- attaching ---

    async def _attach(self, node_id: str, asked: Attach) -> tuple[Task, NetworkInfo]:
        network = self._network(asked.network)
        if not network.spec.attachable:
            raise PermissionDenied(
                f"Could not attach to network {asked.network}: rpc error: code = PermissionDenied "
                f"desc = network {network.spec.name} not manually attachable")
        info = await self._info(network.id, asked.network)
        spec = _spec(asked, info)
        task = attachment_of(self._store.view(), node_id, asked.container_id, network.id)
        if task is None:
            mine = Task(id=self._mint_id(), node_id=node_id, spec=spec, status=CREATED)
            await self._commit(Create(record=mine))
            task = attachment_of(self._store.view(), node_id, asked.container_id, network.id) or mine
            if task.id != mine.id:  # it was asked for in an earlier session, and committed just before
                await self._commit(Delete(table="task", id=mine.id))
        return await self._placed(task.id, asked), info

    async def _placed(self, task_id: str, asked: Attach) -> Task:
        """The task once it has its address; without one it is deleted again. Raises ShoalError."""

        def place(state: State) -> Task | str | None:
            task = state.tasks.get(task_id)
            if task is None:
                return "it was removed meanwhile"
            return task if task.attachments else task.status.err or None

        found = await self._until(task_id, place)
        if isinstance(found, Task):
            return found
        await self._commit(Delete(table="task", id=task_id))
        why = found or "no address was given in time"
        kind = Conflict if asked.address and found else Unavailable
        raise kind(f"could not attach container {asked.container_id[:12]} to network {asked.network}: {why}")

    async def _detach(self, node_id: str, task_id: str) -> None:
        task = self._store.view().tasks.get(task_id)
        if task is None or task.node_id != node_id or task.spec.attachment is None:
            raise NotFound(f"attachment {task_id} not found")
        await self._commit(Delete(table="task", id=task_id))

    # --- the store ---

    def _network(self, reference: str) -> Network:
        """Raises NotFound, and InvalidArgument where it is ambiguous."""
        network = find_network(self._store.view(), reference)
        if network.spec.driver != "overlay" or network.spec.ingress:
            raise NotFound(f"network {reference} not found")
        return network

    async def _info(self, network_id: str, reference: str) -> NetworkInfo:
        """The network once the allocator has given it what it needs."""

        def known(state: State) -> NetworkInfo | str | None:
            network = state.networks.get(network_id)
            return network_info(network) if network is not None else "gone"

        found = await self._until(network_id, known)
        if isinstance(found, NetworkInfo):
            return found
        if found is not None:
            raise NotFound(f"network {reference} not found")
        raise Unavailable(f"network {reference} has no subnet yet: try again")

    async def _until(self, record_id: str, known: Callable[[State], _T | None]) -> _T | None:
        """What `known` says, once it says something; None after WAIT_S."""
        woken = asyncio.Event()
        self._waiting.setdefault(record_id, set()).add(woken)
        try:
            async with asyncio.timeout(WAIT_S):
                while (found := known(self._store.view())) is None:
                    await woken.wait()
                    woken.clear()
                return found
        except TimeoutError:
            return None
        finally:
            self._waiting[record_id].discard(woken)
            if not self._waiting[record_id]:
                del self._waiting[record_id]

    async def _commit(self, change: AnyChange) -> None:
        for _, refusal in await self._store.propose([change]):
            raise Conflict(refusal.reason)


def attachment_of(state: State, node_id: str, container_id: str, network_id: str) -> Task | None:
    """The attachment that this container has, or is about to have, on this network; the oldest of several."""
    found = [
        task for task in state.node_tasks(node_id)
        if task.spec.attachment == container_id
        and task.desired <= TaskState.RUNNING
        and not task.status.state.terminal
        and any(each.target == network_id for each in task.spec.networks)
    ]
    return min(found, key=age_order, default=None)


def _spec(asked: Attach, info: NetworkInfo) -> TaskSpec:
    """The attachment's specification; the container's name is the first of its aliases. Raises InvalidArgument."""
    names = tuple(dict.fromkeys(name for name in (asked.name, *asked.aliases) if name))
    if not asked.container_id or len(asked.container_id) > MAX_NAME:
        raise InvalidArgument("an attachment needs the id of its container")
    if len(names) > MAX_ALIASES or any(len(name) > MAX_NAME for name in names):
        raise InvalidArgument(f"container {asked.container_id[:12]}: more than {MAX_ALIASES} aliases, "
                              f"or one of more than {MAX_NAME} characters")
    if asked.address and not _inside(asked.address, info.subnet):
        raise InvalidArgument(f"invalid address {asked.address}: it is not of subnet {info.subnet} "
                              f"of network {info.name}")
    place = NetworkAttachmentSpec(target=info.id, aliases=names, address=asked.address)
    return TaskSpec(attachment=asked.container_id, networks=(place,))


def _inside(address: str, subnet: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(subnet)
    except ValueError:
        return False

