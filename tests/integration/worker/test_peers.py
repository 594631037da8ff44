"""Hosts that take an image from each other over real mutual TLS; some of them lie, break off or are strangers."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from shoal.api.errors import NotFound
from shoal.api.membership import Identity
from shoal.api.messages import FoundImage, HeldImages
from shoal.api.states import Role
from shoal.engine.images.config import Image
from shoal.engine.images.distribution.puller import Puller
from shoal.engine.images.images import Images
from shoal.engine.images.importer import Imported
from shoal.engine.images.sharing import shared_manifest
from shoal.engine.storage.driver import chain_ids
from shoal.engine.storage.overlay2 import Overlay2
from shoal.worker.credentials import Credentials
from shoal.worker.hostserver import HostServer
from shoal.worker.peers.bringing import Peers
from shoal.worker.peers.taking import PACE, Hosts, Pace
from tests.integration.images.registries import Made, digest, docker_registry, layer
from tests.integration.worker.scripted import NoContainers, write_certificate
from tests.unit.manager.controlapi_store import CLUSTER, Swarm

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")]

SIZES = (3_000_000, 2_000_000)
REPOSITORY = "127.0.0.1:9/app"
"""Of a registry that nobody serves."""

APP = f"{REPOSITORY}:1"


class Directory:
    """What managers know: who has which image, and who may have private ones."""

    def __init__(self) -> None:
        self.found: dict[str, FoundImage] = {}
        self.allowed: set[str] = set()
        self.asked = 0
        self.deaf = 0  # so many questions are answered as by one who has heard of nothing yet

    async def find_image(self, image: str) -> FoundImage | None:
        self.asked += 1
        return self.found.get(image) if self.asked > self.deaf else None

    async def may_take(self, node_id: str, manifest: str) -> bool:
        return node_id in self.allowed


class Host:
    def __init__(self, root: Path, swarm: Swarm, node_id: str, directory: Directory, pace: Pace) -> None:
        self.node_id = node_id
        self.directory = directory
        self.credentials = enrolled(root / "swarm", swarm, node_id)
        self.driver = Overlay2(root / "overlay2")
        self.images = Images(root / "images", self.driver)
        self._scratch = root / "scratch"
        self.peers = Peers(Puller(self.images), self.credentials, lambda: self.address, lambda: directory, pace)
        self.server = HostServer(self.credentials, NoContainers(), self.peers.sharing)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def make(self, name: str) -> Image:
        """An image of two layers."""
        self._scratch.write_bytes(layer("base", SIZES[0]))
        base = await self.images.import_rootfs(self._scratch)
        self._scratch.write_bytes(layer("top", SIZES[1]))
        return await self.images.commit(self._scratch, base.id, base.config, repository=name, tag="1")

    def tell(self, image: str, found: Image, *addresses: str, private: bool = False) -> None:
        """Have the directory know of it."""
        digest = self.images.record(found.id).contents[0]
        self.directory.found[image] = FoundImage(digest=digest, peers=addresses or (self.address,), private=private)

    def content(self, image_id: str) -> list[int]:
        chain = chain_ids(self.images.layers_of(image_id))
        return [(Path(self.driver._layer(one)) / "diff" / name).stat().st_size
                for one, name in zip(chain, ("base", "top"), strict=True)]

    def is_empty(self) -> bool:
        return not (self.images.all() or list(self.images.blobs.scratch.iterdir()))


def enrolled(folder: Path, swarm: Swarm, node_id: str, cluster_id: str = CLUSTER) -> Credentials:
    write_certificate(folder, swarm, node_id, Role.WORKER, cluster_id)
    credentials = Credentials(folder)
    credentials.save(Identity(node_id=node_id, cluster_id=cluster_id, role=Role.WORKER, advertise_addr="127.0.0.1"))
    credentials.load()
    return credentials


class Site:
    """Hosts of one swarm."""

    def __init__(self, root: Path, stack: AsyncExitStack) -> None:
        self.root = root
        self.swarm = Swarm()
        self.directory = Directory()
        self._stack = stack
        self._count = 0

    async def host(self, pace: Pace = PACE) -> Host:
        self._count += 1
        one = Host(self.root / f"h{self._count}", self.swarm, f"n{self._count}", self.directory, pace)
        await one.server.start("127.0.0.1", 0)
        self._stack.push_async_callback(one.server.stop)
        self._stack.push_async_callback(one.peers.close)
        return one

    async def bad(self, serve: object) -> str:
        """A node of the swarm that answers otherwise. Its address."""
        self._count += 1
        credentials = enrolled(self.root / f"h{self._count}", self.swarm, f"n{self._count}")
        app = web.Application()
        app.router.add_get("/blobs/{digest}", serve)  # type: ignore[arg-type]
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=credentials.server).start()
        self._stack.push_async_callback(runner.cleanup)
        return f"127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        yield Site(tmp_path, stack)


async def made(site: Site) -> tuple[Host, Image]:
    """A host with an image that the directory knows by its name."""
    seed = await site.host()
    image = await seed.make(REPOSITORY)
    await shared_manifest(seed.images, image.id)
    seed.tell(APP, image)
    return seed, image


async def bring(host: Host, image: str) -> None:
    async with asyncio.timeout(60):
        await host.peers.bring(image)


async def test_ten_hosts_take_an_image_that_one_has_and_it_sends_it_once(site: Site) -> None:
    seed, image = await made(site)
    others = [await site.host() for _ in range(10)]
    await asyncio.gather(*(bring(host, APP) for host in others))
    for host in others:
        assert host.images.resolve(APP).id == image.id
        assert host.content(image.id) == list(SIZES)
        assert not list(host.images.blobs.scratch.iterdir())
    small = 10 * 20_000  # manifests and configurations go to everybody
    assert seed.peers.sharing.sent_bytes <= sum(SIZES) + 20_000 + small
    assert max(host.peers.sharing.sent_bytes for host in others) <= 2 * (sum(SIZES) + 20_000) + small


async def test_by_digest_it_is_the_same_on_every_host(site: Site) -> None:
    seed, image = await made(site)
    digest = seed.images.record(image.id).contents[0]
    seed.tell(f"{APP}@{digest}", image)
    other = await site.host()
    await bring(other, f"{APP}@{digest}")
    for host in (other, seed):
        assert host.images.resolve(f"{REPOSITORY}@{digest}").id == image.id


async def test_layers_come_from_several_hosts(site: Site) -> None:
    seed, image = await made(site)
    second, third = await site.host(), await site.host()
    await bring(second, APP)
    before = [host.peers.sharing.sent_bytes for host in (seed, second)]
    seed.tell(APP, image, seed.address, second.address)
    await bring(third, APP)
    assert third.content(image.id) == list(SIZES)
    assert sum(host.peers.sharing.sent_bytes for host in (seed, second)) - sum(before) < sum(SIZES) * 1.1


async def wrong(request: web.Request) -> web.Response:
    return web.Response(body=random.Random(1).randbytes(SIZES[0] + 10_240))


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while request.transport is not None and not request.transport.is_closing():
        await response.write(bytes(1 << 16))
        await asyncio.sleep(0)
    return response


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(SIZES[0])})
    await response.prepare(request)
    await response.write(bytes(100_000))
    assert request.transport is not None
    request.transport.abort()
    return response


async def elsewhere(request: web.Request) -> web.Response:
    return web.json_response({"ask": [f"127.0.0.1:{port}" for port in range(1, 40)]}, status=300)


async def nonsense(request: web.Request) -> web.Response:
    return web.Response(status=300, body=b"\xff{")


@pytest.mark.parametrize("serve", [wrong, endless, cut, elsewhere, nonsense])
async def test_what_lies_or_breaks_off_is_dropped(site: Site, serve: object) -> None:
    seed, image = await made(site)
    bad = await site.bad(serve)
    other = await site.host()
    for _ in range(4):  # in whatever order they are asked
        seed.tell(APP, image, bad, seed.address)
        await bring(other, APP)
        assert other.images.resolve(APP).id == image.id
        assert other.content(image.id) == list(SIZES)
        await other.images.remove(APP)
    assert other.is_empty()


@pytest.mark.parametrize("serve", [wrong, endless, cut, elsewhere, nonsense])
async def test_from_bad_hosts_alone_nothing_is_taken(site: Site, serve: object) -> None:
    seed, image = await made(site)
    seed.tell(APP, image, await site.bad(serve))
    other = await site.host()
    with pytest.raises(NotFound, match="no other host gives"):
        await bring(other, APP)
    assert other.is_empty()


async def test_a_cut_goes_on_at_another_host(site: Site) -> None:
    """Half of each layer from one, the rest from the other: the bytes that came are not sent again."""
    seed, image = await made(site)
    blobs = {digest: seed.images.blobs.path(digest) for digest in seed.images.record(image.id).blobs}

    async def half(request: web.Request) -> web.StreamResponse:
        content = blobs[request.match_info["digest"]].read_bytes() if request.match_info["digest"] in blobs else b""
        if len(content) < 1 << 20:
            raise web.HTTPNotFound
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[:len(content) // 2])
        await asyncio.sleep(0)
        assert request.transport is not None
        request.transport.close()
        return response

    other = await site.host()
    seed.tell(APP, image, await site.bad(half), seed.address)
    await bring(other, APP)
    assert other.content(image.id) == list(SIZES)


async def test_one_that_sends_by_drops_is_dropped_for_another(site: Site) -> None:
    """A byte at a time, 20 a second and no more where 100 are wanted."""
    seed, image = await made(site)
    asked: list[str] = []
    left = asyncio.Event()

    async def drops(request: web.Request) -> web.StreamResponse:
        content = seed.images.blobs.path(request.match_info["digest"]).read_bytes()
        if len(content) < 1 << 20:  # a manifest or a configuration
            return web.Response(body=content)
        asked.append(request.match_info["digest"])
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        try:
            for byte in content:
                await response.write(bytes([byte]))
                await asyncio.sleep(0.05)
        finally:
            left.set()
        return response

    async def busy_until_then(request: web.Request) -> web.StreamResponse:
        if not left.is_set():
            raise web.HTTPServiceUnavailable
        return web.FileResponse(seed.images.blobs.path(request.match_info["digest"]))

    other = await site.host(Pace(least_rate=100, over_s=0.5))
    seed.tell(APP, image, await site.bad(drops), await site.bad(busy_until_then))
    await bring(other, APP)
    assert other.content(image.id) == list(SIZES)
    assert asked and len(set(asked)) == len(asked)  # for no layer a second time


async def test_a_manifest_by_drops_is_not_waited_for(site: Site) -> None:
    seed, image = await made(site)
    asked: list[str] = []

    async def drops(request: web.Request) -> web.StreamResponse:
        asked.append(request.match_info["digest"])
        response = web.StreamResponse()
        await response.prepare(request)
        for byte in seed.images.blobs.path(asked[-1]).read_bytes():
            await response.write(bytes([byte]))
            await asyncio.sleep(0.05)
        return response

    other = await site.host(Pace(small_s=0.5))
    seed.tell(APP, image, await site.bad(drops))
    with pytest.raises(NotFound, match="no other host gives"):
        await bring(other, APP)
    assert set(asked) <= {seed.images.record(image.id).contents[0]}  # and for nothing after it
    assert other.is_empty()


async def test_one_that_is_slow_is_not_dropped_where_there_is_no_other(site: Site) -> None:
    seed, image = await made(site)
    other = await site.host(Pace(least_rate=float("inf"), over_s=0.0))
    await bring(other, APP)
    assert other.content(image.id) == list(SIZES)
    await other.images.remove(APP)
    second = await site.host()
    await bring(second, APP)
    seed.tell(APP, image, seed.address, second.address)
    await bring(other, APP)  # one is dropped, and the other one does not name it again
    assert other.content(image.id) == list(SIZES)


async def test_a_private_image_goes_to_who_may_have_it_alone(site: Site) -> None:
    seed, image = await made(site)
    record = msgspec.structs.replace(seed.images.record(image.id), private=True)
    await seed.images.add(Imported(image, record))
    seed.tell(APP, image, private=True)
    other = await site.host()
    with pytest.raises(NotFound):
        await bring(other, APP)
    assert other.is_empty()
    site.directory.allowed.add(other.node_id)
    await bring(other, APP)
    assert other.images.record(image.id).private  # there too


async def test_a_node_of_another_swarm_gets_nothing(site: Site, tmp_path: Path) -> None:
    """Even where the same authority has signed its certificate."""
    seed, image = await made(site)
    foreign = enrolled(tmp_path / "foreign", site.swarm, "n1", cluster_id="x" * 25)
    hosts = Hosts(foreign, lambda: "127.0.0.1:1")
    try:
        async with hosts.get(seed.address, image.id) as answer:
            assert answer.status == 403
    finally:
        await hosts.close()


async def test_what_is_no_part_of_an_image_is_not_given(site: Site) -> None:
    seed, _ = await made(site)
    loose = seed.images.blobs.put(b"left over")
    other = await site.host()
    for wanted in (loose, "sha256:" + "0" * 64, "sha256:..%2f..%2fetc%2fpasswd"):
        hosts = Hosts(other.credentials, lambda: other.address)
        try:
            async with hosts.get(seed.address, wanted) as answer:
                assert answer.status in (400, 404)
        finally:
            await hosts.close()


async def test_a_leader_that_has_not_heard_of_the_image_yet_is_asked_once_more(site: Site) -> None:
    _, image = await made(site)
    other = await site.host()
    site.directory.deaf = 1
    await bring(other, APP)
    assert (other.images.resolve(APP).id, site.directory.asked) == (image.id, 2)


async def test_a_full_disk_is_said_and_nothing_stays(site: Site) -> None:
    await made(site)
    other = await site.host()
    mounted = other.images.blobs.scratch
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mounted], check=True)
    try:
        with pytest.raises(NotFound, match="cannot be kept: No space left on device"):
            await bring(other, APP)
        assert other.is_empty()
    finally:
        subprocess.run(["umount", mounted], check=True)


async def test_what_is_here_is_told_before_anybody_is_sent_for_it(site: Site) -> None:
    seed = await site.host()
    told: list[HeldImages] = []

    async def send(message: HeldImages) -> None:
        told.append(message)

    telling = asyncio.get_running_loop().create_task(seed.peers.tell(send))
    try:
        image = await seed.make(REPOSITORY)
        manifest = (await shared_manifest(seed.images, image.id)).digest
        async with asyncio.timeout(30):
            await seed.peers.announced(manifest)
        assert APP in [name for message in told for one in message.held if one.manifest == manifest
                       for name in one.names]
        assert told[0].complete and not any(message.complete for message in told[1:])
        await seed.images.remove(APP)
        async with asyncio.timeout(30):
            while not any(manifest in message.gone for message in told):
                await asyncio.sleep(0.01)
    finally:
        telling.cancel()
        await asyncio.wait([telling])


@pytest.mark.parametrize("serve", [None, wrong, cut])
async def test_what_no_host_gives_comes_from_the_registry(site: Site, tmp_path: Path, serve: object) -> None:
    """`serve`: how the only host that is said to have it answers; None: it is gone."""
    other = await site.host()
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry") as registry:
        there = Made(registry, "app", [layer("base", SIZES[0]), layer("top", SIZES[1])]).put("1")
        peer = await site.bad(serve) if serve is not None else "127.0.0.1:9"
        pinned = f"{registry}/app:1@{digest(there.manifest)}"
        site.directory.found[pinned] = FoundImage(digest=digest(there.manifest), peers=(peer,))
        await bring(other, pinned)
    assert other.images.resolve(pinned).id == there.id
    assert site.directory.asked == 1  # they were asked first
    assert other.content(there.id) == list(SIZES)


async def test_a_host_cannot_take_the_place_of_a_registry(site: Site, tmp_path: Path) -> None:
    """What a name without a digest means, its registry says."""
    seed, image = await made(site)
    other = await site.host()
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry") as registry:
        there = Made(registry, "app", [layer("base", 10), layer("top", 10)]).put("1")
        seed.tell(f"{registry}/app:1", image)
        await bring(other, f"{registry}/app:1")
    assert (other.images.resolve(f"{registry}/app:1").id, site.directory.asked) == (there.id, 0)
