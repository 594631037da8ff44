"""Whether a registry takes a name and a password: what POST /auth asks. Nothing is kept; clients keep credentials.

Source: the distribution specification's token authentication (GET /v2/, then the realm that its 401 names).
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from shoal.api.errors import InvalidArgument, Unauthorized

DOCKER_HUB = "registry-1.docker.io"
HUB_NAMES = frozenset({"", "docker.io", "index.docker.io", "registry-1.docker.io"})
TIMEOUT_S = 15.0
MAX_TOKEN_BYTES = 1 << 20
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


async def log_in(server: str, username: str, password: str) -> str:
    """The registry's identity token, "" where it gives none.

    Raises Unauthorized where it refuses or cannot be reached, InvalidArgument for no name of a registry.
    """
    base = _base(server)
    basic = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode() if username else ""
    try:
        async with asyncio.timeout(TIMEOUT_S), aiohttp.ClientSession(auto_decompress=False) as session:
            return await _ask(session, base, username, basic)
    except (TimeoutError, aiohttp.ClientError, msgspec.MsgspecError, OSError, ValueError) as error:
        raise Unauthorized(f"login attempt to {base} failed: {error or 'no answer in time'}") from error


async def _ask(session: aiohttp.ClientSession, base: URL, username: str, basic: str) -> str:
    async with session.get(base) as answer:
        if answer.status == 200:
            return ""  # it takes anybody
        challenge = answer.headers.get("WWW-Authenticate", "")
    if answer.status != 401:
        raise Unauthorized(f"login attempt to {base} failed with status: {answer.status} {answer.reason}")
    kind, _, rest = challenge.partition(" ")
    if kind.lower() == "bearer":
        token = await _token(session, dict(_PARAMETER.findall(rest)), username, basic)
        await _expect_ok(session, base, f"Bearer {token.get('token') or token.get('access_token') or ''}")
        return str(token.get("refresh_token") or "")
    await _expect_ok(session, base, basic)
    return ""


async def _token(
    session: aiohttp.ClientSession, challenge: dict[str, str], username: str, basic: str
) -> dict[str, Any]:
    realm = URL(challenge.get("realm", ""))
    if realm.scheme not in ("http", "https") or not realm.host:
        raise Unauthorized(f"the registry names no usable realm: {challenge.get('realm', '')!r}")
    query = {"service": challenge.get("service", ""), "client_id": "docker", "offline_token": "true"}
    if username:
        query["account"] = username
    async with session.get(realm.update_query(query), headers=_authorization(basic)) as answer:
        if answer.status != 200:
            raise Unauthorized(f"Get {str(realm)!r}: unauthorized: incorrect username or password")
        raw = await answer.content.read(MAX_TOKEN_BYTES)
    return msgspec.json.decode(raw, type=dict[str, Any])


async def _expect_ok(session: aiohttp.ClientSession, base: URL, credentials: str) -> None:
    async with session.get(base, headers=_authorization(credentials)) as answer:
        if answer.status != 200:
            raise Unauthorized(f"Get {str(base)!r}: unauthorized: incorrect username or password")


def _authorization(credentials: str) -> dict[str, str]:
    return {"Authorization": credentials} if credentials else {}


def _base(server: str) -> URL:
    """The registry's /v2/. Plain HTTP for loopback alone, as Docker has it."""
    name = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if name in HUB_NAMES:
        name = DOCKER_HUB
    try:
        url = URL(f"https://{name}/v2/")
        host = url.host
    except ValueError as error:
        raise InvalidArgument(f"invalid registry name {server!r}: {error}") from error
    if not host or url.user or str(url.authority) != name:
        raise InvalidArgument(f"invalid registry name {server!r}: write HOST or HOST:PORT")
    return url.with_scheme("http") if _is_loopback(host) else url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
