"""The accounts that a client sends with a build: X-Registry-Config, one for each registry."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from shoal.api.errors import InvalidArgument
from shoal.api.reference import Reference
from shoal.engine.images.distribution.challenges import (
    ANONYMOUS,
    MAX_HEADER_BYTES,
    Credentials,
    credentials_of,
    decoded_header,
)
from shoal.engine.images.distribution.login import registry_name

Keyring = Mapping[str, Credentials]
"""HOST[:PORT] of a registry → the account."""

NO_KEYS: Keyring = MappingProxyType({})


def parse_keyring(header: str) -> Keyring:
    """{"SERVER": {"username": …}}, as base64 of JSON. Raises InvalidArgument."""
    if not header:
        return NO_KEYS
    if len(header) > MAX_HEADER_BYTES:
        raise InvalidArgument("invalid X-Registry-Config header: it is too long")
    try:
        found = decoded_header(header)
        if not isinstance(found, dict):
            raise InvalidArgument("invalid X-Registry-Config header: it is not a JSON object")
        return {registry_name(server): credentials_of(account or {}) for server, account in found.items()}
    except ValueError as error:
        raise InvalidArgument(f"invalid X-Registry-Config header: {error}") from error


def account_for(keyring: Keyring, wanted: Reference) -> Credentials:
    """The one at the registry that the image is in."""
    return keyring.get(registry_name(wanted.domain), ANONYMOUS) if keyring else ANONYMOUS
