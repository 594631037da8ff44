"""Which daemon is talked to, and a connection to it: a UNIX socket, TCP with or without TLS, or ssh.

ssh runs `shoal system dial-stdio` there (`docker system dial-stdio` where there is no shoal), which carries one
connection over its own input and output.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shoal.api.errors import ShoalError
from shoal.cli.contexts import Context, ContextError, Contexts

DEFAULT_HOST = "unix:///run/shoal/shoal.sock"
CONNECT_TIMEOUT_S = 30
PORT, TLS_PORT = 2375, 2376
DIAL = "command -v shoal >/dev/null 2>&1 && exec shoal system dial-stdio; exec docker system dial-stdio"


class EndpointError(ShoalError):
    """The address is none, or nothing answers there."""


@dataclass(frozen=True)
class Endpoint:
    """`host`: unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT]."""

    host: str
    tls: bool = False
    verify: bool = True  # the server's certificate
    certificates: Path | None = None  # folder with ca.pem, cert.pem, key.pem


def resolve(host: str | None, context: str | None, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """The daemon that the options, the environment and the context in use name, the first of them.

    Raises ContextError for a context that is not there.
    """
    if host and context:
        raise ContextError("give --host or --context, not both")
    if host:
        return _of_environment(host, environment)
    contexts = Contexts.of_user(environment)
    if context:
        return _of_context(contexts.get(context))
    if found := environment.get("SHOAL_HOST"):
        return _of_environment(found, environment)
    if found := environment.get("SHOAL_CONTEXT"):
        return _of_context(contexts.get(found))
    if found := environment.get("DOCKER_HOST"):
        return _of_environment(found, environment)
    return _of_context(contexts.get(contexts.current()))


def _of_environment(host: str, environment: Mapping[str, str]) -> Endpoint:
    """With the certificates that DOCKER_TLS_VERIFY and DOCKER_CERT_PATH name, as Docker's clients do."""
    verify = bool(environment.get("DOCKER_TLS_VERIFY"))
    if not host.startswith("tcp://") or not (verify or environment.get("DOCKER_TLS")):
        return Endpoint(host)
    folder = environment.get("DOCKER_CERT_PATH") or str(Path("~/.docker").expanduser())
    return Endpoint(host, tls=True, verify=verify, certificates=Path(folder))


def _of_context(context: Context) -> Endpoint:
    return Endpoint(context.host or DEFAULT_HOST, tls=context.certificates is not None, verify=not context.skip_verify,
                    certificates=context.certificates)


def connect(endpoint: Endpoint) -> socket.socket:
    """A connection. Raises EndpointError, saying what is wrong with the address, and OSError."""
    kind, _, address = endpoint.host.partition("://")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    if kind in ("tcp", "http", "https"):
        return _connect_tcp(endpoint, kind)
    if kind == "ssh":
        return _connect_ssh(endpoint.host)
    raise EndpointError(f"host {endpoint.host!r} is not understood: use unix:///PATH, tcp://HOST:PORT or ssh://HOST")


def _connect_tcp(endpoint: Endpoint, kind: str) -> socket.socket:
    tls = endpoint.tls or kind == "https"
    name, port = _host_and_port(endpoint.host)
    connection = socket.create_connection((name, port or (TLS_PORT if tls else PORT)), CONNECT_TIMEOUT_S)
    if not tls:
        connection.settimeout(None)
        return connection
    from shoal.cli.tlsclient import bridge, client_context

    return bridge(connection, client_context(endpoint.certificates, verify=endpoint.verify), name)


def _host_and_port(host: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(host)
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise EndpointError(f"host {host!r} is not understood: {error}") from error
    if not name or name.startswith("-"):
        raise EndpointError(f"host {host!r} names no host")
    return name, port


def _connect_ssh(host: str) -> socket.socket:
    """The ssh process holds the other end, and ends when ours is closed."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            subprocess.Popen(ssh_command(host), stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True)
        except FileNotFoundError as error:
            ours.close()
            raise EndpointError("ssh:// needs the ssh command, which is not on this machine") from error
    return ours


def ssh_command(host: str) -> list[str]:
    """What is run for an ssh:// address. Raises EndpointError."""
    name, port = _host_and_port(host)
    user = urlsplit(host).username
    if urlsplit(host).password is not None:
        raise EndpointError("an ssh:// address cannot hold a password: use a key")
    if user is not None and user.startswith("-"):
        raise EndpointError(f"host {host!r} names no user")
    options = ["-T", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"]
    options += ["-l", user] if user else []
    options += ["-p", str(port)] if port else []
    return ["ssh", *options, "--", name, f"sh -c {shlex.quote(DIAL)}"]
