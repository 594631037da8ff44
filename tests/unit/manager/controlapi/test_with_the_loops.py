"""The control API together with the real deciders: from a client's request to tasks on nodes, and back to its lists."""

import asyncio
import json
import time

import pytest

from shoal.api.ids import new_swarm_id
from shoal.api.objects import TaskStatus
from shoal.api.states import TaskState
from shoal.manager.controlapi.errors import api_errors
from shoal.manager.controlapi.routes import routes
from shoal.manager.controlloop import drive
from shoal.manager.deciders import deciders
from shoal.manager.store.changes import Command, Create, SetTaskStatus
from tests.unit.manager.controlapi_store import WORKER, Swarm, client_of, node

DEADLINE_S = 20


class LoopStore:
    """The store as loops see it."""

    def __init__(self, store):
        self.store = store
        self.count = 0

    def view(self):
        return self.store.view()

    def watch(self):
        return self.store.watch()

    async def propose(self, changes):
        self.count += 1
        command = Command(request_id=f"loops{self.count}", changes=tuple(changes), at=time.time())
        outcome = await self.store.submit(command)
        await asyncio.sleep(0)
        return [(changes[refusal.position], refusal) for refusal in outcome.refusals]


@pytest.fixture
async def swarm():
    swarm = Swarm()
    swarm.store.apply(Create(record=node("x" * 25)))
    store = LoopStore(swarm.store)

    async def agents():
        """Every task that was assigned runs, every one that should stop stops."""
        with swarm.store.watch() as watch:
            while True:
                for event in await watch.batch():
                    task = swarm.store.view().tasks.get(event.id) if event.table == "task" else None
                    if task is None or task.status.state < TaskState.ASSIGNED or task.status.state.terminal:
                        continue
                    state = TaskState.RUNNING if task.desired <= TaskState.RUNNING else TaskState.SHUTDOWN
                    if task.status.state < state and task.desired >= TaskState.RUNNING:
                        swarm.store.apply(SetTaskStatus(id=task.id, status=TaskStatus(state=state)))

    tasks = [asyncio.create_task(drive(store, each, time.monotonic)) for each in deciders(new_swarm_id)]
    tasks.append(asyncio.create_task(agents()))
    yield swarm
    assert not [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(swarm, true):
    """Wait for the store to satisfy `true`."""
    async with asyncio.timeout(DEADLINE_S):
        with swarm.store.watch() as watch:
            while not true():
                await watch.batch()


def running(swarm):
    return [task for task in swarm.store.view().tasks.values() if task.status.state == TaskState.RUNNING]


async def test_from_a_request_to_running_tasks_and_back(swarm):
    async with client_of(routes(swarm.context), api_errors) as http:

        async def call(method, path, body=None, **query):
            async with http.request(method, path, json=body, params=query) as answer:
                raw = await answer.read()
                assert answer.status < 300, raw
                return json.loads(raw) if raw else None

        await call("POST", "/networks/create", {"Name": "front", "Driver": "overlay"})
        body = {"Name": "web", "Mode": {"Replicated": {"Replicas": 4}},
                "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}]},
                "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}, "Networks": [{"Target": "front"}],
                                 "Placement": {"Constraints": ["node.role==worker"]}}}  # fmt: skip
        await call("POST", "/services/create", body)
        await until(swarm, lambda: len(running(swarm)) == 2)  # one port, two workers
        waiting = [task for task in await call("GET", "/tasks") if task["Status"]["State"] == "pending"]
        await until(swarm, lambda: any("host-mode port" in task.status.err
                                       for task in swarm.store.view().tasks.values()))  # fmt: skip
        assert len(waiting) == 2
        shown = await call("GET", "/services/web")
        assert shown["Endpoint"]["VirtualIPs"][0]["Addr"].startswith("10.0.1.")
        body["EndpointSpec"] = {"Mode": "dnsrr"}
        body["UpdateConfig"] = {"Parallelism": 0, "Monitor": 1}
        await call("POST", "/services/web/update", body, version=shown["Version"]["Index"])
        await until(swarm, lambda: len(running(swarm)) == 4)
        await until(swarm, lambda: not swarm.store.view().named("service", "web").endpoint.virtual_ips)
        (listed,) = await call("GET", "/services", status="true")
        assert listed["ServiceStatus"] == {"RunningTasks": 4, "DesiredTasks": 4, "CompletedTasks": 0}
        tasks = await call("GET", "/tasks", filters='{"desired-state": ["running"]}')
        addresses = {task["NetworksAttachments"][0]["Addresses"][0] for task in tasks}
        assert len(addresses) == 4 and all(each.endswith("/24") for each in addresses)
        drained = (await call("GET", f"/nodes/{WORKER}"))["Version"]["Index"]
        await call("POST", f"/nodes/{WORKER}/update", {"Availability": "drain"}, version=drained)
        await until(swarm, lambda: {task.node_id for task in running(swarm)} == {"x" * 25} and len(running(swarm)) == 4)
        await call("DELETE", "/services/web")
        await until(swarm, lambda: not running(swarm))
        await call("DELETE", "/networks/front")
