"""Containers of `docker run` on the swarm's networks."""

from __future__ import annotations

import asyncio

import pytest

from shoal.api.errors import Conflict, NotFound, PermissionDenied, Unavailable
from shoal.api.messages import NetworkInfo
from shoal.api.sandbox import EndpointInfo, EndpointRequest, Sandbox, SandboxRequest
from shoal.worker.attachments import Attaching


class Networks:
    def __init__(self) -> None:
        self.sandboxes: dict[str, Sandbox] = {}
        self.asked: list[SandboxRequest] = []
        self.failure: Exception | None = None

    async def up(self, request: SandboxRequest) -> Sandbox:
        self.asked.append(request)
        if self.failure is not None:
            raise self.failure
        return self._keep(request.container_id, [each.network for each in request.endpoints])

    async def down(self, container_id: str) -> None:
        self.sandboxes.pop(container_id, None)

    def sandbox(self, container_id: str) -> Sandbox | None:
        return self.sandboxes.get(container_id)

    async def connect(self, container_id: str, endpoint: EndpointRequest) -> Sandbox:
        had = [each.network_id for each in self.sandboxes[container_id].endpoints]
        return self._keep(container_id, [*had, endpoint.network])

    async def disconnect(self, container_id: str, network: str) -> Sandbox:
        had = [each.network_id for each in self.sandboxes[container_id].endpoints]
        return self._keep(container_id, [each for each in had if each != network])

    def _keep(self, container_id: str, networks: list[str]) -> Sandbox:
        ends = tuple(EndpointInfo(network_id=one, network_name=one, endpoint_id="e", address="", prefix_length=24,
                                  mac="") for one in networks)
        self.sandboxes[container_id] = Sandbox(container_id=container_id, netns="", endpoints=ends)
        return self.sandboxes[container_id]


class Managers:
    """An agent whose managers know two networks."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, str]] = {}
        self.detached = asyncio.Event()

    async def find_network(self, reference: str) -> NetworkInfo | None:
        if reference not in ("web", "closed"):
            return None
        return NetworkInfo(id=f"id-{reference}", name=reference, driver="overlay", vni=1, subnet="", gateway="",
                           attachable=reference == "web")

    async def attach(self, network: str, container_id: str, name: str, aliases: tuple[str, ...] = (),
                     address: str = "") -> EndpointRequest:
        self.held.setdefault(container_id, {})[network] = "t1"
        return EndpointRequest(network=network, address=address or "10.0.1.9/24", mac="02:42:0a:00:01:09",
                               aliases=aliases)

    async def detach(self, container_id: str, network_id: str = "") -> None:
        held = self.held.get(container_id, {})
        for one in [network_id] if network_id else list(held):
            held.pop(one, None)
        if not held:
            self.held.pop(container_id, None)
        self.detached.set()

    def attachments(self) -> dict[str, dict[str, str]]:
        return self.held


def request(*networks: str) -> SandboxRequest:
    return SandboxRequest(container_id="c1", name="box",
                          endpoints=tuple(EndpointRequest(network=one, aliases=("a",)) for one in networks))


@pytest.fixture
def networks() -> Networks:
    return Networks()


@pytest.fixture
def managers() -> Managers:
    return Managers()


@pytest.fixture
def attaching(networks: Networks, managers: Managers) -> Attaching:
    return Attaching(networks, lambda name: name == "local", lambda: managers)


async def test_the_managers_address_is_used_and_given_back(
    attaching: Attaching, networks: Networks, managers: Managers
) -> None:
    await attaching.up(request("local", "web"))
    assert networks.asked[0].endpoints == (
        EndpointRequest(network="local", aliases=("a",)),
        EndpointRequest(network="id-web", aliases=("a",), address="10.0.1.9/24", mac="02:42:0a:00:01:09"))
    await attaching.down("c1")
    async with asyncio.timeout(5):
        await managers.detached.wait()
    assert managers.held == {}


async def test_a_task_that_has_its_address_is_let_through(attaching: Attaching, managers: Managers) -> None:
    placed = EndpointRequest(network="id-web", address="10.0.1.7/24", mac="02:42:0a:00:01:07")
    await attaching.up(SandboxRequest(container_id="c1", name="web.1.x", endpoints=(placed,)))
    assert managers.held == {}


@pytest.mark.parametrize(("network", "error"), [("closed", PermissionDenied), ("nowhere", NotFound)])
async def test_what_cannot_be_attached_to(
    attaching: Attaching, networks: Networks, network: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=network):
        await attaching.up(request(network))
    assert networks.asked == []


async def test_a_sandbox_that_fails_gives_its_places_back(
    attaching: Attaching, networks: Networks, managers: Managers
) -> None:
    networks.failure = Conflict("port is taken")
    with pytest.raises(Conflict):
        await attaching.up(request("web"))
    async with asyncio.timeout(5):
        await managers.detached.wait()
    assert managers.held == {}


async def test_connect_and_disconnect(attaching: Attaching, managers: Managers) -> None:
    await attaching.up(request("local"))
    await attaching.connect("c1", EndpointRequest(network="web"))
    assert managers.held == {"c1": {"id-web": "t1"}}
    await attaching.disconnect("c1", "id-web")
    async with asyncio.timeout(5):
        await managers.detached.wait()
    assert managers.held == {}


async def test_what_was_left_behind_is_given_back(attaching: Attaching, managers: Managers) -> None:
    managers.held = {"gone": {"id-web": "t9"}}
    attaching.reconcile()
    async with asyncio.timeout(5):
        await managers.detached.wait()
    assert managers.held == {}


async def test_outside_a_swarm_nothing_is_asked(networks: Networks) -> None:
    outside = Attaching(networks, lambda name: False, lambda: None)
    await outside.up(request("anything"))
    await outside.down("c1")
    assert networks.asked[0].endpoints[0].network == "anything"


async def test_while_no_manager_answers_the_container_still_goes(
    attaching: Attaching, networks: Networks, managers: Managers
) -> None:
    await attaching.up(request("web"))

    async def silent(container_id: str, network_id: str = "") -> None:
        managers.detached.set()
        raise Unavailable("the swarm's managers did not answer in time")

    managers.detach = silent  # type: ignore[method-assign]
    await attaching.down("c1")
    assert networks.sandbox("c1") is None
    async with asyncio.timeout(5):
        await managers.detached.wait()
    await attaching.close()
    assert managers.held == {"c1": {"id-web": "t1"}}
