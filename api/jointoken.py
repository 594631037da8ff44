"""Join tokens: `SWMTKN-1-<digest of the root CA>-<secret>`. Pure but for `new_secret`.

The digest lets a joining host recognise the CA before it trusts anything; the
secret says as what it may join. Source of the form: SwarmKit, ca/config.go; the
digest is the SHA-256 of the root certificates' PEM text, in base 36.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.ids import base36

DIGEST_LENGTH = 50
SECRET_LENGTH = 25
_SECRET_BYTES = 16
_FORM = re.compile(rf"SWMTKN-1-([0-9a-z]{{{DIGEST_LENGTH}}})-([0-9a-z]{{{SECRET_LENGTH}}})")


class JoinToken(msgspec.Struct, frozen=True):
    """`str()` gives the token as a user sees it."""

    digest: str
    secret: str

    def __str__(self) -> str:
        return f"SWMTKN-1-{self.digest}-{self.secret}"


def new_secret() -> str:
    """The secret part of a fresh token."""
    return base36(int.from_bytes(secrets.token_bytes(_SECRET_BYTES), "big"), SECRET_LENGTH)


def digest_of(root_ca_pem: str) -> str:
    """The digest of root certificates, as a token carries it."""
    return base36(int.from_bytes(hashlib.sha256(root_ca_pem.encode()).digest(), "big"), DIGEST_LENGTH)


def parse(text: str) -> JoinToken:
    """Raises InvalidArgument where `text` is malformed or was cut short; never repeats the secret."""
    found = _FORM.fullmatch(text.strip())
    if found is not None:
        return JoinToken(found[1], found[2])
    expected = f"SWMTKN-1-<{DIGEST_LENGTH} characters>-<{SECRET_LENGTH} characters>"
    if text.strip().startswith("SWMTKN-1-"):
        raise InvalidArgument(f"invalid join token: it is truncated or has characters that no token has; "
                              f"expected {expected}")
    raise InvalidArgument(f"invalid join token: expected {expected}")


def check_fingerprint(token: JoinToken, root_ca_pem: str) -> None:
    """Raises InvalidArgument where the token was made for another CA."""
    if not hmac.compare_digest(token.digest, digest_of(root_ca_pem)):
        raise InvalidArgument(
            f"remote CA does not match fingerprint. Expected: {token.digest}, got: {digest_of(root_ca_pem)}: "
            "the token belongs to another swarm"
        )
