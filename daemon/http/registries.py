"""What is asked of registries without moving an image: /auth, /distribution/…/json, /images/search."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from msgspec import field

from shoal.api import reference
from shoal.api.errors import InvalidArgument, ShoalError
from shoal.daemon.http.hooks import Hooks
from shoal.daemon.http.wire import Wire, body, filters, number, reply, truth
from shoal.engine.images.distribution.challenges import Credentials, parse_credentials
from shoal.engine.images.distribution.endpoints import RegistryRules
from shoal.engine.images.distribution.login import log_in
from shoal.engine.images.distribution.lookup import Described, Found, describe, search

SEARCH_FILTERS = frozenset({"is-automated", "is-official", "stars"})
DEFAULT_RESULTS = 25


class Auth(Wire, frozen=True):
    username: str = field(name="username", default="")
    password: str = field(name="password", default="")
    serveraddress: str = field(name="serveraddress", default="")
    identity_token: str = field(name="identitytoken", default="")


class RegistryRoutes:
    def __init__(self, rules: RegistryRules, hooks: Hooks) -> None:
        self._rules = rules
        self._hooks = hooks

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/auth", self.auth)
        app.router.add_get("/images/search", self.search, allow_head=False)
        app.router.add_get("/distribution/{name:.+}/json", self.describe, allow_head=False)

    async def auth(self, request: web.Request) -> web.Response:
        wanted = await body(request, Auth)
        credentials = Credentials(wanted.username, wanted.password, wanted.identity_token)
        token = await log_in(wanted.serveraddress, credentials, self._rules)
        return reply({"Status": "Login Succeeded", "IdentityToken": token})

    async def describe(self, request: web.Request) -> web.Response:
        """What `docker service create` asks before it pins an image."""
        wanted = reference.parse(request.match_info["name"])
        found = await self._described(wanted, parse_credentials(request.headers.get("X-Registry-Auth", "")))
        return reply({
            "Descriptor": {"mediaType": found.descriptor.media_type, "digest": found.descriptor.digest,
                           "size": found.descriptor.size},
            "Platforms": [{key: value for key, value in msgspec.to_builtins(one).items() if value}
                          for one in found.platforms]})

    async def _described(self, wanted: reference.Reference, credentials: Credentials) -> Described:
        """In a swarm, an image that was made here is what its name means; what its registry does not say, hosts may."""
        images = self._hooks.images
        if images is not None and (found := await images.made_here(wanted)) is not None:
            return found
        try:
            return await describe(wanted, self._rules, credentials)
        except ShoalError:
            found = await images.found(wanted) if images is not None else None
            if found is None:
                raise
            return found

    async def search(self, request: web.Request) -> web.Response:
        wanted = filters(request, SEARCH_FILTERS)
        limit = number(request, "limit", DEFAULT_RESULTS) or DEFAULT_RESULTS
        credentials = parse_credentials(request.headers.get("X-Registry-Auth", ""))
        found = await search(request.query.get("term", ""), limit, self._rules, credentials)
        return reply([msgspec.to_builtins(one) for one in found if matches(one, wanted)])


def matches(found: Found, wanted: dict[str, Any]) -> bool:
    """Pure. Raises InvalidArgument for a filter's value that means nothing."""
    stars = wanted.get("stars", [])
    if not all(value.isascii() and value.isdigit() and len(value) < 10 for value in stars):
        raise InvalidArgument(f"invalid filter 'stars={stars}'")
    return (all(found.star_count >= int(value) for value in stars)
            and all(found.is_official == truth(value, "is-official") for value in wanted.get("is-official", []))
            and all(found.is_automated == truth(value, "is-automated") for value in wanted.get("is-automated", [])))
