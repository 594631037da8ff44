"""Users and passwords from a file of Apache's htpasswd; bcrypt only, as Docker's registry takes them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from pathlib import Path

import bcrypt

from shoal.api.errors import InvalidArgument
from shoal.registry.auth.access import Access, basic
from shoal.registry.errors import AuthRequired

MOST_KNOWN = 1_000
_HASH = re.compile(r"\$2[aby]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_NOBODY = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(rounds=5))


def parse(text: str) -> dict[str, bytes]:
    """User → bcrypt hash. Raises InvalidArgument naming the line that is something else."""
    users = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, colon, hashed = line.partition(":")
        if not colon or not user or not _HASH.fullmatch(hashed):
            raise InvalidArgument(f"htpasswd, line {number}: USER:BCRYPT is wanted (htpasswd -B)")
        users[user] = hashed.encode()
    return users


class Htpasswd:
    """Every user may do everything. The file is read again when it changed."""

    def __init__(self, path: Path, realm: str = "Registry Realm") -> None:
        self._path, self._challenge = path, f'Basic realm="{realm}"'
        self._key = secrets.token_bytes(32)
        self._stamp: tuple[int, int] | None = None
        self._users: dict[str, bytes] = {}
        self._known: dict[bytes, None] = {}  # those that bcrypt agreed to: it takes 50 ms each time
        self._read()

    def _read(self) -> None:
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._stamp:
            self._users, self._stamp, self._known = parse(self._path.read_text()), stamp, {}

    async def allow(self, authorization: str | None, access: Access | None) -> None:
        given = basic(authorization)
        if given is None or not await asyncio.to_thread(self._check, *given):
            raise AuthRequired("authentication required: no such user, or a wrong password", self._challenge)

    def _check(self, user: str, password: str) -> bool:
        self._read()
        users, known = self._users, self._known
        seen = hmac.new(self._key, f"{user}\0{password}".encode(), hashlib.sha256).digest()
        if seen in known:
            return True
        given = password.encode()[:72]  # bcrypt looks at no more
        if not bcrypt.checkpw(given, users.get(user, _NOBODY)) or user not in users:
            return False
        if len(known) < MOST_KNOWN:
            known[seen] = None
        return True
