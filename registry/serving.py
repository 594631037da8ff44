"""Puts a registry together from settings, and serves it until it is asked to stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.registry.auth.access import Access, Authenticator, Open
from shoal.registry.errors import AuthRequired, RangeInvalid, RegistryError
from shoal.registry.metrics import Metrics
from shoal.registry.proxy import Upstream
from shoal.registry.server import Registry
from shoal.registry.store import Store
from shoal.registry.transfer import held_range
from shoal.registry.uploads import LARGEST_BLOB, MOST_UPLOADS, PIECE, Uploads

log = logging.getLogger("shoal.registry")
PURGE_EVERY_S = 3600.0
THREADS = 32
"""For files: a few that wait for the disk do not hold up the others."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `shoal registry serve` was told. `token_keys`: the files of those keys."""

    root: Path
    host: str = "127.0.0.1"
    port: int = 5000
    tls_cert: Path | None = None
    tls_key: Path | None = None
    htpasswd: Path | None = None
    token_realm: str = ""
    token_service: str = ""
    token_issuer: str = ""
    token_keys: tuple[Path, ...] = ()
    proxy: str = ""
    proxy_credentials: tuple[str, str] | None = None
    proxy_tag_ttl_s: float = 0.0
    deletes: bool = False
    stale_upload_s: float = 7 * 24 * 3600.0
    most_uploads: int = MOST_UPLOADS
    largest_blob_bytes: int = LARGEST_BLOB


def authenticator(settings: Settings) -> Authenticator:
    """As the settings say. Raises InvalidArgument where they contradict each other."""
    if settings.token_realm or settings.token_keys:
        if settings.htpasswd:
            raise InvalidArgument("htpasswd and tokens cannot both be used")
        if not (settings.token_realm and settings.token_service and settings.token_issuer and settings.token_keys):
            raise InvalidArgument("tokens take --token-realm, --token-service, --token-issuer, --token-key: all four")
        from shoal.registry.auth import token

        keys = [token.key(path.read_bytes()) for path in settings.token_keys]
        return token.Tokens(settings.token_realm, settings.token_service, settings.token_issuer, keys)
    if settings.htpasswd:
        from shoal.registry.auth.htpasswd import Htpasswd

        return Htpasswd(settings.htpasswd)
    return Open()


def tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise InvalidArgument("TLS takes --tls-cert and --tls-key, both")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def application(settings: Settings) -> web.Application:
    store = Store(settings.root)
    uploads = Uploads(store, settings.most_uploads, settings.largest_blob_bytes)
    allowed = authenticator(settings)
    upstream = Upstream(settings.proxy, store, uploads, settings.proxy_credentials, settings.proxy_tag_ttl_s
                        ) if settings.proxy else None
    registry = Registry(store, uploads, allowed, deletes=settings.deletes, upstream=upstream)
    metrics = Metrics(uploads)

    async def show_metrics(request: web.Request) -> web.Response:
        await allowed.allow(request.headers.get(hdrs.AUTHORIZATION), Access("registry", "metrics", ("*",)))
        return metrics.page()

    async def purging(_: web.Application) -> AsyncIterator[None]:
        task = asyncio.get_running_loop().create_task(_purge(uploads, settings.stale_upload_s))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if upstream:
            await upstream.close()

    app = web.Application(middlewares=[metrics.middleware(), answer_errors])
    app.add_routes(registry.routes())
    app.router.add_get("/metrics", show_metrics)
    app.cleanup_ctx.append(purging)
    app.on_response_prepare.append(_say_version)
    return app


async def _purge(uploads: Uploads, older_than_s: float) -> None:
    while True:
        try:
            if count := await uploads.purge(older_than_s):
                log.info("removed stale uploads count=%d", count)
        except OSError as error:
            log.error("cannot remove stale uploads error=%s", error)
        await asyncio.sleep(PURGE_EVERY_S)


async def _say_version(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one edge where errors turn into the specification's JSON."""
    try:
        return await handler(request)
    except ShoalError as error:
        code = error.code if isinstance(error, RegistryError) else "UNKNOWN"
        answer = _error(error.status, code, str(error))
        if isinstance(error, AuthRequired):
            answer.headers[hdrs.WWW_AUTHENTICATE] = error.challenge
        if isinstance(error, RangeInvalid):
            answer.headers.update({hdrs.RANGE: held_range(error.size), hdrs.LOCATION: error.location})
        return answer
    except web.HTTPNotFound:
        return _error(404, "NAME_UNKNOWN", f"no such route: {request.method} {request.path[:300]}")
    except web.HTTPMethodNotAllowed as error:
        answer = _error(405, "UNSUPPORTED", f"{request.method} is not allowed here")
        answer.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return answer
    except TimeoutError:
        return _error(408, "UNKNOWN", "the request's body did not come")
    except OSError as error:
        if error.errno == errno.EROFS:
            return _error(405, "UNSUPPORTED", "the store lies on a read-only file system")
        log.error("request failed method=%s path=%s error=%s", request.method, request.path, error)
        return _error(503 if error.errno else 500, "UNAVAILABLE", f"the store failed: {error.strerror}")


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message, "detail": None}]}, status=status)


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "registry"))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(application(settings), access_log=None, read_bufsize=PIECE)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, ssl_context=tls(settings), shutdown_timeout=10)
        try:
            await site.start()
        except OSError as error:
            raise InvalidArgument(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
        for address in runner.addresses:
            print(f"serving {settings.root} on {address[0]}:{address[1]}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
