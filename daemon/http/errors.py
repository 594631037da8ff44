"""Every error of a handler becomes a status and `{"message": …}` here, and only here."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from shoal.api.errors import ShoalError, in_words
from shoal.daemon.http.versions import API_VERSION, MIN_API_VERSION, check_version

log = logging.getLogger("shoal.http")

_HEADERS = {
    "Api-Version": API_VERSION,
    "Min-Api-Version": MIN_API_VERSION,
    "Ostype": "linux",
    "Docker-Experimental": "true",  # else the docker command refuses `build --squash` by itself
    "Server": "Shoal (linux)",
}

SCARCE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What a host has not got (any more): no fault of ours."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def error_response(status: int, message: str) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode({"message": message}), content_type="application/json"
    )


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one edge: our errors by their status, aiohttp's by theirs, anything else is 500 and logged."""
    try:
        check_version(request)
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
        if isinstance(error, OSError) and error.errno in SCARCE:
            log.error("method=%s path=%s failed: %s", request.method, request.path, error)
            return _answer(request, 500, in_words(error))
        log.exception("method=%s path=%s failed", request.method, request.path)
        return _answer(request, 500, str(error) or type(error).__name__)


def _answer(request: web.Request, status: int, message: str) -> web.StreamResponse:
    if request.writer.output_size > 0:  # too late for a status: the client sees the stream break off
        log.warning("method=%s path=%s broke off: %s", request.method, request.path, message)
        raise ConnectionResetError(message)
    log.debug("method=%s path=%s status=%d message=%r", request.method, request.path, status, message)
    return error_response(status, message)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """on_response_prepare: the headers that every answer carries."""
    response.headers.update(_HEADERS)
