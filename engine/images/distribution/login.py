"""Whether a registry takes a name and a password: what POST /auth asks. Nothing is kept; clients keep credentials."""

from __future__ import annotations

import asyncio
from pathlib import Path

from yarl import URL

from shoal.api.errors import InvalidArgument, Unauthorized
from shoal.engine.images.distribution.challenges import Credentials
from shoal.engine.images.distribution.endpoints import DOCKER_HUB, HUB_NAMES, NO_RULES, RegistryRules
from shoal.engine.images.distribution.registry import CERTIFICATES, FAILURES, Refused, Registry, Unreachable

TIMEOUT_S = 15.0


async def log_in(server: str, credentials: Credentials, rules: RegistryRules = NO_RULES, *,
                 certificates: Path = CERTIFICATES) -> str:
    """The registry's identity token, "" where it gives none.

    Raises Unauthorized where it refuses or cannot be reached, InvalidArgument for no name of a registry.
    """
    domain = registry_name(server)
    try:
        async with (asyncio.timeout(TIMEOUT_S),
                    Registry(domain, rules, credentials, certificates=certificates) as registry):
            return await registry.log_in()
    except (*FAILURES, Refused, Unreachable, ValueError) as error:
        raise Unauthorized(f"login attempt to {domain} failed: {error or 'no answer in time'}") from error


def registry_name(server: str) -> str:
    """HOST[:PORT] of what a client calls a registry, perhaps with scheme and path. Raises InvalidArgument. Pure."""
    name = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if name in HUB_NAMES:
        return DOCKER_HUB
    try:
        url = URL(f"https://{name}/")
        host = url.host
    except ValueError as error:
        raise InvalidArgument(f"invalid registry name {server!r}: {error}") from error
    if not host or " " in host or url.user or url.raw_authority != name.lower():
        raise InvalidArgument(f"invalid registry name {server!r}: write HOST or HOST:PORT")
    return name
