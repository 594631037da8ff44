"""What goes on while a client listens: attach, logs, wait, stats."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from shoal.api.errors import InvalidArgument, NotFound
from shoal.daemon.http.containers.detachkeys import DetachKeys, parse
from shoal.daemon.http.containers.stats import stats_json
from shoal.daemon.http.containers.stdio import carry, content_type, frame
from shoal.daemon.http.hijack import HijackedResponse, hijack
from shoal.daemon.http.times import moment_ns
from shoal.daemon.http.wire import flag, reply
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.nouns import LogQuery, Usage, WaitResult

CONDITIONS = ("not-running", "next-exit", "removed")
STATS_PERIOD_S = 1.0
HEAD_START_S = 0.005
"""Of the answer's head before old output: docker-py loses what it receives together with the head."""


class StreamRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_to(self, app: web.Application) -> None:
        router = app.router
        router.add_post("/containers/{id}/attach", self.attach)
        router.add_post("/containers/{id}/wait", self.wait)
        router.add_get("/containers/{id}/logs", self.logs, allow_head=False)
        router.add_get("/containers/{id}/stats", self.stats, allow_head=False)

    async def attach(self, request: web.Request) -> web.StreamResponse:
        wants_stdin, stream, with_logs = flag(request, "stdin"), flag(request, "stream"), flag(request, "logs")
        codes = parse(request.query.get("detachKeys", ""))
        config = self._engine.get(request.match_info["id"]).config
        attachment = await self._engine.attach(
            request.match_info["id"], stdin=wants_stdin and stream, stdout=flag(request, "stdout"),
            stderr=flag(request, "stderr"), logs=with_logs, stream=stream)
        try:
            connection = hijack(request, content_type(request, tty=attachment.tty))
            if with_logs:
                await asyncio.sleep(HEAD_START_S)
        except BaseException:
            await attachment.detach()
            raise
        await carry(connection, attachment, stdin=wants_stdin and stream and config.open_stdin,
                    closes_stdin=config.stdin_once and not attachment.tty,
                    keys=DetachKeys(codes) if attachment.tty else None)
        return HijackedResponse()

    async def wait(self, request: web.Request) -> web.StreamResponse:
        """The head of the answer goes out at once: it tells that nothing from now on is missed."""
        condition = request.query.get("condition") or "not-running"
        if condition not in CONDITIONS:
            raise InvalidArgument(f"invalid condition: {condition!r}")
        exit_of = self._engine.wait(request.match_info["id"], condition)
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            result = await exit_of
        finally:
            exit_of.cancel()
        await response.write(msgspec.json.encode(_wait_json(result)) + b"\n")
        return response

    async def logs(self, request: web.Request) -> web.StreamResponse:
        query = _log_query(request)
        container = self._engine.get(request.match_info["id"])
        batches = self._engine.log_batches(container.id, query)
        raw = container.config.tty
        response = web.StreamResponse(headers={"Content-Type": content_type(request, tty=raw)})
        await response.prepare(request)
        async for batch in batches:
            await response.write(b"".join(data if raw else frame(stream, data) for stream, data in batch))
        return response

    async def stats(self, request: web.Request) -> web.StreamResponse:
        container = self._engine.get(request.match_info["id"])
        stream = flag(request, "stream", default=True)
        before, now = Usage(), await self._engine.usage(container.id)
        if not stream:
            if not flag(request, "one-shot") and container.state.running:
                await asyncio.sleep(STATS_PERIOD_S)
                before, now = now, await self._engine.usage(container.id)
            return reply(stats_json(container, now, before))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with suppress(NotFound):
            while True:
                await response.write(msgspec.json.encode(stats_json(container, now, before)) + b"\n")
                await asyncio.sleep(STATS_PERIOD_S)
                container = self._engine.get(container.id)
                before, now = now, await self._engine.usage(container.id)
        return response


def _wait_json(result: WaitResult) -> dict[str, Any]:
    shown: dict[str, Any] = {"StatusCode": result.exit_code}
    return {**shown, "Error": {"Message": result.error}} if result.error else shown


def _log_query(request: web.Request) -> LogQuery:
    query = request.query
    stdout, stderr = flag(request, "stdout"), flag(request, "stderr")
    if not (stdout or stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    return LogQuery(
        stdout=stdout, stderr=stderr, follow=flag(request, "follow"), timestamps=flag(request, "timestamps"),
        tail=_tail(query.get("tail", "")),
        since_ns=moment_ns(query.get("since", ""), "since"),
        until_ns=moment_ns(query.get("until", ""), "until"),
    )


def _tail(text: str) -> int:
    """As Docker reads it: what is no number is all of them."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
