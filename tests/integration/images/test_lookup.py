"""What registries say without giving images; tokens; a registry of the test's own that can be searched."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shoal.api.errors import NotFound
from shoal.api.reference import parse
from shoal.engine.images.distribution.challenges import Credentials
from shoal.engine.images.distribution.endpoints import RegistryRules
from shoal.engine.images.distribution.lookup import describe, search
from shoal.engine.images.distribution.pusher import Pusher
from tests.integration.images.registries import MANIFEST, Made, digest, docker_registry, layer
from tests.integration.images.test_pull import QUICK, Host

RULES = RegistryRules()
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


async def test_an_image_is_described(registry: str) -> None:
    made = Made(registry, "app", [layer("a", 10)]).put("v1")
    found = await describe(parse(f"{registry}/app:v1"), RULES)
    assert (found.descriptor.digest, found.descriptor.size, found.descriptor.media_type) == (
        digest(made.manifest), len(made.manifest), MANIFEST)
    assert [str(one) for one in found.platforms] == ["linux/amd64"]
    index = made.put_index("all", [(made, "amd64"), (made, "arm64")])
    found = await describe(parse(f"{registry}/app:all"), RULES)
    assert found.descriptor.digest == index
    assert [str(one) for one in found.platforms] == ["linux/amd64", "linux/arm64"]
    with pytest.raises(NotFound, match="manifest unknown"):
        await describe(parse(f"{registry}/app:none"), RULES)


@asynccontextmanager
async def guarded(target: str) -> AsyncIterator[tuple[str, list[str]]]:
    """A registry that passes on what comes with a token for its scope, and gives such; the scopes asked for."""
    scopes: list[str] = []

    async def token(request: web.Request) -> web.Response:
        known = request.headers.get("Authorization") == "Basic " + base64.b64encode(b"me:secret").decode()
        asked = request.query.getall("scope", [])
        scopes.extend(asked)
        granted = [scope if known else scope.replace(",push", "") for scope in asked]
        return web.json_response({"token": base64.urlsafe_b64encode(" ".join(granted).encode()).decode()})

    async def passed(request: web.Request) -> web.Response:
        granted = base64.urlsafe_b64decode(request.headers.get("Authorization", "").removeprefix("Bearer ")).decode()
        action = "pull" if request.method in ("GET", "HEAD") else "push"
        if action not in granted and (request.path != "/v2/" or not request.headers.get("Authorization")):
            realm = f'Bearer realm="http://{request.host}/token",service="it",scope="x"'
            return web.json_response({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]},
                                     status=401, headers={"WWW-Authenticate": realm})
        async with (aiohttp.ClientSession(auto_decompress=False) as session, session.request(
                request.method, f"http://{target}{request.raw_path}", data=await request.read(),
                headers={name: value for name, value in request.headers.items() if name != "Authorization"}) as answer):
            headers = {name: value for name, value in answer.headers.items()
                       if name in ("Location", "Content-Type", "Range", "Docker-Content-Digest")}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/token", token)
    app.router.add_route("*", "/v2/{path:.*}", passed)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        yield f"127.0.0.1:{server.port}", scopes
    finally:
        await server.close()


async def test_tokens_are_bought_for_what_is_done(registry: str, tmp_path: Path) -> None:
    made = Made(registry, "sold", [layer("a", 10)]).put("v1")
    host = Host(tmp_path)
    async with guarded(registry) as (address, scopes):
        image = await host.pull(f"{address}/sold:v1")
        assert set(scopes) == {"repository:sold:pull"}
        await host.images.tag(image.id, f"{address}/bought", "v1")
        pusher = Pusher(host.images, policy=QUICK)
        with pytest.raises(Exception, match="authentication required"):
            await pusher.push(parse(f"{address}/bought:v1"))
        await pusher.push(parse(f"{address}/bought:v1"), Credentials("me", "secret"))
        assert "repository:bought:pull,push" in scopes
    assert (await describe(parse(f"{registry}/bought:v1"), RULES)).descriptor.digest == digest(made.manifest)


async def test_a_registry_that_can_is_searched(registry: str) -> None:
    async def v2(request: web.Request) -> web.Response:
        return web.Response()

    async def results(request: web.Request) -> web.Response:
        return web.json_response({"results": [
            {"name": f"{request.query['q']}-{number}", "star_count": number, "description": None}
            for number in range(int(request.query["n"]) + 5)]})

    app = web.Application()
    app.router.add_get("/v2/", v2)
    app.router.add_get("/v1/search", results)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        found = await search(f"127.0.0.1:{server.port}/team/app", 3, RULES)
        assert [one.name for one in found] == ["team/app-0", "team/app-1", "team/app-2"]
    finally:
        await server.close()
    with pytest.raises(NotFound, match="cannot be searched"):
        await search(f"{registry}/app", 3, RULES)
