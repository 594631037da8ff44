"""`docker login`, against a small registry on the machine's own loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from shoal.lab.processes import entering
from tests.integration.daemon.host import Machine, end, until

pytestmark = [pytest.mark.root, pytest.mark.clients]

ADDRESS = "127.0.0.1:5000"
REGISTRY = """
import base64, http.server

GOOD = "Basic " + base64.b64encode(b"me:secret").decode()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers.get("Authorization") == GOOD
        self.send_response(200 if known else 401)
        if not known:
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
        self.send_header("Content-Length", "0")
        self.end_headers()

server = http.server.ThreadingHTTPServer(("127.0.0.1", 5000), Handler)
print("listening", flush=True)
server.serve_forever()
"""


@pytest.fixture
def registry(host: Machine) -> Iterator[Machine]:
    server = subprocess.Popen([*entering(host.init_pid), sys.executable, "-c", REGISTRY], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
    assert server.stdout is not None
    until(server.stdout.readline, "the registry listens")
    yield host
    end(server)


def test_a_good_password_is_kept_by_the_client(registry: Machine) -> None:
    said = registry.docker("login", "--username", "me", "--password-stdin", ADDRESS, stdin="secret")
    assert "Login Succeeded" in said
    assert ADDRESS in (registry.root / "config" / "config.json").read_text()
    registry.docker("logout", ADDRESS)


def test_a_wrong_one_is_not(registry: Machine) -> None:
    said = registry.docker("login", "--username", "me", "--password-stdin", ADDRESS, stdin="wrong", code=1)
    assert "unauthorized: incorrect username or password" in said
