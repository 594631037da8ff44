"""Identity tokens: a login buys one, and it buys all others. Docker's registry and ours on the other side."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shoal.api.errors import NotFound, Unauthorized
from shoal.api.reference import parse
from shoal.engine.images.distribution.challenges import Credentials
from shoal.engine.images.distribution.login import log_in
from shoal.engine.images.distribution.pusher import Pusher
from tests.cluster import eventually
from tests.integration.images import tokenserver
from tests.integration.images.registries import answering, docker_registry, free_port, layer
from tests.integration.images.test_pull import QUICK, Host
from tests.integration.images.tokenserver import PASSWORD, SERVICE, USER, TokenServer

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")]


@contextmanager
def shoal_registry(root: Path, *options: str) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen([sys.executable, "-m", "shoal.cli.main", "registry", "serve", "--root",
                                str(root / "store"), "--listen", address, *options], stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: answering(address))
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[TokenServer]:
    server = TokenServer(tmp_path)
    async with server.serving(free_port()):
        yield server


@pytest.fixture(params=["docker", "shoal"])
def registry(request: pytest.FixtureRequest, tokens: TokenServer, tmp_path: Path) -> Iterator[str]:
    if request.param == "docker":
        with docker_registry(tmp_path, tokenserver.docker_registry(tokens.realm, tokens.pem)) as address:
            yield address
    else:
        with shoal_registry(tmp_path, *tokenserver.shoal_registry(tokens.realm, tokens.pem)) as address:
            yield address


async def test_a_login_buys_an_identity_token_that_buys_all_others(
        tokens: TokenServer, registry: str, tmp_path: Path) -> None:
    identity = await log_in(registry, Credentials(USER, PASSWORD))
    assert identity == "identity-0"
    known = Credentials(identity_token=identity)
    host, other = Host(tmp_path / "one"), Host(tmp_path / "other")
    (tmp_path / "rootfs.tar").write_bytes(layer("a", 1000))
    image = await host.images.import_rootfs(tmp_path / "rootfs.tar", repository=f"{registry}/team/app", tag="v1")
    tokens.stale = 1  # the registry refuses the first: another is asked for
    await Pusher(host.images, policy=QUICK).push(parse(f"{registry}/team/app:v1"), known)
    assert tokens.stale == 0
    assert (await other.pull(f"{registry}/team/app:v1", credentials=known)).id == image.id
    assert other.images.record(image.id).private
    assert {form.pop("scope") for form in tokens.asked} == {
        "repository:team/app:pull,push", "repository:team/app:pull"}
    expected = {"grant_type": "refresh_token", "refresh_token": identity, "service": SERVICE, "client_id": "docker"}
    assert [form for form in tokens.asked if form != expected] == []

    assert await log_in(registry, known) == identity  # as `docker login` again does
    tokens.identity_tokens.clear()
    with pytest.raises(Unauthorized, match="the identity token is refused, log in again"):
        await other.pull(f"{registry}/team/app:v1", credentials=known)
    with pytest.raises(Unauthorized, match="the identity token is refused, log in again"):
        await log_in(registry, known)


async def test_a_token_of_a_registry_is_sent_as_it_is(tokens: TokenServer, registry: str, tmp_path: Path) -> None:
    host = Host(tmp_path / "one")
    (tmp_path / "rootfs.tar").write_bytes(layer("a", 1000))
    await host.images.import_rootfs(tmp_path / "rootfs.tar", repository=f"{registry}/app", tag="v1")
    await Pusher(host.images, policy=QUICK).push(parse(f"{registry}/app:v1"), Credentials(USER, PASSWORD))
    given = Credentials(registry_token=tokens.token(["repository:app:pull"]))
    other = Host(tmp_path / "other")
    image = await other.pull(f"{registry}/app:v1", credentials=given)
    assert other.images.record(image.id).private
    assert tokens.asked == []
    with pytest.raises(NotFound, match="pull access denied"):
        await other.pull(f"{registry}/app:v1", credentials=Credentials(registry_token="other"))
    with pytest.raises(NotFound, match="pull access denied"):
        await other.pull(f"{registry}/app:v1")
