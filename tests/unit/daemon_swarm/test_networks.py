"""What the manager says of a network is what this host's client is told."""

from __future__ import annotations

from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp import web

from shoal.api.errors import ShoalError, Unavailable
from shoal.daemon.swarm.networks import SwarmNetworks


@pytest.fixture
async def asked(tmp_path):
    """`await asked(status, body)`: the error of a create that the manager answers so."""
    answers = []

    async def answer(request):
        status, body = answers[0]
        return web.Response(status=status, text=body)

    app = web.Application()
    app.add_routes([web.post("/networks/create", answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    socket = str(tmp_path / "manager.sock")
    await web.UnixSite(runner, socket).start()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:
        networks = SwarmNetworks(SimpleNamespace(manages=True, manager=SimpleNamespace(client=lambda: session)))

        async def ask(status, body):
            answers[:] = [(status, body)]
            with pytest.raises(ShoalError) as raised:
                await networks.create({"Name": "front"})
            return raised.value

        yield ask
    await runner.cleanup()


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 500, 501, 503])
async def test_the_status_and_the_message_are_the_managers(asked, status):
    error = await asked(status, '{"message": "it cannot be"}')
    assert (error.status, error.message) == (status, "it cannot be")


async def test_what_is_no_answer_is_to_be_tried_again(asked):
    assert isinstance(await asked(500, "oops"), Unavailable)
