"""Services whose image comes from a registry that asks for a password: Debian's docker-registry, the docker command."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.host import Machine, end, until
from tests.integration.daemon.test_registry import started
from tests.integration.images import tokenserver
from tests.integration.images.test_pull import HTPASSWD

pytestmark = [pytest.mark.root, pytest.mark.clients]

ADDRESS = "127.0.0.1:5007"
NAME = f"{ADDRESS}/team/private:v1"
SENT = base64.urlsafe_b64encode(b'{"username":"me","password":"secret"').decode()[:44]
"""How the docker command's X-Registry-Auth begins."""


@pytest.fixture(scope="module")
def manager(machine: Machine) -> Iterator[Machine]:
    """Of a swarm, logged in at a registry that has the image, which is here no more."""
    folder = machine.root / "private"
    folder.mkdir()
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/store}}}}\nhttp: {{addr: '{ADDRESS}'}}\n"
        f"auth: {{htpasswd: {{realm: here, path: {folder}/htpasswd}}}}\n")
    server = started(machine, "docker-registry", "serve", str(folder / "registry.yml"))
    try:
        login = ("login", "-u", "me", "--password-stdin", ADDRESS)
        until(lambda: not machine.docker_run(*login, stdin="secret").returncode, "the registry takes the password")
        machine.docker("build", "--tag", NAME, "-", stdin="FROM busybox\nRUN echo private > /made\n")
        machine.docker("push", NAME)
        machine.docker("rmi", NAME)
        machine.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        yield machine
        machine.docker("swarm", "leave", "--force")
        machine.docker("logout", ADDRESS)
    finally:
        end(server)


@pytest.fixture
def swarm(manager: Machine) -> Iterator[Machine]:
    """Without services and without the image, before and after."""
    yield manager
    if services := manager.docker("service", "ls", "--quiet").split():
        manager.docker("service", "rm", *services)
    until(lambda: not manager.docker("ps", "--all", "--quiet"), "their containers are gone")
    if images := manager.docker("images", "--quiet", "--no-trunc", f"{ADDRESS}/team/private").split():
        manager.docker("rmi", "--force", *images)


def column(host: Machine, name: str) -> str:
    """Of every task of the service."""
    return host.docker("service", "ps", "--no-trunc", "--format", f"{{{{.{name}}}}}", "web")


def test_a_service_has_the_password_that_came_with_it_and_keeps_it(swarm: Machine) -> None:
    docker = swarm.docker
    docker("service", "create", "--detach", "--name", "web", "--restart-delay", "100ms", "--init", NAME,
           "sleep", "1000")
    until(lambda: "no basic auth credentials" in column(swarm, "Error"), "a task without the password does not run")
    docker("service", "update", "--detach", "--with-registry-auth", "web")
    until(lambda: "Running" in column(swarm, "CurrentState"), "one with it does")
    image_id = swarm.inspect(docker("ps", "--quiet"))["Image"]
    assert json.loads((swarm.root / "data/images/index.json").read_bytes())["images"][image_id]["private"]

    docker("service", "scale", "--detach", "web=0")
    until(lambda: not docker("ps", "--all", "--quiet"), "its container is gone")
    docker("rmi", image_id)
    docker("service", "scale", "--detach", "web=1")  # an update that brings no password, and needs the one that is kept
    until(lambda: docker("ps", "--quiet"), "its task runs")

    told = docker("service", "inspect", "web") + docker("inspect", docker("ps", "--quiet"))
    told += str(swarm.call("GET", "/tasks")[1]) + docker("events", "--since", "1", "--until", f"{time.time():.3f}")
    told += "".join(path.read_text(errors="replace") for path in swarm.root.rglob("*.log"))
    (kept,) = swarm.root.rglob("assignments.msgpack")
    until(lambda: SENT.encode() in kept.read_bytes(), "the host knows it, and only root reads that")
    assert kept.stat().st_mode & 0o077 == 0
    assert "team/private" in told and SENT not in told and "secret" not in told


def test_the_shoal_command_uses_the_account_of_docker_login(swarm: Machine) -> None:
    def shoal(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", "shoal.cli.main", "--host", f"unix://{swarm.socket}", *words],
                              text=True, capture_output=True, check=False, timeout=60, env=swarm.environment())
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    assert "Downloaded newer image" in shoal("image", "pull", NAME)
    shoal("image", "push", NAME)
    shoal("image", "rm", NAME)
    shoal("service", "create", "--detach", "--with-registry-auth", "--name", "web", NAME, "sh", "-c",
          "trap exit TERM; sleep 1000 & wait")
    until(lambda: "Running" in column(swarm, "CurrentState"), "its task has the account")


def test_a_long_password_comes_through(swarm: Machine, tmp_path: Path) -> None:
    """Those of clouds are tokens; beyond what fits, the answer says so."""
    for length, code in ((15_000, 0), (30_000, 1)):
        auth = base64.b64encode(b"me:" + b"x" * length).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {ADDRESS: {"auth": auth}}}))
        said = swarm.docker("--config", str(tmp_path), "service", "create", "--detach", "--no-resolve-image",
                            "--with-registry-auth", "--replicas", "0", NAME, code=code)
        assert not code or "invalid X-Registry-Auth header: it is too long" in said


def test_docker_login_keeps_an_identity_token_and_pulls_and_pushes_with_it(host: Machine) -> None:
    docker, address, folder = host.docker, "127.0.0.1:5008", host.root / "tokens"
    folder.mkdir()
    authorizing = started(host, sys.executable, tokenserver.__file__, "5009", str(folder))
    until(lambda: (folder / "token.pem").exists(), "the authorization server has its key")
    (folder / "registry.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/store}}}}\nhttp: {{addr: '{address}'}}\n"
        + tokenserver.docker_registry("http://127.0.0.1:5009/token", folder / "token.pem"))
    serving = started(host, "docker-registry", "serve", str(folder / "registry.yml"))
    try:
        until(lambda: not host.docker_run("login", "-u", tokenserver.USER, "--password-stdin", address,
                                          stdin=tokenserver.PASSWORD).returncode, "the login succeeds")
        kept = json.loads((host.root / "config/config.json").read_bytes())["auths"][address]
        assert kept["identitytoken"].startswith("identity-")
        assert base64.b64decode(kept["auth"]) == b"me:"  # no password
        name = f"{address}/team/app:v1"
        docker("tag", "busybox", name)
        docker("push", name)
        docker("rmi", name)
        docker("pull", name)
        docker("rmi", name)
        docker("logout", address)
        assert "pull access denied" in docker("pull", name, code=1)
    finally:
        end(serving)
        end(authorizing)


def test_a_stack_has_the_password_that_came_with_it(swarm: Machine) -> None:
    docker, tasks = swarm.docker, ("stack", "ps", "--no-trunc", "--format", "{{.Error}} {{.CurrentState}}", "app")
    stack = json.dumps({"version": "3.8", "services": {"web": {
        "image": NAME, "command": "sleep 1000", "init": True, "deploy": {"restart_policy": {"delay": "100ms"}}}}})
    docker("stack", "deploy", "--detach", "--compose-file", "-", "app", stdin=stack)
    until(lambda: "no basic auth credentials" in docker(*tasks), "a task without the password does not run")
    docker("stack", "deploy", "--detach", "--with-registry-auth", "--compose-file", "-", "app", stdin=stack)
    until(lambda: "Running" in docker(*tasks), "one with it does")
    docker("stack", "deploy", "--detach", "--compose-file", "-", "app", stdin=stack.replace("1000", "2000"))
    until(lambda: "sleep 2000" in docker("ps", "--no-trunc"), "so does the next one")
    docker("stack", "rm", "app")
