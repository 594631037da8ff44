"""The stock docker command against the control API's routes, with a loop that runs whatever is asked for."""

import asyncio
import json
import os
import shutil

import msgspec
import pytest
from aiohttp import web

from shoal.api.objects import ContainerStatus, Service, Task, TaskStatus
from shoal.api.states import Role, TaskState
from shoal.manager.ca.tokens import token_for
from shoal.manager.controlapi.errors import api_errors
from shoal.manager.controlapi.requests import reply
from shoal.manager.controlapi.routes import routes
from shoal.manager.orchestrator.tasks import host_ports
from shoal.manager.store.changes import Create, Update
from tests.unit.manager.controlapi_store import MANAGER, WORKER, Swarm

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command on this machine"),
]
DEADLINE_S = 30


@pytest.fixture
def swarm():
    return Swarm()


@pytest.fixture
async def docker(swarm, tmp_path):
    """`await docker("service", "ls")` → its output; fails with what it says on an exit code."""

    async def ping(request):
        return web.Response(text="OK", headers={"Api-Version": "1.50", "Ostype": "linux"})

    async def info(request):
        return reply({"Swarm": {"LocalNodeState": "active", "ControlAvailable": True, "NodeID": MANAGER}})

    async def no_registry(request):
        return reply({"message": "there is no registry"}, 404)

    api = web.Application(middlewares=[api_errors])
    api.add_routes([*routes(swarm.context), web.get("/info", info), web.get("/distribution/{n:.*}/json", no_registry)])
    app = web.Application()
    app.add_routes([web.get("/_ping", ping)])
    app.add_subapp("/v1.50", api)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    socket = tmp_path / "s.sock"
    await web.UnixSite(runner, str(socket)).start()
    environment = {**os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(tmp_path)}
    environment.pop("DOCKER_API_VERSION", None)

    async def run(*words, fails=False):
        process = await asyncio.create_subprocess_exec(
            "docker", *words, env=environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        assert bool(process.returncode) == fails, (words, out, err)
        return (err if fails else out).decode().strip()

    yield run
    await runner.cleanup()


@pytest.fixture
async def running(swarm):
    """Gives each service the tasks that it asks for, running at once, and ends those of what it asked for before."""

    def converge(service):
        tasks = list(swarm.store.view().service_tasks(service.id))
        stale = [task for task in tasks if task.spec != service.spec.task and task.desired == TaskState.RUNNING]
        ended = TaskStatus(state=TaskState.SHUTDOWN, timestamp=2000.0)
        for task in stale:
            swarm.store.apply(Update(record=msgspec.structs.replace(task, desired=TaskState.SHUTDOWN, status=ended)))
        have = {task.slot for task in tasks if task not in stale}
        for slot in set(range(1, service.spec.mode.replicas + 1)) - have:
            swarm.store.apply(Create(record=Task(
                id=f"{slot}{service.meta.version}".ljust(25, "t"), service_id=service.id, slot=slot,
                service_name=service.spec.name, node_id=WORKER, spec=service.spec.task, ports=host_ports(service),
                status=TaskStatus(state=TaskState.RUNNING, timestamp=2000.0,
                                  container=ContainerStatus(container_id="c" * 64)),
            )))  # fmt: skip

    async def loop():
        with swarm.store.watch() as watch:
            while True:
                for event in await watch.batch():
                    if isinstance(event.new, Service):
                        converge(event.new)

    task = asyncio.create_task(loop())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_service_s_life(swarm, docker, running):
    await docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.9.0.0/24", "front")
    service_id = (await docker(
        "service", "create", "--name", "web", "--replicas", "2", "--network", "name=front,alias=www",
        "--update-monitor", "1ms", "--env", "A=1", "--constraint", "node.role==worker", "-p",
        "mode=host,target=80,published=8080", "--limit-memory", "64m", "--mount", "type=tmpfs,dst=/t",
        "busybox", "top")).splitlines()[0]  # fmt: skip
    stored = swarm.store.view().services[service_id]
    assert stored.spec.task.networks[0].aliases == ("www",) and stored.spec.task.container.args == ("top",)
    listed = json.loads(await docker("service", "ls", "--format", "json"))
    assert (listed["Name"], listed["Replicas"], listed["Mode"]) == ("web", "2/2", "replicated")
    await docker("service", "scale", "web=3")
    tasks = [json.loads(line) for line in (await docker("service", "ps", "web", "--format", "json")).splitlines()]
    assert sorted(task["Name"] for task in tasks) == ["web.1", "web.2", "web.3"]
    assert {task["Node"] for task in tasks} == {"host-w"}
    assert tasks[0]["CurrentState"].startswith("Running")
    await docker("service", "update", "-d", "--image", "busybox:2", "--env-add", "B=2", "--label-add", "a=b", "web")
    changed = swarm.store.view().services[service_id].spec
    assert set(changed.task.container.env) == {"A=1", "B=2"} and changed.task.container.image == "busybox:2"
    assert changed.task.resources == stored.spec.task.resources and changed.endpoint == stored.spec.endpoint
    assert changed.task.container.mounts == stored.spec.task.container.mounts
    await docker("service", "rollback", "-d", "web")
    back = swarm.store.view().services[service_id].spec
    assert back.task == stored.spec.task and back.mode.replicas == 3
    pretty = await docker("service", "inspect", "--pretty", "web")
    assert "node.role==worker" in pretty and "10.9" not in pretty
    in_use = await docker("network", "rm", "front", fails=True)
    assert "is in use by service" in in_use
    assert await docker("service", "rm", "web") == "web"
    assert not swarm.store.view().services
    assert "no such service: web" in await docker("service", "inspect", "web", fails=True)


async def test_a_mistake_is_told(swarm, docker):
    await docker("service", "create", "-d", "--name", "web", "busybox")
    assert "already exists" in await docker("service", "create", "-d", "--name", "web", "busybox", fails=True)
    assert "mode=host" in await docker("service", "create", "-d", "-p", "80:80", "busybox", fails=True)
    assert "not found" in await docker("service", "create", "-d", "--network", "nowhere", "busybox", fails=True)
    assert "job modes" in await docker("service", "create", "-d", "--mode", "global-job", "busybox", fails=True)
    assert len(swarm.store.view().services) == 1


async def test_nodes(swarm, docker):
    listed = [json.loads(line) for line in (await docker("node", "ls", "--format", "json")).splitlines()]
    assert [(each["Hostname"], each["ManagerStatus"]) for each in listed] == [("host-m", "Leader"), ("host-w", "")]
    assert listed[0]["TLSStatus"] == listed[1]["TLSStatus"]
    await docker("node", "update", "--label-add", "zone=a", "--availability", "drain", "host-w")
    await docker("node", "promote", WORKER)
    spec = swarm.store.view().nodes[WORKER].spec
    assert (spec.labels, spec.availability, spec.role) == ({"zone": "a"}, "drain", Role.MANAGER)
    await docker("node", "demote", WORKER)
    assert "last manager" in await docker("node", "demote", MANAGER, fails=True)
    assert "zone=a" in await docker("node", "inspect", "--pretty", "host-w")
    assert "is not down" in await docker("node", "rm", "host-w", fails=True)
    assert await docker("node", "rm", "--force", "host-w") == "host-w"


async def test_the_swarm(swarm, docker):
    def token(role):
        return token_for(swarm.store.view().cluster, role)

    before = token(Role.WORKER)
    assert await docker("swarm", "join-token", "-q", "worker") == before
    assert await docker("swarm", "join-token", "--rotate", "-q", "worker") == token(Role.WORKER) != before
    await docker("swarm", "update", "--task-history-limit", "3", "--dispatcher-heartbeat", "7s", "--cert-expiry", "48h")
    spec = swarm.store.view().cluster.spec
    assert (spec.task_history_limit, spec.heartbeat_period_ns) == (3, 7 * 10**9)
    assert "not supported" in await docker("swarm", "update", "--autolock", fails=True)
    assert "not supported" in await docker("swarm", "ca", "--rotate", "-d", fails=True)
    assert "BEGIN CERTIFICATE" in await docker("swarm", "ca")
    assert "no unlock key is set" in await docker("swarm", "unlock-key", fails=True)


async def test_lists_that_are_empty_and_stacks(swarm, docker):
    assert await docker("secret", "ls", "-q") == "" and await docker("config", "ls", "-q") == ""
    label = "com.docker.stack.namespace=shop"
    await docker("service", "create", "-d", "--name", "shop_web", "--label", label, "busybox")
    assert "shop" in await docker("stack", "ls")
    assert "shop_web" in await docker("stack", "services", "shop")
    inspected = json.loads(await docker("service", "inspect", "shop_web"))
    assert inspected[0]["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"] == "any"
