"""Fixtures: a scripted manager, and hosts that join it. Loopback only; no root."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shoal.api.objects import NodeDescription
from shoal.worker.agent import Agent
from shoal.worker.credentials import Credentials
from shoal.worker.enroll import JoinRequest, enroll
from tests.integration.worker.scripted import NoContainers, NotedNetworks, ScriptedManager
from tests.unit.manager.controlapi_store import Swarm


@pytest.fixture
def swarm() -> Swarm:
    return Swarm()


@pytest.fixture
async def manager(tmp_path: Path, swarm: Swarm) -> AsyncIterator[ScriptedManager]:
    one = ScriptedManager(tmp_path / "manager", swarm)
    await one.start()
    yield one
    await one.stop()


class Host:
    """One host's agent, with what it stands on."""

    def __init__(self, folder: Path) -> None:
        self.credentials = Credentials(folder / "swarm")
        self.executor = NoContainers()
        self.networks = NotedNetworks()
        self.agent: Agent | None = None

    async def enroll(self, manager: ScriptedManager) -> None:
        await enroll(self.credentials, JoinRequest(
            token=manager.token(), remotes=(manager.addr,), advertise_addr="127.0.0.1", listen_addr="127.0.0.1",
            hostname="w1"))

    async def start(self) -> Agent:
        self.credentials.load()
        self.agent = Agent(self.credentials, self.executor, self.networks,
                           lambda: NodeDescription(hostname="w1"))
        await self.agent.start()
        return self.agent

    async def stop(self) -> None:
        if self.agent is not None:
            await self.agent.stop()
            self.agent = None

    async def restart(self) -> Agent:
        """The daemon ends and begins again; containers live on."""
        await self.stop()
        self.executor = NoContainers(self.executor.containers)
        return await self.start()


@pytest.fixture
async def host(tmp_path: Path, manager: ScriptedManager) -> AsyncIterator[Host]:
    """A host that has joined; its agent is to be started."""
    async with AsyncExitStack() as stack:
        one = Host(tmp_path / "host")
        stack.push_async_callback(one.stop)
        await one.enroll(manager)
        identity = one.credentials.identity
        assert identity is not None
        # Managers are told apart by port here, not by node: the CA names one that does not serve.
        import msgspec

        one.credentials.save(msgspec.structs.replace(identity, managers=manager.peers))
        yield one
