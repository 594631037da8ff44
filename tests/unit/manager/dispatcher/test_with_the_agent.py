"""Whole agents and all loops of a leader: a service runs, scales, heals and goes. Only containers are not real."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from shoal.api.objects import Endpoint, Service, Task
from shoal.api.specs import (
    SECOND_NS,
    ContainerSpec,
    NetworkAttachmentSpec,
    NetworkSpec,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from shoal.api.states import Availability, NodeState, Role, TaskState
from shoal.manager.store.changes import Create, Delete, Update
from tests.integration.worker.conftest import Host
from tests.unit.manager.controlapi_store import MANAGER, WORKER
from tests.unit.manager.dispatcher.records import network
from tests.unit.manager.dispatcher.site import Site, until

NewHost = Callable[[str], Awaitable[Host]]


@pytest.fixture
async def host(site: Site, tmp_path: Path) -> AsyncIterator[NewHost]:
    """Makes hosts that have joined, hold a session and may be given tasks."""
    site.store.apply(Delete(table="node", id=WORKER))
    manager = site.view.nodes[MANAGER]
    drained = msgspec.structs.replace(manager.spec, availability=Availability.DRAIN)
    site.store.apply(Update(record=msgspec.structs.replace(manager, spec=drained)))
    await site.lead(deciding=True)
    async with AsyncExitStack() as stack:

        async def make(name: str) -> Host:
            one = Host(tmp_path / name)
            await one.enroll(site)  # type: ignore[arg-type]
            stack.push_async_callback(one.stop)
            assert await (await one.start()).joined(5)
            await until(lambda: site.state(node_id(one)) is NodeState.READY)
            return one

        yield make


def web(replicas: int) -> Service:
    place = NetworkAttachmentSpec(target="w1", aliases=("www",))
    spec = TaskSpec(container=ContainerSpec(image="i", stop_grace_period_ns=SECOND_NS), networks=(place,),
                    restart=RestartPolicy(delay_ns=0))
    return Service(id="s1", endpoint=Endpoint(mode="vip"),
                   spec=ServiceSpec(name="web", task=spec, mode=ServiceMode(replicas=replicas)))


def scale(site: Site, replicas: int) -> None:
    stored = site.view.services["s1"]
    spec = msgspec.structs.replace(stored.spec, mode=ServiceMode(replicas=replicas))
    site.store.apply(Update(record=msgspec.structs.replace(stored, spec=spec), wanted=True))


def running(site: Site) -> list[Task]:
    return [each for each in site.view.service_tasks("s1")
            if each.status.state is TaskState.RUNNING and each.desired is TaskState.RUNNING]


def runs(site: Site, replicas: int) -> Callable[[], bool]:
    return lambda: len(running(site)) == replicas


def node_id(host: Host) -> str:
    assert host.credentials.identity is not None
    return host.credentials.identity.node_id


async def test_a_service_runs_scales_and_goes(site: Site, host: NewHost):
    first, second = await host("a"), await host("b")
    bare = msgspec.structs.replace(network("w1"), spec=NetworkSpec(name="net"), vni=0, ipam=())
    site.store.apply(Create(record=bare), Create(record=web(4)))
    await until(runs(site, 4))
    assert {each.node_id for each in running(site)} == {node_id(first), node_id(second)}
    addresses = sorted(each.attachments[0].addresses[0].partition("/")[0] for each in running(site))

    def backends() -> list[tuple[str, ...]]:
        return [told["services"][-1].backends for one in (first, second)
                for told in one.networks.told[-1:] if told.get("services")]

    await until(lambda: backends() == [tuple(addresses)] * 2)
    scale(site, 1)
    await until(lambda: len(site.view.tasks) == 1)
    assert len(running(site)) == 1
    await until(lambda: len(first.executor.containers | second.executor.containers) == 1)
    site.store.apply(Delete(table="service", id="s1"))
    await until(lambda: not site.view.tasks)
    await until(lambda: not first.executor.containers and not second.executor.containers)


async def test_a_lost_host_is_replaced_and_what_it_still_ran_is_stopped_when_it_is_back(site: Site, host: NewHost):
    site.set_lease(2.0)
    first, second = await host("a"), await host("b")
    site.store.apply(Create(record=network("w1")), Create(record=web(2)))
    await until(runs(site, 2))
    await second.stop()
    await until(lambda: site.state(node_id(second)) is NodeState.DOWN)
    await until(lambda: [each.node_id for each in running(site)] == [node_id(first)] * 2)
    left = [task_id for task_id, seen in second.executor.containers.items() if seen.phase.name == "RUNNING"]
    assert len(left) == 1
    await second.restart()
    await until(lambda: site.view.tasks[left[0]].status.state is TaskState.SHUTDOWN)
    assert site.state(node_id(second)) is NodeState.READY


async def test_statuses_of_a_time_without_managers_arrive_with_the_next_leader(site: Site, host: NewHost):
    one = await host("a")
    site.store.apply(Create(record=network("w1")), Create(record=web(1)))
    await until(runs(site, 1))
    (task,) = running(site)
    await site.resign()
    await until(lambda: one.agent is not None and not one.agent.connected)
    one.executor.exit(task.id, 3)
    await site.lead(deciding=True)
    await until(lambda: site.view.tasks[task.id].status.state is TaskState.FAILED)
    await until(runs(site, 1))


async def test_docker_run_on_an_attachable_network(site: Site, host: NewHost):
    one = await host("a")
    site.store.apply(Create(record=network("w1")))
    assert one.agent is not None
    info = await one.agent.find_network("net-w1")
    assert info is not None and info.attachable
    place = await one.agent.attach(info.id, "c" * 64, "box", ("db",), "")
    assert place.address == "10.0.1.2/24"
    (task,) = site.view.tasks.values()
    await until(lambda: site.view.tasks[task.id].status.state is TaskState.RUNNING)
    await one.agent.detach("c" * 64)
    await until(lambda: not site.view.tasks)


async def test_a_promoted_host_renews_its_certificate(site: Site, host: NewHost):
    one = await host("a")
    stored = site.view.nodes[node_id(one)]
    spec = msgspec.structs.replace(stored.spec, role=Role.MANAGER)
    site.store.apply(Update(record=msgspec.structs.replace(stored, spec=spec), wanted=True))
    await until(lambda: site.view.nodes[stored.id].role is Role.MANAGER)
