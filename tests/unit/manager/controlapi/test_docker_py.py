"""docker-py against the control API's routes: the bodies that it sends, and what it reads."""

import asyncio

import docker
import pytest
from aiohttp import web
from docker.types import (
    EndpointSpec,
    Healthcheck,
    Mount,
    Resources,
    RestartPolicy,
    ServiceMode,
    UpdateConfig,
)

from shoal.api.states import Availability
from shoal.manager.controlapi.errors import api_errors
from shoal.manager.controlapi.routes import routes
from tests.unit.manager.controlapi_store import CLUSTER, WORKER, Swarm


@pytest.fixture
def swarm():
    return Swarm()


@pytest.fixture
async def client(swarm, tmp_path):
    api = web.Application(middlewares=[api_errors])
    api.add_routes(routes(swarm.context))
    app = web.Application()
    app.add_subapp("/v1.44", api)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s.sock")).start()
    connected = docker.DockerClient(f"unix://{tmp_path}/s.sock", version="1.44", timeout=20)
    yield connected
    connected.close()
    await runner.cleanup()


async def test_a_service_s_life(swarm, client):
    def use():
        network = client.networks.create("front", driver="overlay", attachable=True)
        service = client.services.create(
            "busybox", ["-c", "top"], name="web", env=["A=1"], labels={"a": "b"}, container_labels={"c": "d"},
            constraints=["node.role == worker"], networks=[network.id], hostname="h", stop_grace_period=3 * 10**9,
            mode=ServiceMode("replicated", replicas=2), resources=Resources(mem_limit=64 << 20, cpu_reservation=10**8),
            restart_policy=RestartPolicy("on-failure", delay=10**9, max_attempts=2), mounts=[Mount("/t", "v")],
            update_config=UpdateConfig(parallelism=2, order="start-first"),
            healthcheck=Healthcheck(test=["CMD", "true"]),
            endpoint_spec=EndpointSpec(mode="vip"), preferences=[("spread", "node.labels.zone")], maxreplicas=1,
            cap_add=["CAP_NET_ADMIN"], sysctls={"net.a": "1"}, init=True, tty=False, open_stdin=False, read_only=True,
        )  # fmt: skip
        assert service.scale(5)
        service.reload()
        assert service.update(image="busybox:2", fetch_current_spec=True, labels={"x": "y"}) is not None
        service.reload()
        assert [each.name for each in client.services.list(filters={"name": "web"})] == ["web"]
        assert service.tasks() == []
        with pytest.raises(docker.errors.APIError, match="in use by service"):
            network.remove()
        shown = service.attrs
        assert service.remove()
        network.remove()
        with pytest.raises(docker.errors.NotFound):
            client.services.get("web")
        return shown["Spec"]

    spec = await asyncio.to_thread(use)
    assert (spec["Mode"], spec["Labels"]) == ({"Replicated": {"Replicas": 5}}, {"x": "y"})
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert (container["Image"], container["Env"], container["Init"]) == ("busybox:2", ["A=1"], True)
    assert spec["TaskTemplate"]["Placement"]["MaxReplicas"] == 1
    assert len(spec["TaskTemplate"]["Networks"]) == 1


async def test_the_swarm_and_its_nodes(swarm, client):
    def use():
        client.swarm.reload()
        assert client.swarm.id == CLUSTER
        old = client.swarm.attrs["JoinTokens"]
        client.swarm.update(rotate_manager_token=True)
        client.swarm.reload()
        assert client.swarm.attrs["JoinTokens"]["Manager"] != old["Manager"]
        node = client.nodes.get(WORKER)
        node.update({"Availability": "pause", "Role": "worker", "Labels": {"zone": "a"}})
        assert client.secrets.list() == [] and client.configs.list() == []
        return len(client.nodes.list(filters={"role": "manager"}))

    assert await asyncio.to_thread(use) == 1
    assert swarm.store.view().nodes[WORKER].spec.availability is Availability.PAUSE
