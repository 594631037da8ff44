"""Logging in, against registries of the test's own on loopback."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shoal.api.errors import InvalidArgument, Unauthorized
from shoal.engine.images.distribution.challenges import Credentials
from shoal.engine.images.distribution.login import log_in as log_in_with

Handler = Callable[[web.Request], Awaitable[web.Response]]
GOOD = "Basic " + base64.b64encode(b"me:secret").decode()


async def log_in(server: str, username: str, password: str) -> str:
    return await log_in_with(server, Credentials(username, password))


@asynccontextmanager
async def registry(**handlers: Handler) -> AsyncIterator[str]:
    """HOST:PORT of a registry; a handler is named for the first part of its path."""
    app = web.Application()
    for name, handler in handlers.items():
        app.router.add_get(f"/{name}/", handler)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.close()


async def basic(request: web.Request) -> web.Response:
    if request.headers.get("Authorization") == GOOD:
        return web.Response()
    return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})


def bearing(token: str) -> tuple[Handler, Handler]:
    async def v2(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == f"Bearer {token}":
            return web.Response()
        realm = f'Bearer realm="http://{request.host}/token/",service="it"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    async def give(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != GOOD or request.query["service"] != "it":
            return web.Response(status=401)
        return web.json_response({"token": token, "refresh_token": "for-life"})

    return v2, give


async def open_to_all(request: web.Request) -> web.Response:
    return web.Response()


async def broken(request: web.Request) -> web.Response:
    return web.Response(status=503)


async def test_a_name_and_password_are_taken() -> None:
    async with registry(v2=basic) as address:
        assert await log_in(address, "me", "secret") == ""
        assert await log_in(f"http://{address}/v1/", "me", "secret") == ""
        with pytest.raises(Unauthorized, match="incorrect username or password"):
            await log_in(address, "me", "wrong")


async def test_a_token_is_asked_for_where_the_registry_wants_one() -> None:
    v2, token = bearing("t0")
    async with registry(v2=v2, token=token) as address:
        assert await log_in(address, "me", "secret") == "for-life"
        with pytest.raises(Unauthorized, match="incorrect username or password"):
            await log_in(address, "me", "wrong")


async def test_a_registry_for_everybody_takes_anybody() -> None:
    async with registry(v2=open_to_all) as address:
        assert await log_in(address, "", "") == ""


async def test_what_is_no_registry_says_so() -> None:
    async with registry(v2=broken) as address:
        with pytest.raises(Unauthorized, match="failed: received unexpected HTTP status: 503"):
            await log_in(address, "me", "secret")
    with pytest.raises(Unauthorized, match=r"login attempt to .* failed"):
        await log_in(address, "me", "secret")  # nobody listens there any more


@pytest.mark.parametrize("name", ["a b", "me@host", "host:port", "[::1", "x?y"])
async def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid registry name"):
        await log_in(name, "me", "secret")
