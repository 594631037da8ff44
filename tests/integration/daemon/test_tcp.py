"""The API over TCP with mutual TLS, through the stock docker command; and `dial-stdio`, which ssh:// is made of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.lab.processes import entering
from tests.integration.daemon.certificates import Authority
from tests.integration.daemon.host import DEADLINE_S, Machine

pytestmark = [pytest.mark.root, pytest.mark.clients]

ADDRESS = "127.0.0.1"
TLS, OPEN = f"tcp://{ADDRESS}:2376", f"tcp://{ADDRESS}:2377"
SHOAL = [sys.executable, "-m", "shoal.cli.main"]
PING = b"GET /_ping HTTP/1.1\r\nHost: shoal\r\nConnection: close\r\n\r\n"


class TlsMachine(Machine):
    """Serves on TCP with mutual TLS as well as on its socket."""

    def prepare(self) -> None:
        authority = Authority()
        self.certificates = authority.write(self.root / "server", server=ADDRESS)
        self.client_certificates = authority.write(self.root / "client")
        self.foreign_certificates = Authority("another authority").write(self.root / "foreign")

    def _config(self) -> Path:
        path = super()._config()
        folder = self.certificates
        path.write_text(json.dumps({
            "hosts": [f"unix://{self.socket}", TLS], "tlsverify": True, "tlscacert": str(folder / "ca.pem"),
            "tlscert": str(folder / "cert.pem"), "tlskey": str(folder / "key.pem")}))
        return path

    def over_tls(self, certificates: Path, *command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """A client of the machine's, to its end."""
        known = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "SHOAL_"))}
        environment = {**known, "DOCKER_HOST": TLS, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates),
                       "DOCKER_CONFIG": str(self.root / "config")}
        return subprocess.run([*entering(self.init_pid), *command], input=stdin, capture_output=True,
                              timeout=DEADLINE_S, check=False, env=environment)


@pytest.fixture(scope="module")
def secure() -> Iterator[TlsMachine]:
    if os.geteuid() != 0 or shutil.which("docker") is None:
        pytest.skip("needs root and the docker command")
    made = TlsMachine(Path(tempfile.mkdtemp(prefix="shoal-tcp-")))
    try:
        made.prepare()
        made.on()
        made.start()
        made.load_image()
        yield made
    finally:
        made.off()


def test_the_docker_command_works_with_its_certificate(secure: TlsMachine) -> None:
    done = secure.over_tls(secure.client_certificates, "docker", "version", "--format", "{{.Server.APIVersion}}")
    assert (done.returncode, done.stdout.decode().strip()) == (0, "1.50"), done.stderr


def test_input_ends_and_output_goes_on_over_tls(secure: TlsMachine) -> None:
    """The client's close_notify is the end of the container's input, not of the connection."""
    text = b"line\n" * 100_000
    done = secure.over_tls(secure.client_certificates, "docker", "run", "--rm", "-i", "busybox", "sh", "-c",
                           "cat; sleep 0.3; echo end", stdin=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout == text + b"end\n"


def test_the_shoal_command_too(secure: TlsMachine) -> None:
    text = b"line\n" * 100_000
    done = secure.over_tls(secure.client_certificates, *SHOAL, "run", "--rm", "-i", "busybox", "sh", "-c",
                           "cat; sleep 0.3; echo end", stdin=text)
    assert (done.returncode, done.stdout) == (0, text + b"end\n"), done.stderr
    refused = secure.over_tls(secure.foreign_certificates, *SHOAL, "ps")
    assert refused.returncode == 1
    assert b"cannot reach a daemon at tcp://127.0.0.1:2376" in refused.stderr


def test_a_context_holds_address_and_certificates(secure: TlsMachine) -> None:
    files = secure.client_certificates
    environment = {**{key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "SHOAL_"))},
                   "SHOAL_CONFIG": str(secure.root / "contexts")}

    def shoal(*words: str, **more: str) -> str:
        done = subprocess.run([*entering(secure.init_pid), *SHOAL, *words], env={**environment, **more}, text=True,
                              capture_output=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    shoal("context", "create", "far", "--host", TLS, "--ca", str(files / "ca.pem"), "--cert", str(files / "cert.pem"),
          "--key", str(files / "key.pem"))
    shoal("context", "create", "near", "--host", f"unix://{secure.socket}")
    assert "busybox" in shoal("--context", "far", "image", "ls")
    assert "busybox" in shoal("image", "ls", SHOAL_CONTEXT="near")
    shoal("context", "use", "far")
    assert "busybox" in shoal("image", "ls")
    shoal("context", "rm", "far", "near")
    assert shoal("context", "ls", "--quiet").split() == ["default"]


@pytest.mark.parametrize("which", ["foreign", "none"])
def test_nobody_else_is_let_in(secure: TlsMachine, which: str) -> None:
    stranger = secure.root / f"stranger-{which}"
    shutil.copytree(secure.foreign_certificates, stranger)
    shutil.copy(secure.certificates / "ca.pem", stranger / "ca.pem")
    if which == "none":
        (stranger / "cert.pem").unlink()
        (stranger / "key.pem").unlink()
    done = secure.over_tls(stranger, "docker", "version", "--format", "{{.Server.APIVersion}}")
    assert done.returncode != 0
    assert b"1.50" not in done.stdout
    assert secure.call("GET", "/_ping")[0] == 200


def test_plain_requests_get_nothing(secure: TlsMachine) -> None:
    done = secure.inside(sys.executable, "-c", (
        "import socket; s = socket.create_connection(('127.0.0.1', 2376)); "
        f"s.sendall({PING!r}); s.settimeout(10); print(s.recv(100))"))
    assert "OK" not in done.stdout
    assert secure.call("GET", "/_ping")[0] == 200


def test_open_tcp_is_refused_where_everybody_can_reach_it(secure: TlsMachine) -> None:
    done = secure.inside(sys.executable, "-m", "shoal.daemon", "--data-root", str(secure.root / "d2"), "--run-root",
                         str(secure.root / "r2"), "--config", str(Machine._config(secure)), "-H", "tcp://0.0.0.0:2375")
    assert done.returncode == 1
    assert "without tlsverify" in done.stderr


@pytest.mark.parametrize("client", [["docker"], SHOAL], ids=["docker", "shoal"])
def test_dial_stdio_carries_requests_and_their_end(secure: TlsMachine, client: list[str]) -> None:
    """As over ssh; its input is at its end before the answer is there."""
    environment = {**secure.environment(), "SHOAL_HOST": f"unix://{secure.socket}"}
    done = subprocess.run([*client, "system", "dial-stdio"], input=PING, env=environment, capture_output=True,
                          timeout=DEADLINE_S, check=False)
    assert done.stdout.startswith(b"HTTP/1.1 200 OK\r\n"), done
    assert done.stdout.endswith(b"\r\n\r\nOK")
