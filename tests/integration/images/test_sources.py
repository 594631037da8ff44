"""What registries differ in: mirrors, TLS, formats, platforms. And what a push sends: mounts, chunks."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shoal.api.errors import NotFound
from shoal.api.reference import parse
from shoal.engine.images.distribution.challenges import Credentials
from shoal.engine.images.distribution.endpoints import RegistryRules
from shoal.engine.images.distribution.lookup import describe
from shoal.engine.images.distribution.pusher import Pusher
from shoal.engine.images.distribution.registry import Unreachable
from shoal.overlay import kernel
from tests.integration.daemon.certificates import Authority
from tests.integration.images.registries import Made, Proxy, digest, docker_registry, free_port, layer
from tests.integration.images.test_pull import LAYERS, QUICK, Host

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


# --- mirrors ---


async def test_a_mirror_serves_the_names_of_the_hub_alone(registry: str, tmp_path: Path) -> None:
    made = Made(registry, "library/tool", LAYERS[2:]).put("v1")
    host = Host(tmp_path, rules=RegistryRules(mirrors=(f"http://127.0.0.1:{free_port()}", f"http://{registry}/")))
    image = await host.pull("tool:v1")  # the first mirror is down
    assert (image.id, image.repo_tags) == (made.id, ("tool:v1",))
    assert image.repo_digests == (f"docker.io/library/tool@{digest(made.manifest)}",)
    other = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=f"{other}/v2/\": dial tcp {other}: connect: connection refused"):
        await host.pull(f"{other}/library/tool:v1")


async def test_a_mirror_that_lacks_an_image_gives_way(registry: str, tmp_path: Path) -> None:
    made = Made(registry, "library/rare", LAYERS[:1]).put("v1")
    with docker_registry(tmp_path) as empty:
        async with Proxy(registry).serving() as spoiling:
            spoiling.spoil = made.blobs[0][200_000:200_008]
            rules = RegistryRules(mirrors=(f"http://{empty}", f"http://{spoiling.address}", f"http://{registry}"))
            host = Host(tmp_path / "host", rules=rules)
            assert (await host.pull("rare:v1")).id == made.id
            assert spoiling.passed > 0
            assert (await describe(parse("rare:v1"), rules)).descriptor.digest == digest(made.manifest)
            await host.puller.pull_all(parse("rare"))


# --- TLS ---

ADDRESS = "192.0.2.1"
UNTRUSTED = "tls: failed to verify certificate: x509: certificate signed by unknown authority"


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Callable[[Callable[[], Coroutine[Any, Any, None]]], None]]:
    """Runs something on a network of its own, where ADDRESS is: what is on loopback needs no certificate."""
    namespace = tmp_path / "network"
    kernel.create_namespace(namespace)

    def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with kernel.inside(namespace):  # so are the threads of the loop, and what is started from here
            asyncio.run(work())

    try:
        subprocess.run(["nsenter", f"--net={namespace}", "ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"],
                       check=True)
        yield run
    finally:
        kernel.delete_namespace(namespace)


@pytest.mark.parametrize(("kept", "error"), [
    pytest.param({}, UNTRUSTED, id="nothing"),
    pytest.param({"ca.crt": "ca.pem"}, "/v2/", id="an authority"),
    pytest.param({"ca.crt": "ca.pem", "x.cert": "cert.pem", "x.key": "key.pem"}, "", id="with a client's"),
    pytest.param({"ca.crt": "ca.pem", "x.cert": "cert.pem"}, "cannot use the certificates in", id="no key"),
])
def test_certificates_are_where_docker_has_them(apart: Any, tmp_path: Path, kept: dict[str, str], error: str) -> None:
    authority, certificates = Authority(), tmp_path / "certs.d"
    server, client = authority.write(tmp_path / "server", server=ADDRESS), authority.write(tmp_path / "client")
    with docker_registry(tmp_path) as plain:
        made = Made(plain, "secured", LAYERS[2:]).put("v1")

    async def work() -> None:
        with docker_registry(tmp_path, tls=server, host=ADDRESS) as address:
            (certificates / address).mkdir(parents=True)
            for name, source in kept.items():
                shutil.copy(client / source, certificates / address / name)
            host, other = (Host(tmp_path / name, certificates=certificates) for name in ("host", "other"))
            if error:
                with pytest.raises(Unreachable, match=error):
                    await host.pull(f"{address}/secured:v1")
                return
            assert (await host.pull(f"{address}/secured:v1")).id == made.id
            await host.images.tag(made.id, f"{address}/again", "v1")
            await Pusher(host.images, policy=QUICK, certificates=certificates).push(parse(f"{address}/again:v1"))
            assert (await other.pull(f"{address}/again:v1")).id == made.id

    apart(work)


@pytest.mark.parametrize("secured", [
    pytest.param(False, id="without TLS"), pytest.param(True, id="with a certificate of its own")])
@pytest.mark.parametrize("named", ["192.0.2.0/24", ADDRESS, "ADDRESS:PORT", ""])
def test_an_insecure_registry_has_to_be_named(apart: Any, tmp_path: Path, secured: bool, named: str) -> None:
    tls = Authority().write(tmp_path / "server", server=ADDRESS) if secured else None
    with docker_registry(tmp_path) as plain:
        made = Made(plain, "app", LAYERS[2:]).put("v1")

    async def work() -> None:
        with docker_registry(tmp_path, tls=tls, clients=False, host=ADDRESS) as address:
            rules = RegistryRules(insecure=(address if named == "ADDRESS:PORT" else named,) if named else ())
            host = Host(tmp_path / "host", rules=rules)
            if named:
                assert (await host.pull(f"{address}/app:v1")).id == made.id
                return
            with pytest.raises(Unreachable, match=UNTRUSTED if secured else "http: server gave HTTP response to HTTPS"):
                await host.pull(f"{address}/app:v1")

    apart(work)


async def test_a_password_does_not_follow_a_layer_to_where_the_registry_keeps_it(host: Host) -> None:
    """As registries in front of object stores do, which refuse whoever brings another's credentials."""
    made, credentials, seen = Made("", "", LAYERS[2:]), Credentials("me", "secret"), []

    async def kept(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=made.blobs[0])

    async def guarded(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != credentials.basic:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})
        if request.path.endswith(digest(made.blobs[0])):
            return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{store.port}/it?signed=yes"})
        if request.path.endswith(digest(made.config)):
            return web.Response(body=made.config)
        return web.Response(body=made.manifest, headers={"Content-Type": made.kind})

    servers = []
    for handler in (kept, guarded):
        app = web.Application()
        app.router.add_get("/{path:.*}", handler)
        servers.append(TestServer(app, host="127.0.0.1"))
    store, front = servers
    async with store, front:
        image = await host.pull(f"127.0.0.1:{front.port}/x:v1", credentials=credentials)
    assert image.id == made.id
    assert seen == [None]


# --- formats and platforms ---


@pytest.mark.parametrize("packed", ["tar+zstd", "tar+gzip", "tar"])
async def test_an_oci_image_comes_and_goes_as_it_is(packed: str, registry: str, host: Host) -> None:
    made = Made(registry, "oci", LAYERS, oci=packed).put(packed.replace("+", "-"))
    image = await host.pull(f"{registry}/oci:{packed.replace('+', '-')}")
    assert (image.id, image.size) == (made.id, 700_010)
    assert (host.content(image, 0) / "a").stat().st_size == 400_000
    assert list(host.images.record(image.id).layers) == [digest(blob) for blob in made.blobs]
    await host.images.tag(image.id, f"{registry}/oci-back", "v1")
    await Pusher(host.images, policy=QUICK).push(parse(f"{registry}/oci-back:v1"))
    request = urllib.request.Request(f"http://{registry}/v2/oci-back/manifests/v1", headers={"Accept": made.kind})
    with urllib.request.urlopen(request) as answer:
        assert answer.read() == made.manifest


@pytest.fixture(scope="module")
def platforms(registry: str) -> dict[str, Made]:
    """What the index many:all has for which platform. The last is an attestation, as BuildKit adds them."""
    made = {text: Made(registry, "many", [layer(text.replace("/", "-"), 10)], architecture=text, oci="tar+gzip"
                       ).put(f"t{number}")
            for number, text in enumerate(["amd64", "arm/v6", "arm/v7", "arm64", "unknown"])}
    Made(registry, "many", []).put_index("all", [(one, text) for text, one in made.items()], oci=True)
    return made


@pytest.mark.parametrize(("platform", "chosen"), [
    ("linux/amd64", "amd64"), ("linux/arm/v7", "arm/v7"), ("linux/arm/v6", "arm/v6"), ("linux/arm", "arm/v7"),
    ("linux/arm/v8", "arm/v7"), ("linux/arm64", "arm64"), ("linux/arm64/v8", "arm64"), ("arm64", "arm64"),
    ("linux/arm/v5", ""), ("linux/386", ""), ("windows/amd64", ""),
])
async def test_an_index_gives_what_runs_on_the_platform(
        platform: str, chosen: str, registry: str, host: Host, platforms: dict[str, Made]) -> None:
    if not chosen:
        with pytest.raises(NotFound, match="no matching manifest for"):
            await host.pull(f"{registry}/many:all", platform=platform)
        return
    assert (await host.pull(f"{registry}/many:all", platform=platform)).id == platforms[chosen].id


# --- what a push sends ---


class Heard(Proxy):
    """`heads`: of the requests that went through."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.heads: list[str] = []

    def hear(self, data: bytes) -> None:
        self.heads += [head.decode() for head in re.findall(rb"[A-Z]+ /v2/[^ ]* HTTP/1.1\r\n(?:[^\r]+\r\n)*", data)]

    def values(self, method: str, header: str) -> list[str]:
        """Of a header, in the requests with that method."""
        pattern = re.compile(f"^{header}: (.*)\r$", re.MULTILINE)
        return [value for head in self.heads if head.startswith(method) for value in pattern.findall(head)]


async def pushed(host: Host, name: str, **options: int) -> list[str]:
    """The statuses that a push told."""
    lines: list[dict[str, str]] = []
    await Pusher(host.images, policy=QUICK, **options).push(parse(name), progress=lines.append)
    return [line["status"] for line in lines if "status" in line]


async def test_a_layer_that_the_registry_has_elsewhere_is_not_sent(registry: str, host: Host) -> None:
    Made(registry, "has", LAYERS).put("v1")
    async with Heard(registry).serving() as proxy:
        image = await host.pull(f"{proxy.address}/has:v1")
        await host.images.tag(image.id, f"{proxy.address}/wants", "v1")
        before = proxy.sent
        assert (await pushed(host, f"{proxy.address}/wants:v1")).count("Mounted from has") == 3
        assert proxy.sent - before < 10_000


async def test_what_cannot_be_mounted_is_sent(host: Host, tmp_path: Path) -> None:
    with docker_registry(tmp_path) as address:
        made = Made(address, "was", LAYERS[2:]).put("v1")
        await host.pull(f"{address}/was:v1")
        shutil.rmtree(tmp_path / "store/docker/registry/v2/repositories/was")
        await host.images.tag(made.id, f"{address}/wants", "v1")
        assert "Pushed" in await pushed(host, f"{address}/wants:v1")
        left = tmp_path / "store/docker/registry/v2/repositories/wants/_uploads"
        assert not left.exists() or list(left.iterdir()) == []
        assert (await Host(tmp_path / "other").pull(f"{address}/wants:v1")).id == made.id


async def test_a_large_layer_goes_in_chunks_that_join(registry: str, host: Host, tmp_path: Path) -> None:
    (tmp_path / "rootfs.tar").write_bytes(layer("chunks", 100_000))
    async with Heard(registry).serving() as proxy:
        image = await host.images.import_rootfs(tmp_path / "rootfs.tar", repository=f"{proxy.address}/parts", tag="v1")
        assert "Pushed" in await pushed(host, f"{proxy.address}/parts:v1", sent_bytes=30_000)
    ranges = proxy.values("PATCH", "Content-Range")
    assert ranges == ["0-29999", "30000-59999", "60000-89999"]
    assert proxy.values("PATCH", "Content-Length") == ["30000"] * 3
    assert [value for value in proxy.values("PUT", "Content-Range") if value.startswith("90000-")]  # and the rest
    assert (await Host(tmp_path / "other").pull(f"{registry}/parts:v1")).id == image.id
