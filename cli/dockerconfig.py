"""What the docker command knows of accounts at registries: `docker login` wrote it, `shoal` reads it.

    $DOCKER_CONFIG/config.json, else ~/.docker/config.json
        {"auths": {SERVER: {"auth": base64 of NAME:PASSWORD, "identitytoken": …}},
         "credsStore": PROGRAM, "credHelpers": {SERVER: PROGRAM}}    docker-credential-PROGRAM has them then

Source: docker/cli, cli/config/configfile/file.go; docker-credential-helpers.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from shoal.api.errors import InvalidArgument
from shoal.api.reference import DEFAULT_DOMAIN, parse

HELPER_TIMEOUT_S = 30
HUB = "https://index.docker.io/v1/"
"""What `docker login` calls Docker Hub."""

TOKEN_USER = "<token>"  # noqa: S105 (as helpers call an account whose secret is an identity token)

Account = dict[str, str]
"""As the API has it: username and password, or identitytoken."""


def accounts() -> dict[str, Account]:
    """By server, as they were logged in to. Raises InvalidArgument where the file or a helper cannot be used."""
    found, helpers, store = _read()
    stored = _ask(store, "list", "") if store else {}
    for server, program in {**dict.fromkeys(stored, store), **helpers}.items():
        found[server] = _stored(program, server)
    return {server: known for server, known in found.items() if any(known.values())}


def account_at(domain: str) -> Account:
    """The one at the registry of an image's name; {} for none. Raises as `accounts` does."""
    found, helpers, store = _read()
    server = HUB if domain == DEFAULT_DOMAIN else domain
    program = helpers.get(server) or store
    known = _stored(program, server) if program else next(
        (known for name, known in found.items() if server in (name, _host(name))), {})
    return known if any(known.values()) else {}


def _host(server: str) -> str:
    """Pure. Old files name servers by URLs."""
    return server.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _read() -> tuple[dict[str, Account], dict[str, str], str]:
    """The file's own accounts, the helpers for servers, and the helper for all others."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config = json.loads(path.read_bytes())
        if not isinstance(config, dict):
            raise InvalidArgument(f"{path}: it is not a JSON object")
        found = {server: account(entry) for server, entry in (config.get("auths") or {}).items()}
        return found, config.get("credHelpers") or {}, config.get("credsStore") or ""
    except FileNotFoundError:
        return {}, {}, ""
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidArgument(f"{path}: {error}") from error


def account(entry: dict[str, str]) -> Account:
    """Of the file's entry. Pure. Raises ValueError."""
    if token := entry.get("identitytoken"):
        return {"identitytoken": token}
    name, _, password = base64.b64decode(entry.get("auth") or "", validate=True).decode().partition(":")
    return {"username": entry.get("username") or name, "password": entry.get("password") or password.rstrip("\0")}


def _stored(program: str, server: str) -> Account:
    said = _ask(program, "get", server)
    name, secret = str(said.get("Username", "")), str(said.get("Secret", ""))
    return {"identitytoken": secret} if name == TOKEN_USER else {"username": name, "password": secret}


def _ask(program: str, action: str, server: str) -> dict[str, Any]:
    """What a helper answers; nothing where it has no such account."""
    command = f"docker-credential-{program}"
    try:
        done = subprocess.run([command, action], input=server, capture_output=True, text=True,
                              timeout=HELPER_TIMEOUT_S, check=False)
        if done.returncode:
            if "credentials not found" in done.stdout:
                return {}
            raise InvalidArgument(f"{command} {action}: {(done.stdout or done.stderr).strip()[:200]}")
        said = json.loads(done.stdout or "{}")
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise InvalidArgument(f"{command} {action}: {error}") from error
    return said if isinstance(said, dict) else {}


def account_header(reference: str) -> dict[str, str]:
    """The header of a pull or push of the image, or of a service of it; none where there is no account."""
    known = account_at(parse(reference).domain)
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(known).encode()).decode()} if known else {}


def keyring_header() -> dict[str, str]:
    """The header of a build by which the daemon pulls what the build starts from; none where there is no account."""
    known = accounts()
    return {"X-Registry-Config": base64.urlsafe_b64encode(json.dumps(known).encode()).decode()} if known else {}
