"""The one edge where errors become a status and `{"message": …}`, and the wording of Docker's RPC errors.

What Docker's managers refuse reaches its clients as "rpc error: code = X desc = …",
with the status that belongs to X; scripts look for these texts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from shoal.api.errors import Conflict, InvalidArgument, NotFound, OutOfSequence, ShoalError

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def invalid(message: str) -> InvalidArgument:
    """A value of the request is not allowed."""
    return InvalidArgument(f"rpc error: code = InvalidArgument desc = {message}")


def precondition(message: str) -> InvalidArgument:
    """The object's state forbids it (Docker answers 400)."""
    return InvalidArgument(f"rpc error: code = FailedPrecondition desc = {message}")


def name_taken(kind: str, name: str) -> Conflict:
    return Conflict(
        f"rpc error: code = AlreadyExists desc = name conflicts with an existing object: {kind} {name} already exists"
    )


def not_found(kind: str, reference: str) -> NotFound:
    return NotFound(f"{kind} {reference} not found")


def out_of_sequence() -> OutOfSequence:
    """The client's version of an object is not the newest."""
    return OutOfSequence("rpc error: code = Unknown desc = update out of sequence")


def error_response(status: int, message: str) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode({"message": message}), content_type="application/json"
    )


@web.middleware
async def api_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Our errors by their status, aiohttp's by theirs; anything else is 500 and logged."""
    try:
        return await handler(request)
    except ShoalError as error:
        return _answer(request, error.status, error.message)
    except web.HTTPException as error:
        if error.status in (404, 405):
            return _answer(request, 404, "page not found")
        return _answer(request, error.status, error.text or error.reason)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception as error:
        log.exception("method=%s path=%s failed", request.method, request.path)
        return _answer(request, 500, str(error) or type(error).__name__)


def _answer(request: web.Request, status: int, message: str) -> web.StreamResponse:
    if request.writer.output_size > 0:  # too late for a status: the client sees the stream break off
        raise ConnectionResetError(message)
    return error_response(status, message)
