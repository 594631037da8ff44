"""Pulling from Debian's docker-registry, also through a line that fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal.api.errors import InvalidArgument, NotFound, ShoalError
from shoal.api.reference import parse
from shoal.engine.images import index as index_file
from shoal.engine.images.distribution.challenges import Credentials
from shoal.engine.images.distribution.puller import Puller
from shoal.engine.images.distribution.registry import Unreachable
from shoal.engine.images.distribution.retry import RetryPolicy
from shoal.engine.images.images import Images
from shoal.engine.storage.driver import chain_ids
from shoal.engine.storage.overlay2 import Overlay2
from tests.integration.images.registries import Made, Proxy, digest, docker_registry, free_port, layer

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")]
HTPASSWD = "me:$2b$04$vZz.RT2HNA8x//uXXb1hmuokaGVgr05nG3Tcurs7A/bcuxI3NzJQa\n"  # secret
QUICK = RetryPolicy(attempts=4, first_s=0.001, most_s=0.01)
LAYERS = [layer("a", 400_000), layer("b", 300_000), layer("c", 10)]


class Host:
    def __init__(self, root: Path, **options: Any) -> None:
        self.events: list[tuple[str, str]] = []
        self.driver = Overlay2(root / "overlay2")
        self.images = Images(root / "images", self.driver,
                             emit=lambda action, image_id, _: self.events.append((action, image_id)))
        self.puller = Puller(self.images, policy=QUICK, **options)
        self.lines: list[dict[str, Any]] = []

    async def pull(self, name: str, **options: Any) -> Any:
        self.lines.clear()
        async with asyncio.timeout(60):
            return await self.puller.pull(parse(name), progress=self.lines.append, **options)

    def said(self, layer_digest: str) -> list[str]:
        """The statuses of one layer in order, each once."""
        return list(dict.fromkeys(line["status"] for line in self.lines if line.get("id") == layer_digest[7:19]))

    def content(self, image: Any, number: int) -> Path:
        return Path(self.driver._layer(chain_ids(image.layers)[number])) / "diff"

    def is_empty(self) -> bool:
        return not (self.images.all() or self.driver.layers() or self.images.blobs.digests()
                    or list(self.images.blobs.scratch.iterdir()))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


async def test_an_image_comes_whole_and_says_how(host: Host, registry: str) -> None:
    made = Made(registry, "team/app", LAYERS).put("v1")
    image = await host.pull(f"{registry}/team/app:v1")
    assert (image.id, image.repo_tags) == (made.id, (f"{registry}/team/app:v1",))
    assert image.repo_digests == (f"{registry}/team/app@{digest(made.manifest)}",)
    assert [(host.content(image, number) / name).stat().st_size for number, name in enumerate("abc")] == [
        400_000, 300_000, 10]
    assert image.size == 700_010
    assert host.lines[0] == {"status": "Pulling from team/app", "id": "v1"}
    assert [line["status"] for line in host.lines[-2:]] == [
        f"Digest: {digest(made.manifest)}", f"Status: Downloaded newer image for {registry}/team/app:v1"]
    said = [word for word in host.said(digest(made.blobs[0])) if word != "Waiting"]
    assert said == ["Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Extracting",
                    "Pull complete"]
    assert host.events == [("pull", f"{registry}/team/app:v1")]


async def test_what_is_here_is_not_brought_again(host: Host, registry: str) -> None:
    first = Made(registry, "again", LAYERS[:1]).put("one")
    second = Made(registry, "again", LAYERS[:2]).put("two")
    await host.pull(f"{registry}/again:one")
    await host.pull(f"{registry}/again:one")
    assert host.lines[-1]["status"].startswith("Status: Image is up to date")
    await host.pull(f"{registry}/again:two")
    assert host.said(digest(first.blobs[0])) == ["Already exists"]
    assert host.said(digest(second.blobs[1]))[-1] == "Pull complete"


async def test_a_layer_of_no_bytes(host: Host, registry: str) -> None:
    made = Made(registry, "nothing", [LAYERS[2], b""], oci="tar").put("v1")
    image = await host.pull(f"{registry}/nothing:v1")
    assert (image.id, image.layers) == (made.id, (digest(LAYERS[2]), digest(b"")))
    assert not list(host.content(image, 1).iterdir())


async def test_by_digest_the_image_has_no_tag(host: Host, registry: str) -> None:
    made = Made(registry, "pinned", LAYERS[:1]).put("v1")
    name = f"{registry}/pinned@{digest(made.manifest)}"
    image = await host.pull(name)
    assert image.repo_tags == ()
    assert host.images.resolve(name).id == made.id


async def test_an_index_gives_the_image_of_the_platform(host: Host, registry: str) -> None:
    here = Made(registry, "many", LAYERS[:1]).put("amd")
    other = Made(registry, "many", LAYERS[1:2], architecture="arm64").put("arm")
    named = here.put_index("all", [(here, "amd64"), (other, "arm64")])
    assert (await host.pull(f"{registry}/many:all", platform="linux/arm64/v8")).id == other.id
    image = await host.pull(f"{registry}/many:all", platform="linux/amd64")
    assert (image.id, image.repo_digests) == (here.id, (f"{registry}/many@{named}",))
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        await host.pull(f"{registry}/many:all", platform="linux/s390x")


async def test_a_digest_goes_with_the_last_tag_of_its_repository(host: Host, registry: str) -> None:
    made = Made(registry, "gone", LAYERS[2:]).put("v1").put("v2")
    for tag in ("v1", "v2"):
        image = await host.pull(f"{registry}/gone:{tag}")
    await host.images.tag(image.id, "stays", "latest")
    pinned = f"{registry}/gone@{digest(made.manifest)}"
    assert [one.untagged for one in await host.images.remove(f"{registry}/gone:v1")] == [f"{registry}/gone:v1"]
    assert host.images.has(pinned)
    gone = await host.images.remove(f"{registry}/gone:v2")
    assert [one.untagged for one in gone] == [f"{registry}/gone:v2", pinned]
    assert not host.images.has(pinned)
    assert host.images.has("stays")


async def test_every_tag(host: Host, registry: str) -> None:
    for number in range(3):
        Made(registry, "tags", LAYERS[number:number + 1]).put(f"t{number}")
    await host.puller.pull_all(parse(f"{registry}/tags"))
    assert sorted(tag for image in host.images.all() for tag in image.repo_tags) == [
        f"{registry}/tags:t{number}" for number in range(3)]


async def test_what_is_not_there_is_said_in_dockers_words(host: Host, registry: str) -> None:
    Made(registry, "there", LAYERS[2:]).put("v1")
    name = f"{registry}/there:nope"
    with pytest.raises(NotFound, match=f"^manifest for {name} not found: manifest unknown: manifest unknown$"):
        await host.pull(name)
    nobody = f"127.0.0.1:{free_port()}/x"
    with pytest.raises(Unreachable, match="/v2/"):
        await host.pull(nobody)
    assert host.is_empty()


async def test_cuts_at_every_tenth_are_mended(host: Host, registry: str) -> None:
    made = Made(registry, "cut", LAYERS).put()
    async with Proxy(registry).serving() as proxy:
        whole = sum(map(len, made.blobs))
        proxy.cuts = [whole * tenth // 10 for tenth in range(1, 10)]
        image = await host.pull(f"{proxy.address}/cut")
        assert proxy.cuts == []
        assert proxy.passed < 2 * whole  # the rest was asked for, not all again
    assert image.id == made.id
    assert (host.content(image, 0) / "a").stat().st_size == 400_000


async def test_spoilt_bytes_are_never_used(host: Host, registry: str) -> None:
    made = Made(registry, "spoilt", LAYERS[:1]).put()
    async with Proxy(registry).serving() as proxy:
        proxy.spoil = made.blobs[0][200_000:200_008]
        with pytest.raises(InvalidArgument, match=f"verification failed for digest {digest(made.blobs[0])}"):
            await host.pull(f"{proxy.address}/spoilt")
    assert host.is_empty()


async def test_a_layer_that_is_not_what_the_configuration_says_is_refused(host: Host, registry: str) -> None:
    made = Made(registry, "lies", LAYERS[:1])
    made.config = made.config.replace(digest(LAYERS[0]).encode(), digest(b"other").encode())
    made.manifest = made.manifest.replace(made_id(LAYERS[0]).encode(), digest(made.config).encode())
    made.put()
    with pytest.raises(InvalidArgument, match="digest mismatch"):
        await host.pull(f"{registry}/lies")
    assert host.driver.layers() == {}
    assert host.images.all() == []


def made_id(plain: bytes) -> str:
    return Made("", "", [plain]).id


async def test_a_pull_that_is_given_up_leaves_nothing(host: Host, registry: str) -> None:
    Made(registry, "left", LAYERS).put()
    async with Proxy(registry).serving() as proxy:
        proxy.hold, proxy.hold_after = asyncio.Event(), 300_000
        pulling = asyncio.create_task(host.pull(f"{proxy.address}/left"))
        async with asyncio.timeout(60):
            while proxy.passed < proxy.hold_after:
                await asyncio.sleep(0.01)
        assert list(host.images.blobs.scratch.iterdir())
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        proxy.hold.set()
    assert host.images.all() == []
    assert list(host.images.blobs.scratch.iterdir()) == []


async def test_two_pulls_at_once_bring_each_layer_once(host: Host, registry: str) -> None:
    made = Made(registry, "both", LAYERS).put()
    async with Proxy(registry).serving() as proxy:
        pulls = [host.puller.pull(parse(f"{proxy.address}/both")) for _ in range(2)]
        assert {image.id for image in await asyncio.gather(*pulls)} == {made.id}
        assert proxy.passed < 1.5 * sum(map(len, made.blobs))


async def test_a_registry_with_passwords(host: Host, tmp_path: Path) -> None:
    users = tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    with docker_registry(tmp_path, f"auth: {{htpasswd: {{realm: here, path: {users}}}}}\n") as address:
        good = Credentials("me", "secret")
        made = Made(address, "x", LAYERS[2:]).put(auth=good.basic)
        with pytest.raises(ShoalError, match="no basic auth credentials"):
            await host.pull(f"{address}/x")
        with pytest.raises(NotFound, match="pull access denied for"):
            await host.pull(f"{address}/x", credentials=Credentials("me", "wrong"))
        assert (await host.pull(f"{address}/x", credentials=good)).id == made.id
        assert host.images.record(made.id).private


async def test_an_image_that_needed_no_password_is_not_private_until_one_was_sent_for_it(
        host: Host, registry: str, tmp_path: Path) -> None:
    made = Made(registry, "open", LAYERS[2:]).put()
    await host.pull(f"{registry}/open", credentials=Credentials("me", "secret"))  # nobody asked for them
    assert not host.images.record(made.id).private
    users = tmp_path / "htpasswd"
    users.write_text(HTPASSWD)
    with docker_registry(tmp_path, f"auth: {{htpasswd: {{realm: here, path: {users}}}}}\n") as address:
        good = Credentials("me", "secret")
        Made(address, "x", LAYERS[2:]).put(auth=good.basic)
        await host.pull(f"{address}/x", credentials=good)
    await host.pull(f"{registry}/open")
    assert host.images.record(made.id).private
    assert index_file.load(tmp_path / "host/images/index.json").images[made.id].private
