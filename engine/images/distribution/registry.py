"""A registry, spoken to: which of its addresses answers, authentication, errors. The only maker of HTTP sessions here.

One `Registry` serves one operation (a pull, a push) with one set of credentials; what it
learns, an address and tokens, goes with it.
Source: the OCI distribution specification; distribution's token authentication.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from yarl import URL

from shoal.api.errors import ShoalError, Unauthorized
from shoal.engine.images.distribution.challenges import ANONYMOUS, Challenge, Credentials, parse_challenges
from shoal.engine.images.distribution.endpoints import (
    Endpoint,
    RegistryRules,
    endpoints,
    is_insecure,
    names_to_look_up,
)
from shoal.engine.images.distribution.reasons import reason

CERTIFICATES = Path("/etc/docker/certs.d")
MAX_ANSWER_BYTES = 8 << 20
_CONNECT_S = 15.0
_IDLE_S = 60.0
_PING_S = 30.0
_TOKEN_S = 30.0
_LOOKUP_S = 10.0
_WRONG = "incorrect username or password"

FAILURES = (aiohttp.ClientError, TimeoutError, OSError)
"""What a network does to a request."""


class Unreachable(ShoalError):
    """No address of the registry answers as one."""


class Refused(ShoalError):
    """The registry's answer was an error. `code`: as the specification names it, "" where it named none."""

    def __init__(self, http_status: int, code: str, message: str) -> None:
        super().__init__(f"{code.lower().replace('_', ' ')}: {message}" if code else message)
        self.http_status = http_status
        self.code = code


def first_of(errors: BaseExceptionGroup[BaseException]) -> ShoalError:
    """What one of several tasks failed of, as an error of ours."""
    error = errors.exceptions[0]
    return error if isinstance(error, ShoalError) else ShoalError(str(error) or type(error).__name__)


class Registry:
    """Use as a context. Raises Unreachable on entry."""

    def __init__(self, domain: str, rules: RegistryRules, credentials: Credentials = ANONYMOUS, *,
                 certificates: Path = CERTIFICATES, mirrors: bool = False, passed: int = 0) -> None:
        """`mirrors`: a mirror will do, for reading. `passed`: so many addresses were tried already."""
        self.domain = domain
        self.unreached = 0  # addresses before the one that answered
        self._mirrors, self._passed = mirrors, passed
        self._rules = rules
        self._credentials = credentials
        self._certificates = certificates
        self._tokens: dict[str, str] = {}
        self.sent_credentials = False  # whether it asked for some, and was given them
        self._challenge: Challenge | None = None
        self._tls: ssl.SSLContext | bool = True
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        known = await _looked_up(names_to_look_up(self.domain, self._rules, mirrors=self._mirrors))
        addresses = endpoints(self.domain, self._rules, mirrors=self._mirrors, known=known)[self._passed:]
        self._session = aiohttp.ClientSession(
            auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=not is_insecure(self.domain, self._rules, known),  # a proxy of the environment
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_IDLE_S))
        try:
            await self._choose(addresses)
        except BaseException:
            await self._session.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self._session.close()

    async def _choose(self, addresses: list[Endpoint]) -> None:
        """The first address that answers; what it wants of its users is noted."""
        problems: list[str] = []
        for address in addresses:
            self._tls = await asyncio.to_thread(_tls, address, self._certificates)
            try:
                async with asyncio.timeout(_PING_S), self._session.get(address.url + "/v2/", ssl=self._tls) as answer:
                    if answer.status in (200, 401, 403):
                        self.address, self.unreached = address, len(problems)
                        self._note(answer)
                        return
                    problems.append(f"received unexpected HTTP status: {answer.status} {answer.reason}")
            except FAILURES as error:
                problems.append(f'Get "{address.url}/v2/": {reason(error)}')
        raise Unreachable(problems[-1])

    def _note(self, answer: aiohttp.ClientResponse) -> None:
        offered = parse_challenges(answer.headers.getall("WWW-Authenticate", []))
        self._challenge = offered[0] if answer.status == 401 and offered else None

    @asynccontextmanager
    async def request(self, method: str, path: str, *, scope: str, headers: Mapping[str, str] | None = None,
                      data: Any = None, expect: tuple[int, ...] = (200,), base: URL | None = None
                      ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer of one of the statuses `expect`. `path` is below the registry's /v2/, or relative to `base`.

        `data` is bytes or makes a fresh body at each call. Raises Refused, Unauthorized, and one of FAILURES.
        """
        url = (base or URL(self.address.url + "/v2/")).join(URL(path, encoded=True))
        ours = url.host == URL(self.address.url).host  # credentials go nowhere else
        for attempt in (1, 2):
            sent = {**(headers or {}), **(await self._authorization(scope) if ours else {})}
            body = data() if callable(data) else data
            async with self._session.request(method, url, headers=sent, data=body, ssl=self._tls,
                                             allow_redirects=method in ("GET", "HEAD")) as answer:
                if answer.status == 401 and attempt == 1 and ours:
                    self._note(answer)
                    self._tokens.pop(scope, None)
                    if self._challenge is not None:
                        continue
                if answer.status not in expect:
                    raise await _refusal(answer)
                yield answer
                return

    async def read(self, method: str, path: str, *, scope: str, headers: Mapping[str, str] | None = None,
                   expect: tuple[int, ...] = (200,), base: URL | None = None) -> tuple[aiohttp.ClientResponse, bytes]:
        """A small answer, whole."""
        async with self.request(method, path, scope=scope, headers=headers, expect=expect, base=base) as answer:
            return answer, await _small(answer)

    # --- authentication ---

    async def log_in(self) -> str:
        """Whether the credentials are taken; the identity token, "" where there is none. Raises Unauthorized.

        Whoever logs in with one keeps it where the registry gives no other.
        """
        token = self._credentials.identity_token
        if self._challenge is None:
            return token
        if self._challenge.scheme == "bearer":
            answer = await self._ask_token(self._challenge, "", offline=True)
            token = str(answer.get("refresh_token") or token)
            self._tokens[""] = _bearer(answer)
        async with self._session.get(self.address.url + "/v2/", headers=await self._authorization(""),
                                     ssl=self._tls) as answer2:
            if answer2.status != 200:
                raise Unauthorized(f'Get "{self.address.url}/v2/": unauthorized: {_WRONG}')
        return token

    async def _authorization(self, scope: str) -> dict[str, str]:
        if self._challenge is None:
            return {}
        if self._challenge.scheme == "basic":
            if not self._credentials.basic:
                raise Unauthorized(f'Get "{self.address.url}/v2/": no basic auth credentials')
            self.sent_credentials = True
            return {"Authorization": self._credentials.basic}
        if self._credentials.registry_token:
            self.sent_credentials = True
            return {"Authorization": f"Bearer {self._credentials.registry_token}"}
        async with self._lock:
            if scope not in self._tokens:
                self._tokens[scope] = _bearer(await self._ask_token(self._challenge, scope))
        return {"Authorization": f"Bearer {self._tokens[scope]}"}

    async def _ask_token(self, challenge: Challenge, scope: str, *, offline: bool = False) -> dict[str, Any]:
        realm = URL(challenge.realm)
        if realm.scheme not in ("http", "https") or not realm.host:
            raise Unauthorized(f"the registry names no usable realm: {challenge.realm!r}")
        known = self._credentials
        self.sent_credentials |= known != ANONYMOUS
        query = [("service", challenge.service), *(("scope", one) for one in scope.split(" ") if one)]
        if known.identity_token:
            form = dict(query[:1], client_id="docker", grant_type="refresh_token", refresh_token=known.identity_token,
                        scope=scope)
            asking = self._session.post(realm, data=form, ssl=self._tls)
        else:
            query += [("account", known.username)] if known.username else []
            query += [("client_id", "docker"), ("offline_token", "true")] if offline else []
            headers = {"Authorization": known.basic} if known.basic else {}
            asking = self._session.get(realm.extend_query(query), headers=headers, ssl=self._tls)
        async with asyncio.timeout(_TOKEN_S), asking as answer:
            if answer.status != 200:
                what = "the identity token is refused, log in again" if known.identity_token else _WRONG
                raise Unauthorized(f'Get "{realm}": unauthorized: {what}' if answer.status in (400, 401, 403) else
                                   f'Get "{realm}": received unexpected HTTP status: {answer.status}')
            raw = await _small(answer)
        try:
            return msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise Unauthorized(f'Get "{realm}": no token in the answer: {error}') from error


def _bearer(answer: Mapping[str, Any]) -> str:
    return str(answer.get("token") or answer.get("access_token") or "")


async def _small(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise Refused(answer.status, "", f"{answer.url} answers with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


async def _refusal(answer: aiohttp.ClientResponse) -> Refused:
    raw = await _small(answer)
    try:
        named = msgspec.json.decode(raw, type=_Errors).errors
    except (msgspec.MsgspecError, UnicodeDecodeError):
        named = []
    if named:
        return Refused(answer.status, named[0].code, named[0].message)
    codes = {401: "UNAUTHORIZED", 403: "DENIED"}
    if answer.status in codes:
        return Refused(answer.status, codes[answer.status], "requested access to the resource is denied")
    return Refused(answer.status, "", f"received unexpected HTTP status: {answer.status} {answer.reason}")


async def _looked_up(names: list[str]) -> dict[str, list[str]]:
    """The addresses of hosts; none where a name has none just now: the request itself says why."""
    found = {}
    for name in names:
        with suppress(OSError, TimeoutError, UnicodeError):
            async with asyncio.timeout(_LOOKUP_S):
                answers = await asyncio.get_running_loop().getaddrinfo(name, None)
            found[name] = [str(answer[4][0]) for answer in answers]
    return found


def _tls(address: Endpoint, certificates: Path) -> ssl.SSLContext | bool:
    """The host's own certificates as Docker keeps them: HOST[:PORT]/*.crt of authorities, *.cert with *.key ours."""
    folder = certificates / address.host
    if not address.url.startswith("https:"):
        return True
    if address.verify and not folder.is_dir():
        return True
    context = ssl.create_default_context()
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        for authority in sorted(folder.glob("*.crt")):
            context.load_verify_locations(authority)
        for ours in sorted(folder.glob("*.cert")):
            context.load_cert_chain(ours, ours.with_suffix(".key"))
    except (OSError, ssl.SSLError) as error:
        raise Unreachable(f"cannot use the certificates in {folder}: {error}") from error
    return context
