"""What a request asks for, and what answers whether it may. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Protocol

import msgspec


class Access(msgspec.Struct, frozen=True):
    """`kind`: repository or registry. `actions`: pull, push, delete, or * of the catalog."""

    kind: str
    name: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


class Authenticator(Protocol):
    async def allow(self, authorization: str | None, access: Access | None) -> None:
        """Return where the header's bearer may do it. Raises AuthRequired with a challenge, or Denied.

        `access` is None for /v2/ itself: any known bearer may."""


class Open:
    """Everybody may do everything."""

    async def allow(self, authorization: str | None, access: Access | None) -> None:
        return


def basic(authorization: str | None) -> tuple[str, str] | None:
    """User and password of a header Authorization: Basic …; None where it is none."""
    scheme, _, value = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (user, password) if colon else None


def bearer(authorization: str | None) -> str | None:
    scheme, _, value = (authorization or "").partition(" ")
    return value.strip() or None if scheme.lower() == "bearer" else None
