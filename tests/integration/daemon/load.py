"""Clients that create, start, exec, stop and remove containers while shoald is killed, and hold it to its answers.

What was answered holds, whatever dies then: a container is there from its creation to its
removal, runs from its start to its end, and has the exit code that its program ended with.
What was asked and not answered may have been done or not: the client looks, and goes on.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

ANSWER_S = 60.0
"""On a machine that has better to do."""

KILLED = 137
READY = "ready"


class Lost(Exception):
    """The daemon died before it answered."""


class Service:
    """The daemon as clients reach it, now and again. `up` is set while it is there; `deaths` are counted."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.up = asyncio.Event()
        self.deaths = 0
        self.answers: Counter[str] = Counter()

    def open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            "http://localhost", connector=aiohttp.UnixConnector(str(self._socket), limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S))


class Program:
    """What a container runs, with `code` at its end.

    One that does not end by itself is stopped, with so much patience, once it has said that it is ready: before
    that a signal may meet runc's own process 1, which ends with a code of its own (under dockerd, too).
    """

    def __init__(self, script: str, code: int, *, patience_s: int | None = None) -> None:
        self.command = ["sh", "-c", script]
        self.code = code
        self.patience_s = patience_s

    @property
    def ends_itself(self) -> bool:
        return self.patience_s is None


def choose(chance: random.Random) -> Program:
    """A program and the code that it must end with."""
    code = chance.randrange(1, 100)
    return chance.choice((
        Program(f"exit {code}", code),
        Program(f"sleep {chance.uniform(0.05, 1.5):.2f}; exit {code}", code),
        Program(f"echo {READY}; exec sleep 1000", KILLED, patience_s=0),
        Program(f"trap 'exit {code}' TERM; echo {READY}; while :; do sleep 0.1; done", code, patience_s=60),
    ))


class Client:
    """One of many. Its containers have one name, one after the other: a name that is not given back is noticed."""

    def __init__(self, service: Service, number: int, seed: int, network: str) -> None:
        self._service = service
        self._chance = random.Random(f"{seed}/{number}")
        self.name = f"client-{number}"
        self._network = network
        self._trail: list[str] = []
        self.ids: set[str] = set()
        self.lives = 0

    async def run(self, until: Callable[[], bool]) -> None:
        """Lead containers through their lives. Raises AssertionError where the daemon broke a promise."""
        async with self._service.open() as self._session:
            while not until():
                self._trail.clear()
                try:
                    await self._life()
                except (AssertionError, TimeoutError) as error:
                    trail = "\n  ".join(self._trail)
                    raise AssertionError(f"{self.name}: {error!r}, after\n  {trail}") from error
                self.lives += 1

    async def _life(self) -> None:
        program = choose(self._chance)
        removes_itself = self._chance.random() < 0.2
        container = await self._create(program, removes_itself)
        self.ids.add(container)
        answered = await self._start(container)
        may_be_gone = removes_itself and not answered  # a start that is cut off ends the container
        if not program.ends_itself and not may_be_gone and self._chance.random() < 0.6:
            await self._exec(container)
        if removes_itself:
            await self._until_gone(container, program)
            return
        await self._end(container, program, runs=1)
        if self._chance.random() < 0.2:
            await self._start(container)
            await self._end(container, program, runs=2)
        await self._remove(container)

    # --- its steps: each is repeated until it is answered ---

    async def _create(self, program: Program, removes_itself: bool) -> str:
        body = {"Image": "busybox", "Cmd": program.command, "HostConfig": {
            "AutoRemove": removes_itself, "NetworkMode": self._chance.choice(("bridge", self._network, "none"))}}
        if self._chance.random() < 0.3:
            body["Volumes"] = {"/etc": {}}  # filled with what the image has there
        if self._chance.random() < 0.3 and body["HostConfig"]["NetworkMode"] != "none":
            body["ExposedPorts"] = {"80/tcp": {}}
            body["HostConfig"]["PublishAllPorts"] = True
        if self._chance.random() < 0.3:
            body["HostConfig"]["Memory"] = 64 << 20
        if not removes_itself and not program.ends_itself and self._chance.random() < 0.3:
            body["HostConfig"]["RestartPolicy"] = {"Name": "unless-stopped"}
        path = f"/containers/create?name={self.name}"
        try:
            status, answer = await self._ask("POST", path, body)
        except Lost:
            status, answer = await self._sure("POST", path, body)
            if status == HTTPStatus.CONFLICT:  # it had been made
                seen = await self._inspect(self.name)
                assert seen is not None, "a name is taken that no container has"
                assert seen["State"]["Status"] == "created", seen["State"]
                return str(seen["Id"])
        assert status == HTTPStatus.CREATED, answer
        return str(answer["Id"])

    async def _start(self, container: str) -> bool:
        """Whether it was answered: where not, it may run, have ended, or have removed itself, and is started again."""
        path = f"/containers/{container}/start"
        try:
            status, answer = await self._ask("POST", path)
            assert status == HTTPStatus.NO_CONTENT, answer
            return True
        except Lost:
            status, answer = await self._sure("POST", path)
            assert status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED, HTTPStatus.NOT_FOUND), answer
            return False

    async def _exec(self, container: str) -> None:
        """One whose daemon dies is lost with it; the container is not."""
        code = self._chance.randrange(100)
        deaths = self._service.deaths
        try:
            status, made = await self._ask("POST", f"/containers/{container}/exec", {
                "Cmd": ["sh", "-c", f"sleep {self._chance.choice((0, 0, 0.2))}; echo said; exit {code}"],
                "AttachStdout": True})
            if status == HTTPStatus.CONFLICT and "is restarting" in made["message"]:
                return  # its start was cut off, and its policy starts it again
            assert status == HTTPStatus.CREATED, made
            status, said = await self._ask("POST", f"/exec/{made['Id']}/start", {"Detach": False})
            assert status == HTTPStatus.OK, said
            assert said.endswith("said\n"), repr(said)
            status, seen = await self._ask("GET", f"/exec/{made['Id']}/json")
            assert (status, seen.get("Running"), seen.get("ExitCode")) == (HTTPStatus.OK, False, code), seen
        except Lost:
            return
        except AssertionError:
            if self._service.deaths == deaths:
                raise

    async def _end(self, container: str, program: Program, runs: int) -> None:
        """Wait for its end or bring it about; then its code is the program's."""
        if program.ends_itself:
            status, answer = await self._sure("POST", f"/containers/{container}/wait")
            assert (status, answer.get("StatusCode")) == (HTTPStatus.OK, program.code), answer
        else:
            seen = await self._inspect(container)
            assert seen is not None and seen["State"]["Running"], seen and seen["State"]
            await self._until_ready(container, runs)
            status, answer = await self._sure("POST", f"/containers/{container}/stop?t={program.patience_s}")
            assert status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED), answer
        seen = await self._inspect(container)
        assert seen is not None, "it is gone, and nobody removed it"
        state = seen["State"]
        assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", program.code, 0), state

    async def _until_ready(self, container: str, runs: int) -> None:
        end = time.monotonic() + ANSWER_S
        while True:
            status, said = await self._sure("GET", f"/containers/{container}/logs?stdout=1")
            assert status == HTTPStatus.OK, said
            if said.count(READY) >= runs:
                return
            assert time.monotonic() < end, "it never said that it is ready"
            await asyncio.sleep(0.05)

    async def _until_gone(self, container: str, program: Program) -> None:
        """It removes itself when it ends."""
        if not program.ends_itself:
            status, answer = await self._sure("POST", f"/containers/{container}/kill")
            assert status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT), answer
        code = program.code if program.ends_itself else KILLED
        end = time.monotonic() + ANSWER_S
        while True:
            status, answer = await self._sure("POST", f"/containers/{container}/wait?condition=removed")
            if status == HTTPStatus.NOT_FOUND:
                return
            assert (status, answer.get("StatusCode")) == (HTTPStatus.OK, code), answer
            assert time.monotonic() < end, "it does not remove itself"

    async def _remove(self, container: str) -> None:
        force = self._chance.choice(("", "&force=1"))
        try:
            status, answer = await self._ask("DELETE", f"/containers/{container}?v=1{force}")
            assert status == HTTPStatus.NO_CONTENT, answer
        except Lost:
            status, answer = await self._sure("DELETE", f"/containers/{container}?v=1&force=1")
            assert status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_FOUND), answer
        assert await self._inspect(container) is None, "it is there after its removal"

    # --- asking ---

    async def _inspect(self, ref: str) -> dict[str, Any] | None:
        status, answer = await self._sure("GET", f"/containers/{ref}/json")
        assert status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND), answer
        return dict(answer) if status == HTTPStatus.OK else None

    async def _sure(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask until it is answered."""
        while True:
            try:
                return await self._ask(method, path, body)
            except Lost:
                continue

    async def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status, and the JSON or text of the answer. Raises Lost."""
        await asyncio.wait_for(self._service.up.wait(), ANSWER_S)
        deaths, began = self._service.deaths, time.time()
        what = f"{began:.3f} {method} {path}"
        try:
            async with self._session.request(method, f"/v1.50{path}", json=body) as response:
                raw = await response.read()
        except aiohttp.ClientConnectionError as error:
            self._trail.append(f"{what}: lost ({type(error).__name__})")
            await self._mourn(deaths)
            raise Lost from error
        except aiohttp.ClientPayloadError as error:
            self._trail.append(f"{what}: broke off")
            await self._mourn(deaths)
            raise Lost from error
        text = raw.decode(errors="replace")
        self._trail.append(f"{what}: {response.status} {text[:300]!r}")
        self._service.answers[_kind(method, path)] += 1
        is_json = response.content_type == "application/json" and text
        return response.status, json.loads(text) if is_json else text

    async def _mourn(self, deaths: int) -> None:
        """The connection broke: because the daemon was killed, and for no other reason."""
        end = time.monotonic() + ANSWER_S
        while self._service.deaths == deaths:
            assert time.monotonic() < end, "the daemon broke a connection off, and lives"
            await asyncio.sleep(0.01)


def _kind(method: str, path: str) -> str:
    """Of which kind a request is: without ids and names."""
    last = path.partition("?")[0].split("/")[-1]
    return last if method != "DELETE" else "remove"
