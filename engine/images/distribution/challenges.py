"""Who asks, and what a registry asks of him: X-Registry-Auth, WWW-Authenticate. Pure.

Sources: RFC 7235; the distribution specification's token authentication; the API's section on authentication.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.wire import Wire

MAX_HEADER_BYTES = 32 << 10
_SCHEME = re.compile(r"(?:^|,)\s*(basic|bearer)(?=\s|$)", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-zA-Z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Credentials(msgspec.Struct, frozen=True):
    """What a client knows of its account at a registry; none of it: anonymous. Nothing that prints it shows it."""

    username: str = ""
    password: str = ""
    identity_token: str = ""  # from a login: buys bearer tokens
    registry_token: str = ""  # a bearer token itself

    def __repr__(self) -> str:
        return "Credentials(…)" if self != ANONYMOUS else "Credentials()"

    @property
    def basic(self) -> str:
        """The header's value; "" for nobody."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS = Credentials()


class _AuthConfig(Wire, frozen=True):
    """The JSON in X-Registry-Auth."""

    username: str = msgspec.field(name="username", default="")
    password: str = msgspec.field(name="password", default="")
    auth: str = msgspec.field(name="auth", default="")
    identity_token: str = msgspec.field(name="identitytoken", default="")
    registry_token: str = msgspec.field(name="registrytoken", default="")


def parse_credentials(header: str) -> Credentials:
    """The X-Registry-Auth of a request; "" and what is empty inside mean nobody. Raises InvalidArgument."""
    if not header:
        return ANONYMOUS
    if len(header) > MAX_HEADER_BYTES:
        raise InvalidArgument("invalid X-Registry-Auth header: it is too long")
    try:
        return credentials_of(decoded_header(header))
    except ValueError as error:
        raise InvalidArgument(f"invalid X-Registry-Auth header: {error}") from error


def decoded_header(header: str) -> Any:
    """The JSON in it; {} where it says nothing. Raises ValueError."""
    return msgspec.json.decode(_unpadded(header) or b"{}") or {}


def credentials_of(document: Any) -> Credentials:
    """Of the JSON of one account. Raises ValueError."""
    config = msgspec.convert(document, _AuthConfig)
    username, password = config.username, config.password
    if config.auth and not username:
        username, _, password = _unpadded(config.auth).decode().partition(":")
    return Credentials(username, password.rstrip("\0"), config.identity_token, config.registry_token)


def _unpadded(text: str) -> bytes:
    """Base64 of either alphabet, with or without padding."""
    text = text.strip().rstrip("=").translate(str.maketrans("-_", "+/"))
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


class Challenge(msgspec.Struct, frozen=True):
    """One way in that a registry offers."""

    scheme: str  # basic, bearer
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenges(headers: list[str]) -> list[Challenge]:
    """The ways in that the WWW-Authenticate headers offer and that are known here, bearer first."""
    found = []
    for header in headers:
        header = header[:MAX_HEADER_BYTES]
        quoted = [span.span() for span in re.finditer(r'"(?:[^"\\]|\\.)*"', header)]
        starts = [one for one in _SCHEME.finditer(header)
                  if not any(first < one.start() < last for first, last in quoted)]
        ends = [one.start() for one in starts[1:]] + [len(header)]
        for start, end in zip(starts, ends, strict=False):
            values = {name.lower(): re.sub(r"\\(.)", r"\1", text) or word
                      for name, text, word in _PARAMETER.findall(header[start.end():end])}
            found.append(Challenge(start[1].lower(), values.get("realm", ""), values.get("service", ""),
                                   values.get("scope", "")))
    return sorted(found, key=lambda one: one.scheme != "bearer")
