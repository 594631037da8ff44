"""The credentials that come with a service: kept with its specification, given to no client and to no log."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import rich.pretty
from aiohttp.test_utils import make_mocked_request

from shoal.api.errors import InvalidArgument
from shoal.api.objects import Service
from shoal.api.specs import PullOptions, ServiceSpec
from shoal.api.states import TaskState
from shoal.manager.controlapi.errors import api_errors
from shoal.manager.controlapi.requests import MAX_LINE_BYTES
from shoal.manager.controlapi.routes import routes
from shoal.manager.controlapi.services import MAX_REGISTRY_AUTH, pull_options, with_pull_options
from shoal.manager.orchestrator.tasks import is_outdated
from shoal.manager.store.changes import Create, Update
from tests.fakes.controlplane import ControlPlane, cluster, node, service
from tests.unit.manager.controlapi_store import Swarm, client_of


def auth(password: str) -> str:
    return base64.urlsafe_b64encode(json.dumps({"username": "me", "password": password}).encode()).decode()


FIRST, SECOND = auth("first"), auth("second")


class Services:
    """One service, web, changed through the API."""

    def __init__(self, http: aiohttp.ClientSession, swarm: Swarm) -> None:
        self.http, self.swarm = http, swarm

    async def post(self, path: str, given: str = "", image: str = "app", **query: str) -> tuple[int, str]:
        body = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": image}}}
        headers = {"X-Registry-Auth": given} if given else {}
        async with self.http.request("POST", path, json=body, headers=headers, params=query) as answer:
            return answer.status, await answer.text()

    async def update(self, given: str = "", image: str = "app", **query: str) -> tuple[int, str]:
        return await self.post("/services/web/update", given, image, version=str(self.stored.meta.version), **query)

    async def get(self, path: str) -> str:
        async with self.http.request("GET", path) as answer:
            return await answer.text()

    @property
    def stored(self) -> Service:
        (found,) = self.swarm.store.view().services.values()
        return found

    @property
    def kept(self) -> str:
        return given_with(self.stored.spec)


def given_with(spec: ServiceSpec | None) -> str:
    assert spec is not None and spec.task.container is not None
    options = spec.task.container.pull_options
    return "" if options is None else options.registry_auth


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    swarm = Swarm()
    async with client_of(routes(swarm.context), api_errors) as http:
        yield Services(http, swarm)


async def test_they_are_kept_and_shown_to_nobody(services: Services) -> None:
    assert (await services.post("/services/create", FIRST))[0] == 201
    assert services.kept == FIRST
    shown = await services.get("/services/web") + await services.get("/services") + await services.get("/tasks")
    assert "app" in shown and FIRST not in shown and "PullOptions" not in shown and "first" not in shown
    printed = repr(services.stored) + str(services.stored) + rich.pretty.pretty_repr(services.stored)
    assert "PullOptions" in printed and FIRST not in printed


async def test_an_update_without_any_keeps_them(services: Services) -> None:
    """As moby's daemon/cluster/services.go does."""
    await services.post("/services/create", FIRST)
    assert (await services.update(image="app:2"))[0] == 200
    assert services.kept == FIRST
    assert (await services.update(SECOND, registryAuthFrom="spec"))[0] == 200
    assert services.kept == SECOND
    assert (await services.update(registryAuthFrom="previous-spec"))[0] == 200
    assert services.kept == FIRST
    await services.update(image="app:3", registryAuthFrom="spec")
    assert services.kept == FIRST


async def test_a_rollback_brings_those_of_then(services: Services) -> None:
    await services.post("/services/create", FIRST)
    await services.update(SECOND, image="app:2")
    assert (await services.update(rollback="previous", registryAuthFrom="previous-spec"))[0] == 200
    assert (services.kept, given_with(services.stored.previous_spec)) == (FIRST, SECOND)


async def test_bad_requests(services: Services) -> None:
    with pytest.raises(InvalidArgument, match="X-Registry-Auth has 32769 characters"):
        pull_options(make_mocked_request("POST", "/", {"X-Registry-Auth": "A" * (MAX_REGISTRY_AUTH + 1)}))
    assert MAX_REGISTRY_AUTH < MAX_LINE_BYTES
    await services.post("/services/create", FIRST)
    status, said = await services.update(registryAuthFrom="previous-spec")
    assert status == 400 and "does not have a previous spec" in said
    assert services.kept == FIRST


def test_a_record_from_before_they_were_kept_is_read() -> None:
    raw: Any = {"k": "service", "id": "s1", "spec": {"name": "web", "task": {"container": {"image": "app"}}}}
    found = msgspec.convert(raw, Service)
    assert given_with(found.spec) == ""
    assert msgspec.to_builtins(found) == raw  # and what has none is written as it was before


@pytest.mark.parametrize(("state", "replaced"), [
    (TaskState.PREPARING, True), (TaskState.READY, False), (TaskState.RUNNING, False)])
def test_other_ones_replace_no_task_whose_image_is_there(state: TaskState, replaced: bool) -> None:
    """Source: SwarmKit, IsTaskDirty (its issue 971)."""
    control = ControlPlane()
    control.must(Create(record=cluster()), Create(record=node("n1")))
    control.must(Create(record=service(replicas=2)))
    control.settle()
    before = {task.id for task in control.live()}
    for task_id in before:
        control.report(task_id, state)
    stored = control.state.services["s1"]
    spec = with_pull_options(stored.spec, PullOptions(registry_auth=FIRST))
    control.must(Update(record=msgspec.structs.replace(
        stored, spec=spec, previous_spec=stored.spec, spec_version=control.index + 1), wanted=True))
    control.converge()
    assert ({task.id for task in control.live()} != before) == replaced
    status = control.state.services["s1"].update_status
    assert (status is not None) == replaced
    image = msgspec.structs.replace(spec.task.container, image="web:2")
    assert all(is_outdated(task, msgspec.structs.replace(stored, spec=msgspec.structs.replace(
        spec, task=msgspec.structs.replace(spec.task, container=image))), None) for task in control.live())
