"""Clients that ask for BuildKit: whichever way they ask, they are told in words what to use instead.

A session (POST /session) is taken, and ended: were it refused, the docker command would say only that, and not what
POST /build answers; were it kept, the command would wait for its end. Of calls to BuildKit itself (POST /grpc, from
buildx) each one is refused with gRPC's UNIMPLEMENTED and the same words; of HTTP/2 that takes no more than is here.

Sources: docker/cli 20.10, command/image/build_buildkit.go; RFC 9113; RFC 7541; gRPC over HTTP2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web

from shoal.daemon.http.hijack import Hijacked, HijackedResponse, hijack

WORDS = ("this host builds with the classic builder: set DOCKER_BUILDKIT=0 for `docker build`, or use "
         "`shoal build`; heredocs, RUN --mount and COPY --chmod and --link work there, too")
PROTOCOL = "h2c"
LONGEST_S = 60.0
"""A client has had its answer long before."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME_BYTES = 1 << 14
_MAX_FRAMES = 10_000
_HEADER_BYTES = 9
_HEADERS, _SETTINGS, _PING = 1, 4, 6
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_STATUS_200 = b"\x88"  # of HPACK's static table
_UNIMPLEMENTED = "12"


class BuildKitRoutes:
    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/session", self.session)
        app.router.add_post("/grpc", self.grpc)

    async def session(self, request: web.Request) -> web.StreamResponse:
        return await _taken_over(request, _ended)

    async def grpc(self, request: web.Request) -> web.StreamResponse:
        return await _taken_over(request, refuse_calls)


async def _taken_over(request: web.Request, work: Callable[[Hijacked], Awaitable[None]]) -> HijackedResponse:
    connection = hijack(request, "application/grpc", protocol=PROTOCOL)
    with suppress(TimeoutError, ConnectionResetError):
        async with asyncio.timeout(LONGEST_S):
            await work(connection)
    return HijackedResponse()


async def _ended(connection: Hijacked) -> None:
    """The client serves here, and says so first: nothing of its is on the way any more when the connection closes."""
    await connection.read()


async def refuse_calls(connection: Hijacked) -> None:
    """Until the client goes, or speaks something else."""
    stream = _Bytes(connection)
    if await stream.take(len(PREFACE)) != PREFACE:
        return
    await connection.write(frame(_SETTINGS, 0, 0))
    for _ in range(_MAX_FRAMES):
        head = await stream.take(_HEADER_BYTES)
        length, kind, flags = int.from_bytes(head[:3]), head[3:4], head[4:5]
        if not kind or length > MAX_FRAME_BYTES:
            return
        payload = await stream.take(length)
        if len(payload) < length:
            return
        if answer := answered(kind[0], flags[0], int.from_bytes(head[5:]) & 0x7FFFFFFF, payload):
            await connection.write(answer)


def answered(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """What a frame is answered with. Pure."""
    if kind in (_SETTINGS, _PING) and not flags & _ACK:
        return frame(kind, _ACK, 0, payload if kind == _PING else b"")
    if kind == _HEADERS:
        return frame(_HEADERS, _END_STREAM | _END_HEADERS, stream_id, _STATUS_200 + b"".join(
            field(name, value) for name, value in (
                ("content-type", "application/grpc"), ("grpc-status", _UNIMPLEMENTED), ("grpc-message", WORDS))))
    return b""


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream_id.to_bytes(4) + payload


def field(name: str, value: str) -> bytes:
    """A header that no table remembers, without Huffman's code."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    content = text.encode("ascii")
    if len(content) < 127:
        return bytes((len(content),)) + content
    head, rest = bytearray((127,)), len(content) - 127
    while rest >= 128:
        head.append(rest % 128 + 128)
        rest //= 128
    return bytes((*head, rest)) + content


class _Bytes:
    """A connection, by so many bytes at a time."""

    def __init__(self, connection: Hijacked) -> None:
        self._connection = connection
        self._held = b""

    async def take(self, count: int) -> bytes:
        """Fewer of them at the end."""
        while len(self._held) < count and (more := await self._connection.read()):
            self._held += more
        taken, self._held = self._held[:count], self._held[count:]
        return taken
