"""Hosts that each run a real manager process, on addresses of their own on loopback."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from shoal.api.membership import InitRequest, ManagerInfoReply
from shoal.api.objects import NodeDescription
from shoal.api.specs import Resources
from shoal.api.states import Role
from shoal.worker.agent import Agent
from shoal.worker.credentials import Credentials
from shoal.worker.enroll import JoinRequest, enroll
from tests.integration.worker.scripted import NoContainers, NotedNetworks

DEADLINE_S = 20.0
_NETWORK = f"127.78.{os.getpid() % 250}"


async def until(condition: Callable[[], Awaitable[Any]], deadline_s: float = DEADLINE_S) -> Any:
    """Wait for a condition, by a deadline; what it gave."""
    async with asyncio.timeout(deadline_s):
        while not (found := await condition()):
            await asyncio.sleep(0.01)
        return found


class Host:
    """One host's roots and its manager process, which `spawn` starts and nobody supervises."""

    def __init__(self, folder: Path, number: int) -> None:
        self.name = f"m{number}"
        self.address = f"{_NETWORK}.{number}"
        self.data, self.run_root = folder / self.name / "data", folder / self.name / "run"
        for root in (self.data, self.run_root):
            root.mkdir(parents=True)
        self.log = self.run_root / "manager.log"
        self._log_from = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.agent: Agent | None = None
        self._client: aiohttp.ClientSession | None = None

    # --- the process ---

    def spawn(self, command: str, stdin: bytes = b"") -> None:
        (self.run_root / "manager.sock").unlink(missing_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shoal.manager", command, "--data-root", str(self.data),
                 "--run-root", str(self.run_root)],
                stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True)
        assert self.process.stdin is not None
        self.process.stdin.write(stdin)
        self.process.stdin.close()

    async def init(self) -> None:
        request = InitRequest(advertise_addr=self.address, listen_addr=self.address, hostname=self.name)
        self.spawn("init", msgspec.json.encode(request))
        await self.ready()

    async def enroll(self, token: str, *others: Host) -> None:
        """Get this host's certificate with a join token."""
        await enroll(Credentials(self.data / "swarm"), JoinRequest(
            token=token, remotes=tuple(other.address for other in others), advertise_addr=self.address,
            listen_addr=self.address, hostname=self.name))

    async def join(self, first: Host) -> None:
        await self.enroll(await first.token(Role.MANAGER), first)
        self.spawn("join")
        await self.ready()

    async def ready(self) -> ManagerInfoReply:
        async def is_ready() -> ManagerInfoReply | None:
            assert self.process is not None
            assert self.process.poll() is None, self.last_words()
            info = await self.info()
            return info if info is not None and info.is_ready else None

        return await until(is_ready)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        async def is_over() -> bool:
            assert self.process is not None
            return self.process.poll() is not None

        await until(is_over)
        assert self.process is not None
        return self.process.wait()

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def last_words(self) -> str:
        lines = self.log.read_text().strip().splitlines()
        return lines[-1] if lines else ""

    def said(self, words: str) -> bool:
        return words in self.log.read_text()[self._log_from:]

    def forget_log(self) -> None:
        """What it has said so far does not count."""
        self._log_from = len(self.log.read_text())

    async def says(self, words: str) -> None:
        """Wait until its log has these words."""
        async def has_said() -> bool:
            return self.said(words)

        await until(has_said)

    # --- its private socket ---

    def client(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self.run_root / "manager.sock"), force_close=True))
        return self._client

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and decoded JSON. Raises aiohttp.ClientError where nobody answers."""
        async with self.client().request(method, f"http://manager{path}", json=body, headers=headers) as answer:
            data = await answer.read()
            try:
                return answer.status, json.loads(data) if data else None
            except json.JSONDecodeError:
                return answer.status, data

    async def get(self, path: str) -> Any:
        status, found = await self.call("GET", path)
        assert status == 200, (status, found)
        return found

    async def info(self) -> ManagerInfoReply | None:
        with suppress(aiohttp.ClientError, OSError):
            async with self.client().get("http://manager/internal/info") as answer:
                return msgspec.msgpack.decode(await answer.read(), type=ManagerInfoReply)
        return None

    async def token(self, role: Role) -> str:
        tokens = (await self.get("/swarm"))["JoinTokens"]
        return str(tokens["Manager" if role is Role.MANAGER else "Worker"])

    async def create_service(self, name: str, replicas: int = 1) -> tuple[int, Any]:
        return await self.call("POST", "/services/create", {
            "Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}},
            "Mode": {"Replicated": {"Replicas": replicas}}})

    async def services(self) -> list[str]:
        return sorted(each["Spec"]["Name"] for each in await self.get("/services"))

    async def set_role(self, node_id: str, role: str) -> tuple[int, Any]:
        node = await self.get(f"/nodes/{node_id}")
        spec = {**node["Spec"], "Role": role}
        return await self.call("POST", f"/nodes/{node_id}/update?version={node['Version']['Index']}", spec)

    # --- an agent, whose containers are entries in a dict ---

    async def start_agent(self) -> Agent:
        credentials = Credentials(self.data / "swarm")
        credentials.load()
        described = NodeDescription(hostname=self.name, resources=Resources(nano_cpus=4 * 10**9, memory_bytes=8 << 30))
        self.agent = Agent(credentials, NoContainers(), NotedNetworks(), lambda: described)
        await self.agent.start()
        return self.agent

    @property
    def node_id(self) -> str:
        identity = Credentials(self.data / "swarm").load()
        assert identity is not None
        return identity.node_id

    async def hang_up(self) -> None:
        """Close what this test opened; the process goes on."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def close(self) -> None:
        if self.agent is not None:
            await self.agent.stop()
        await self.hang_up()
        if self.runs:
            self.kill()


class Hosts:
    """Makes hosts, and a swarm of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self.all: list[Host] = []

    def new(self) -> Host:
        host = Host(self._folder, next(self._numbers))
        self.all.append(host)
        return host

    async def swarm(self, managers: int) -> list[Host]:
        """A swarm of this many managers; the first leads."""
        hosts = [self.new() for _ in range(managers)]
        await hosts[0].init()
        for host in hosts[1:]:
            await host.join(hosts[0])
        return hosts

    async def leader(self, *among: Host) -> Host:
        """The one that leads, once one does."""
        async def find() -> Host | None:
            for host in among or self.all:
                if host.runs and (info := await host.info()) is not None and info.is_leader and info.is_ready:
                    return host
            return None

        return await until(find)

    async def close(self) -> None:
        for host in self.all:
            await host.close()
