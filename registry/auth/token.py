"""Tokens that another server signed: Docker's token specification, RS256 and ES256.

Source: distribution, docs/spec/auth/token.md and jwt.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from shoal.api.errors import InvalidArgument
from shoal.registry.auth.access import Access, bearer
from shoal.registry.errors import AuthRequired

Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
LEEWAY_S = 60
LONGEST_TOKEN = 64 << 10


class _Grant(msgspec.Struct, frozen=True):
    type: str
    name: str
    actions: list[str]


def key(pem: bytes) -> Key:
    """A public key, or a certificate's. Raises InvalidArgument for what cannot check RS256 or ES256."""
    try:
        if b"BEGIN CERTIFICATE" in pem:
            found: object = x509.load_pem_x509_certificate(pem).public_key()
        else:
            found = load_pem_public_key(pem)
    except ValueError as error:
        raise InvalidArgument(f"the token's key is neither a public key nor a certificate in PEM: {error}") from error
    if isinstance(found, rsa.RSAPublicKey):
        return found
    if isinstance(found, ec.EllipticCurvePublicKey) and isinstance(found.curve, ec.SECP256R1):
        return found
    raise InvalidArgument("the token's key is neither RSA nor of the curve P-256")


class Tokens:
    """Takes what one of `keys` signed for `service`, from `issuer`."""

    def __init__(self, realm: str, service: str, issuer: str, keys: Sequence[Key]) -> None:
        self._realm, self._service, self._issuer, self._keys = realm, service, issuer, keys

    async def allow(self, authorization: str | None, access: Access | None) -> None:
        token = bearer(authorization)
        if token is None:
            raise self._refusal("authentication required", access)
        grants = self._grants(token, access)
        if access is not None and not allows(grants, access):
            raise self._refusal("the token does not allow that", access, "insufficient_scope")

    def _grants(self, token: str, access: Access | None) -> list[_Grant]:
        if len(token) <= LONGEST_TOKEN:
            for each in self._keys:
                algorithm = "RS256" if isinstance(each, rsa.RSAPublicKey) else "ES256"
                try:
                    claims = jwt.decode(token, each, algorithms=[algorithm], audience=self._service, leeway=LEEWAY_S,
                                        issuer=self._issuer, options={"require": ["exp", "iss", "aud"]})
                    return msgspec.convert(claims.get("access") or [], list[_Grant])
                except (jwt.PyJWTError, msgspec.ValidationError):
                    continue
        raise self._refusal("the token is not valid", access, "invalid_token")

    def _refusal(self, message: str, access: Access | None, error: str = "") -> AuthRequired:
        challenge = f'Bearer realm="{self._realm}",service="{self._service}"'
        if access is not None:
            challenge += f',scope="{access}"'
        if error:
            challenge += f',error="{error}"'
        return AuthRequired(message, challenge)


def allows(grants: Sequence[_Grant], access: Access) -> bool:
    """Whether the grants together hold every action that is asked for."""
    held = {action for each in grants if (each.type, each.name) == (access.kind, access.name)
            for action in each.actions}
    return "*" in held or held.issuperset(access.actions)
