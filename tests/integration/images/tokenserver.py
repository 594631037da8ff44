"""An authorization server as registries name one: a password buys tokens by GET, an identity token by POST.

    python -m tests.integration.images.tokenserver PORT FOLDER

serves http://127.0.0.1:PORT/token, with its certificate at FOLDER/token.pem for a registry to check tokens by.
Sources: distribution's docs/spec/auth/token.md and oauth.md.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
from aiohttp import encode_basic_auth, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

SERVICE, ISSUER = "the-registry", "the-issuer"
USER, PASSWORD = "me", "secret"


class TokenServer:
    """`asked`: the forms of all who came with an identity token; `stale`: how many tokens to give that are over."""

    def __init__(self, folder: Path) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.certificate = _self_signed(self.key)
        self.pem = folder / "token.pem"
        self.pem.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.asked: list[dict[str, str]] = []
        self.stale = 0
        self.realm = ""
        self.identity_tokens: set[str] = set()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/token", self._by_password)
        app.router.add_post("/token", self._by_identity)
        return app

    @asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[None]:
        runner = web.AppRunner(self.app(), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self.realm = f"http://127.0.0.1:{port}/token"
            yield
        finally:
            await runner.cleanup()

    async def _by_password(self, request: web.Request) -> web.Response:
        """Whoever brings none may do nothing."""
        given = request.headers.get("Authorization", "")
        known = given == encode_basic_auth(USER, PASSWORD)
        if given and not known:
            return web.Response(status=401)
        answer = {"token": self.token(request.query.getall("scope", []) if known else [])}
        if known and request.query.get("offline_token") == "true":
            answer["refresh_token"] = f"identity-{len(self.identity_tokens)}"
            self.identity_tokens.add(answer["refresh_token"])
        return web.json_response(answer)

    async def _by_identity(self, request: web.Request) -> web.Response:
        form = {key: str(value) for key, value in (await request.post()).items()}
        self.asked.append(form)
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") not in self.identity_tokens:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": self.token(form["scope"].split()), "scope": form["scope"]})

    def token(self, scopes: list[str]) -> str:
        now = int(time.time()) - 7200 * (self.stale > 0)  # Docker's registry takes whole seconds only
        self.stale -= self.stale > 0
        access = [{"type": kind, "name": name, "actions": actions.split(",")}
                  for kind, name, actions in (scope.split(":") for scope in scopes)]
        chain = [base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()]
        return jwt.encode({"iss": ISSUER, "sub": USER, "aud": SERVICE, "nbf": now - 10, "iat": now, "exp": now + 600,
                           "jti": str(now), "access": access}, self.key, "RS256", {"x5c": chain})


def docker_registry(realm: str, pem: Path) -> str:
    """What the configuration of Docker's registry says of such a server."""
    return f"auth:\n  token: {{realm: '{realm}', service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: '{pem}'}}\n"


def shoal_registry(realm: str, pem: Path) -> list[str]:
    """The same, for the command line of ours."""
    return ["--token-realm", realm, "--token-service", SERVICE, "--token-issuer", ISSUER, "--token-key", str(pem)]


def _self_signed(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    now = datetime.datetime.now(datetime.UTC)
    return (x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(),
                                    serial_number=x509.random_serial_number(),
                                    not_valid_before=now - datetime.timedelta(hours=1),
                                    not_valid_after=now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256()))


async def _main(port: int, folder: Path) -> None:
    async with TokenServer(folder).serving(port):
        print("listening", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), Path(sys.argv[2])))
