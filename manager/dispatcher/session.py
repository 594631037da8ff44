"""One open session: what is to be sent, in order and within bounds, and what is read. It decides nothing.

Reading never waits for sending, and nobody who sends waits for an agent: one that
does not keep up is dropped, and gets everything anew when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from shoal.api.errors import ShoalError
from shoal.api.messages import (
    Assignments,
    DescriptionUpdate,
    Hello,
    Redirect,
    SessionInfo,
    ToAgent,
    ToManager,
    encode,
    to_manager,
)
from shoal.manager.dispatcher.frames import frames

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 10.0
"""For one frame; an agent that takes longer is dropped."""

CLOSE_TIMEOUT_S = 1.0
OUTBOX_FRAMES = 4096
OUTBOX_BYTES = 64 << 20
"""What may wait for one agent when another message comes; a single message is never too much."""

MAX_REQUESTS = 64
"""Questions of one agent that wait for their answer."""

MAX_DESCRIPTION_BYTES = 256 << 10
"""A node's description is stored: it has to fit into a command."""


class ProtocolError(ShoalError):
    """The agent sent what nobody may send here."""


def read(frame: WSMessage) -> ToManager | None:
    """The message in a frame; None for a ping or pong. Raises ProtocolError where it is no message."""
    if frame.type in (WSMsgType.PING, WSMsgType.PONG):
        return None
    if frame.type is not WSMsgType.BINARY:
        raise ProtocolError(f"a frame of type {frame.type.name}")
    try:
        message: ToManager = to_manager.decode(frame.data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"a frame of {len(frame.data)} bytes that cannot be read: {error}") from error
    if isinstance(message, Hello | DescriptionUpdate) and len(frame.data) > MAX_DESCRIPTION_BYTES:
        raise ProtocolError(f"a description of {len(frame.data)} bytes: at most {MAX_DESCRIPTION_BYTES} are taken")
    return message


class Session:
    """`serve` it until it is over; meanwhile `say`, `assign` and `ask`, and `end` it."""

    def __init__(self, socket: web.WebSocketResponse, node_id: str, session_id: str, now: float) -> None:
        self.node_id = node_id
        self.id = session_id
        self.heard = now  # whoever hears keeps it
        self.sequence = 0
        self.info: SessionInfo | None = None
        self._socket = socket
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._wake = asyncio.Event()
        self._why = ""  # it is to end
        self._requests: set[asyncio.Task[None]] = set()

    @property
    def ending(self) -> bool:
        return bool(self._why)

    # --- sending ---

    def say(self, message: ToAgent) -> None:
        self._put(encode(message))

    def assign(self, message: Assignments) -> int:
        """Send assignments under the next sequence; the last one that they took."""
        try:
            parts = frames(message, self.sequence + 1)
        except ShoalError as error:
            log.error("event=assignments-too-large node=%s error=%s", self.node_id, error)
            self.end(error.message)
        else:
            self.sequence += len(parts)
            self._put(*parts)
        return self.sequence

    def end(self, why: str, last: Redirect | None = None) -> None:
        """Close the session; what was not sent yet is not sent any more, but for `last`."""
        if self._why:
            return
        self._why = why
        self._outbox.clear()
        if last is not None:
            self._outbox.append(encode(last))
        self._wake.set()

    def _put(self, *parts: bytes) -> None:
        if self._why:
            return
        if len(self._outbox) >= OUTBOX_FRAMES or self._outbox_bytes >= OUTBOX_BYTES:
            self.end(f"the agent does not keep up: {len(self._outbox)} frames of {self._outbox_bytes} bytes wait")
            return
        self._outbox.extend(parts)
        self._outbox_bytes += sum(map(len, parts))
        self._wake.set()

    # --- asked by the agent ---

    @property
    def busy(self) -> bool:
        """Whether no more questions are taken."""
        return len(self._requests) >= MAX_REQUESTS

    def ask(self, work: Coroutine[Any, Any, None]) -> None:
        """Work on a question of the agent's; it ends with the session."""
        request = asyncio.get_running_loop().create_task(work)
        self._requests.add(request)
        request.add_done_callback(self._answered)

    def _answered(self, request: asyncio.Task[None]) -> None:
        self._requests.discard(request)
        if not request.cancelled() and (error := request.exception()) is not None:
            log.error("event=request-failed node=%s", self.node_id, exc_info=error)
            self.end("a request failed")

    # --- serving ---

    async def serve(self, hear: Callable[[ToManager | None], None]) -> str:
        """Read and send until the session is over; why it is. `hear` takes each message, None for other signs of life.

        It raises ProtocolError to end the session.
        """
        loop = asyncio.get_running_loop()
        both = [loop.create_task(self._read(hear)), loop.create_task(self._write())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting = [*both, *self._requests]
            for task in waiting:
                task.cancel()
            results = await asyncio.gather(*waiting, return_exceptions=True)
        for result in results[:2]:
            if isinstance(result, Exception) and not isinstance(result, ShoalError):
                log.error("event=session-failed node=%s", self.node_id, exc_info=result)
            if isinstance(result, Exception):
                self._why = self._why or str(result) or type(result).__name__
        code = WSCloseCode.GOING_AWAY if self._why else WSCloseCode.OK
        await close(self._socket, code, self._why)
        return self._why or "the agent closed it"

    async def _read(self, hear: Callable[[ToManager | None], None]) -> None:
        while True:
            frame = await self._socket.receive()
            if frame.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED):
                return
            if frame.type is WSMsgType.ERROR:
                raise ProtocolError(f"the connection broke: {frame.data}")
            hear(read(frame))
            if frame.type is WSMsgType.PING:
                await self._send(self._socket.pong(frame.data))

    async def _write(self) -> None:
        while True:
            while self._outbox:
                frame = self._outbox.popleft()
                self._outbox_bytes -= len(frame)
                await self._send(self._socket.send_bytes(frame))
            if self._why:
                return
            self._wake.clear()
            await self._wake.wait()

    async def _send(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await sending
        except TimeoutError:
            raise ProtocolError(f"the agent took nothing for {SEND_TIMEOUT_S:g} s") from None
        except (ConnectionError, RuntimeError) as error:
            raise ProtocolError(f"the connection broke: {error}") from error


async def close(socket: web.WebSocketResponse, code: int, why: str) -> None:
    """Close, without waiting long for an answer."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close(code=code, message=why.encode()[:120])
    except (TimeoutError, ConnectionError, RuntimeError):
        log.debug("event=close-failed")
