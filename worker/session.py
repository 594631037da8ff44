"""The connection to the leading manager: found fast, kept alive, left fast.

All known managers are tried with a small stagger; the first that begins a session
wins, and a redirect is followed at once. Both sides are watched: a manager that
says nothing for `silence_s`, not even to a ping, is left.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import aiohttp
import msgspec

from shoal.api.errors import NoLeader, ShoalError, Unavailable
from shoal.api.messages import (
    MAX_FRAME_BYTES,
    Heartbeat,
    Hello,
    Redirect,
    SessionInfo,
    ToAgent,
    ToManager,
    encode,
    to_agent,
)

log = logging.getLogger(__name__)

STAGGER_S = 0.1
ATTEMPT_TIMEOUT_S = (1.5, 12.0)
"""For one manager to begin a session: at first, and once several rounds were too short for slow hosts."""

PING_S = 0.35
CLOSE_TIMEOUT_S = 0.1
SILENCE_S = 1.0
BACKOFF_S = (0.05, 1.0)
"""Bounds of the wait after no manager began a session: full jitter below a bound that doubles."""

QUEUE_FRAMES = 1024


def attempt_s(failures: int) -> float:
    """How long a manager may take to begin a session, after so many rounds without one."""
    bound: float = min(ATTEMPT_TIMEOUT_S[0] * 1.5 ** min(failures, 16), ATTEMPT_TIMEOUT_S[1])
    return bound


class SessionLost(ShoalError):
    """The session has ended; whoever drives it begins another."""


def backoff_s(failures: int, chance: float) -> float:
    """The wait after `failures` (≥ 1) rounds, for a `chance` in [0, 1)."""
    bound: float = min(BACKOFF_S[0] * 2 ** min(failures - 1, 16), BACKOFF_S[1])
    return bound * chance


def silence_s(lease_s: float) -> float:
    """How long a manager may say nothing: a third of a node's own lease, where that is longer than `SILENCE_S`.

    Who sets long leases has slow hosts or a slow network.
    """
    return max(SILENCE_S, lease_s / 3)


class Session:
    """One open session."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, info: SessionInfo, address: str) -> None:
        self.info = info
        self.address = address
        self._socket = socket
        self._heard = asyncio.get_running_loop().time()

    async def send(self, message: ToManager) -> None:
        """Raises SessionLost."""
        try:
            await self._socket.send_bytes(encode(message))
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise SessionLost(f"the session with {self.address} broke: {error}") from error

    async def receive(self) -> ToAgent:
        """The next message. Raises SessionLost."""
        while True:
            frame = await self._socket.receive()
            self._heard = asyncio.get_running_loop().time()
            if frame.type is aiohttp.WSMsgType.BINARY:
                return decode(frame.data, self.address)
            if frame.type is aiohttp.WSMsgType.PING:
                await self._socket.pong(frame.data)
            elif frame.type is not aiohttp.WSMsgType.PONG:
                raise SessionLost(f"manager {self.address} closed the session")

    async def watch(self) -> None:
        """Ping and heartbeat until the manager falls silent. Raises SessionLost."""
        loop = asyncio.get_running_loop()
        next_beat = loop.time()
        while True:
            now, most = loop.time(), silence_s(self.info.lease_s)
            if now - self._heard > most:
                raise SessionLost(f"manager {self.address} has been silent for {most:g} s")
            try:
                async with asyncio.timeout(most):
                    await self._socket.ping()
            except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
                raise SessionLost(f"the session with {self.address} broke: {error}") from error
            if now >= next_beat:
                await self.send(Heartbeat())
                next_beat = now + self.info.lease_s / 3
            before = loop.time()
            await asyncio.sleep(PING_S)
            if (late := loop.time() - before - PING_S) > PING_S:
                self._heard += late  # this host was stalled, not the manager

    async def close(self) -> None:
        await self._socket.close()


def decode(data: bytes, address: str) -> ToAgent:
    """Raises SessionLost where it is no message."""
    try:
        message: ToAgent = to_agent.decode(data)
        return message
    except (msgspec.MsgspecError, RecursionError) as error:
        raise SessionLost(f"manager {address} sent what cannot be read: {error}") from error


class Dialer:
    """Begins sessions."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._client: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def dial(self, addresses: Iterable[str], hello: Hello, timeout_s: float = ATTEMPT_TIMEOUT_S[0]) -> Session:
        """A session with whichever manager leads. Raises Unavailable or NoLeader where there is none now."""
        pending = list(dict.fromkeys(addresses))
        tried: set[str] = set()
        running: dict[asyncio.Task[Session | Redirect], str] = {}
        failures: list[str] = []
        loop = asyncio.get_running_loop()
        session: Session | None = None
        try:
            while (pending or running) and session is None:
                if pending:
                    address = pending.pop(0)
                    if address not in tried:
                        tried.add(address)
                        running[loop.create_task(self._attempt(address, hello, timeout_s))] = address
                if not running:
                    continue
                done, _ = await asyncio.wait(
                    running, timeout=STAGGER_S if pending else None, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    address = running.pop(task)
                    error = task.exception()
                    if error is not None:
                        failures.append(f"{address}: {str(error) or type(error).__name__}")
                        continue
                    result = task.result()
                    if isinstance(result, Redirect):
                        if result.leader_addr and result.leader_addr not in tried:
                            pending.insert(0, result.leader_addr)
                        failures.append(f"{address}: does not lead")
                    elif session is None:
                        session = result
                    else:
                        await result.close()
        finally:
            for task in running:
                task.cancel()
            for late in await asyncio.gather(*running, return_exceptions=True):
                if isinstance(late, Session):
                    await late.close()
        if session is not None:
            return session
        if any(each.endswith("does not lead") for each in failures):
            raise NoLeader("no manager leads: " + "; ".join(failures))
        raise Unavailable("no manager can be reached: " + ("; ".join(failures) or "none is known"))

    async def _attempt(self, address: str, hello: Hello, timeout_s: float) -> Session | Redirect:
        if self._client is None or self._client.closed:
            self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls, limit=0))
        async with asyncio.timeout(timeout_s):
            socket = await self._client.ws_connect(
                f"https://{address}/dispatcher/v1/session", autoping=False, max_msg_size=MAX_FRAME_BYTES, compress=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S))
            try:
                await socket.send_bytes(encode(hello))
                first = await socket.receive()
                if first.type is not aiohttp.WSMsgType.BINARY:
                    raise SessionLost(f"manager {address} closed the session before it began")
                message = decode(first.data, address)
            except BaseException:
                await socket.close()
                raise
        if isinstance(message, SessionInfo):
            return Session(socket, message, address)
        await socket.close()
        if isinstance(message, Redirect):
            return message
        raise SessionLost(f"manager {address} began with a {type(message).__name__}")


async def keep(
    dialer: Dialer, addresses: Callable[[], list[str]], hello: Callable[[], Hello],
    use: Callable[[Session], Coroutine[Any, Any, None]], lost: Callable[[str], None],
) -> None:
    """Hold one session after the other until cancelled. `use` serves an open one until it raises; `lost` hears why."""
    failures = 0
    while True:
        session: Session | None = None
        try:
            session = await dialer.dial(addresses(), hello(), attempt_s(failures))
            failures = 0
            await apart(use(session))
        except* (ShoalError, aiohttp.ClientError, OSError, TimeoutError) as group:
            why = "; ".join(str(error) or type(error).__name__ for error in leaves(group))
            failures += 1
            lost(why)
            log.log(logging.WARNING if failures in (1, 10, 100) else logging.DEBUG,
                    "event=session-lost failures=%d why=%s", failures, why)
        finally:
            if session is not None:
                await asyncio.shield(session.close())
        await asyncio.sleep(backoff_s(max(failures, 1), random.random()))  # noqa: S311 - spreads load


async def apart(work: Coroutine[Any, Any, None]) -> None:
    """Do `work` in a task of its own.

    Python 3.11's TaskGroup forgets that it was cancelled where one of its tasks fails at the same moment.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    task.result()


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The single errors of a group."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
