"""A manager process that only follows a script: real CA, sessions and private socket, no Raft and no loops.

Stands where `python -m shoal.manager` stands, for tests of what the daemon does with that process.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec
from aiohttp import web

from shoal.api.membership import Identity, InitRequest, ManagerInfoReply
from shoal.api.states import Role
from shoal.worker.credentials import Credentials
from tests.integration.worker.scripted import ScriptedManager
from tests.unit.manager.controlapi_store import CLUSTER, MANAGER, Swarm


async def serve(command: str, data: Path, run: Path) -> None:
    folder = data / "swarm"
    swarm = Swarm()
    request = msgspec.json.decode(sys.stdin.buffer.read() or b"null", type=InitRequest | None)
    if request is not None and request.hostname == "refused":
        sys.exit("the address is already in use")
    manager = ScriptedManager(folder if command == "init" else run / "manager", swarm)
    await manager.start()
    if command == "init":
        assert request is not None
        Credentials(folder).save(Identity(
            node_id=MANAGER, cluster_id=CLUSTER, role=Role.MANAGER, advertise_addr=request.advertise_addr,
            listen_addr=request.listen_addr, managers=manager.peers, raft_id="r1"))
    (folder / "raft").mkdir(exist_ok=True)
    (folder / "raft" / "journal").touch()
    (folder / "raft" / f"started-{command}-{os.getpid()}").touch()
    manager.role = Role.MANAGER
    stopping = asyncio.Event()

    async def info(_: web.Request) -> web.Response:
        return web.Response(body=msgspec.msgpack.encode(ManagerInfoReply(
            pid=os.getpid(), node_id=MANAGER, cluster_id=CLUSTER, is_leader=True, is_ready=True, managers=1)))

    async def stop(_: web.Request) -> web.Response:
        stopping.set()
        return web.Response()

    async def summary(_: web.Request) -> web.Response:
        return web.json_response({"Nodes": 2, "Managers": 1})

    async def echo(request: web.Request) -> web.Response:
        return web.json_response({
            "method": request.method, "path": request.path, "query": request.rel_url.raw_query_string,
            "version": request.headers.get("X-Shoal-Api-Version"), "node": request.headers.get("X-Shoal-Node-Id"),
            "body": (await request.read()).decode()}, status=201)

    async def logs(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await asyncio.sleep(3600)
        return response

    app = web.Application()
    app.router.add_get("/internal/info", info)
    app.router.add_post("/internal/stop", stop)
    app.router.add_post("/internal/leave", stop)
    app.router.add_get("/internal/swarm-summary", summary)
    app.router.add_get("/services/{id}/logs", logs)
    app.router.add_route("*", "/{tail:.*}", echo)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(run / "manager.sock")).start()
    await stopping.wait()
    await runner.cleanup()
    await manager.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--run-root", type=Path)
    given = parser.parse_args()
    asyncio.run(serve(given.command, given.data_root, given.run_root))
