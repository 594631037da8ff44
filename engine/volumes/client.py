"""Calls of one plugin: Docker's protocol v1, JSON over HTTP on a socket or over TCP.

Every call ends within its deadline. A plugin that is not there (yet, or again) is tried
with pauses of 1, 2, 4, … seconds, as Docker does; one that was reached is asked once. One
that let a deadline pass is silent until it has answered again, or for a while: what is asked
only by the way (`brief`) then has a short deadline, so that it holds up nobody for long.

Source: moby, pkg/plugins/client.go.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import TYPE_CHECKING, Any

import msgspec

from shoal.api.errors import ShoalError
from shoal.engine.volumes.discovery import TLS, Endpoint

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

MIME = "application/vnd.docker.plugins.v1.2+json"
MAX_BODY_BYTES = 4 << 20
MAX_ERROR_LENGTH = 2000
RETRY_S = 30.0
FIRST_PAUSE_S = 1.0
SILENT_FOR_S = 30.0
SILENT_TIMEOUT_S = 3.0


class PluginUnreachable(ShoalError):
    """It does not answer: it is not there, it hangs, or it died meanwhile."""


class PluginRefused(ShoalError):
    """It answered that it will not."""


class PluginClient:
    """See the module."""

    def __init__(self, name: str, endpoint: Endpoint, *, first_pause_s: float = FIRST_PAUSE_S,
                 silent_timeout_s: float = SILENT_TIMEOUT_S) -> None:
        self.name = name
        self.endpoint = endpoint
        self._first_pause_s = first_pause_s
        self._silent_timeout_s = silent_timeout_s
        self._silent_until = 0.0

    async def call(self, method: str, body: dict[str, Any] | None = None, *, timeout_s: float,
                   retry: bool = True, brief: bool = False) -> dict[str, Any]:
        """The answer's object. Raises PluginUnreachable, PluginRefused."""
        if brief and time.monotonic() < self._silent_until:
            timeout_s, retry = min(timeout_s, self._silent_timeout_s), False
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._until_reached(method, msgspec.json.encode(body or {}), timeout_s if retry else 0)
        except TimeoutError:
            self._silent_until = time.monotonic() + SILENT_FOR_S
            raise PluginUnreachable(f"{method}: plugin {self.name} did not answer in {timeout_s:g} s") from None
        self._silent_until = 0.0
        if error := answer.get("Err"):
            raise PluginRefused(str(error)[:MAX_ERROR_LENGTH])
        return answer

    async def _until_reached(self, method: str, body: bytes, within_s: float) -> dict[str, Any]:
        import aiohttp

        began, pause_s = time.monotonic(), self._first_pause_s
        while True:
            try:
                return await self._once(method, body)
            except (aiohttp.ClientConnectionError, OSError) as error:
                waited_s = time.monotonic() - began
                reached = not isinstance(error, aiohttp.ClientConnectorError | FileNotFoundError)
                if reached or waited_s + pause_s >= min(within_s, RETRY_S):
                    how = "broke off before it had answered" if reached else "cannot be reached"
                    raise PluginUnreachable(f"{method}: plugin {self.name} {how}: {error or type(error).__name__}"
                                            ) from error
                log.warning("event=plugin-not-there plugin=%s method=%s retry_s=%g error=%s",
                            self.name, method, pause_s, error)
            except aiohttp.ClientError as error:
                raise PluginUnreachable(f"{method}: plugin {self.name} does not speak HTTP: {error}") from error
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _once(self, method: str, body: bytes) -> dict[str, Any]:
        import aiohttp

        host = self.endpoint.host or "plugin.moby.localhost"
        url = f"{'https' if self.endpoint.tls else 'http'}://{host}/{method}"
        headers = {"Accept": MIME, "Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession(connector=_connector(self.endpoint), cookie_jar=aiohttp.DummyCookieJar(),
                                  auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False, skip_auto_headers=["Accept-Encoding"]
                         ) as response,
        ):
            return self._answer(method, response.status, await _body(response))

    def _answer(self, method: str, status: int, content: bytes | None) -> dict[str, Any]:
        if content is None:
            raise PluginRefused(f"{method}: plugin {self.name} answered more than {MAX_BODY_BYTES} bytes")
        try:
            answer = msgspec.json.decode(content or b"{}")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            answer = None
        if status != 200:
            said = answer.get("Err") if isinstance(answer, dict) else None
            said = said or content.decode(errors="replace").strip() or f"status {status}"
            raise PluginRefused(f"{method}: {str(said)[:MAX_ERROR_LENGTH]}")
        if not isinstance(answer, dict):
            raise PluginRefused(f"{method}: plugin {self.name} did not answer with a JSON object")
        return answer


def _connector(endpoint: Endpoint) -> aiohttp.BaseConnector:
    """One connection for one call: a plugin that was started anew is found again."""
    import aiohttp

    if endpoint.path:
        return aiohttp.UnixConnector(endpoint.path, force_close=True)
    return aiohttp.TCPConnector(force_close=True, ssl=tls_context(endpoint.tls) if endpoint.tls else True)


def tls_context(tls: TLS) -> ssl.SSLContext:
    """Raises OSError for a file that cannot be read or is none of the kind."""
    context = ssl.create_default_context(cafile=tls.ca_file or None)
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file or None)
    return context


async def _body(response: aiohttp.ClientResponse) -> bytes | None:
    """None for one that is too long."""
    content = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            return None
    return bytes(content)
