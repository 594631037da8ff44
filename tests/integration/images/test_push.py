"""Pushing to Debian's docker-registry, and what comes back from there."""

from __future__ import annotations

import gzip
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal.api.errors import NotFound, ShoalError
from shoal.api.reference import parse
from shoal.engine.images.distribution.manifests import Platform
from shoal.engine.images.distribution.pusher import Pusher
from tests.integration.images.registries import MANIFEST, Made, Proxy, digest, docker_registry, layer
from tests.integration.images.test_pull import HTPASSWD, LAYERS, QUICK, Host

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")]


class Sender(Host):
    async def push(self, name: str, **options: Any) -> list[str]:
        """The statuses that were told."""
        lines: list[dict[str, Any]] = []
        await Pusher(self.images, policy=QUICK, sent_bytes=30_000).push(parse(name), progress=lines.append, **options)
        self.aux = [line["aux"] for line in lines if "aux" in line]
        return [line["status"] for line in lines if "status" in line]


@pytest.fixture
def host(tmp_path: Path) -> Sender:
    return Sender(tmp_path / "host")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


def manifest_of(address: str, repository: str, tag: str) -> bytes:
    request = urllib.request.Request(f"http://{address}/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFEST})
    with urllib.request.urlopen(request) as answer:
        return answer.read()  # type: ignore[no-any-return]


async def test_what_was_pulled_goes_back_with_the_same_digest(host: Sender, registry: str) -> None:
    made = Made(registry, "from", LAYERS).put("v1")
    await host.pull(f"{registry}/from:v1")
    await host.images.tag(made.id, f"{registry}/to", "v2")
    said = await host.push(f"{registry}/to:v2")
    assert said[0] == f"The push refers to repository [{registry}/to]"
    assert said.count("Mounted from from") == 3
    assert said[-1] == f"v2: digest: {digest(made.manifest)} size: {len(made.manifest)}"
    assert host.aux == [{"Tag": "v2", "Digest": digest(made.manifest), "Size": len(made.manifest)}]
    assert manifest_of(registry, "to", "v2") == made.manifest
    assert f"{registry}/to@{digest(made.manifest)}" in host.images.resolve(made.id).repo_digests
    assert (await host.push(f"{registry}/to:v2")).count("Layer already exists") == 3


async def test_an_image_for_another_platform_than_the_one_wanted_is_not_sent(host: Sender, registry: str) -> None:
    made = Made(registry, "here", LAYERS[2:]).put("v1")
    name = f"{registry}/here:v1"
    await host.pull(name)
    said = await host.push(name, platform=Platform("linux", "amd64"))
    assert said[-1].startswith(f"v1: digest: {digest(made.manifest)}")
    with pytest.raises(NotFound, match=r"was found but its platform \(linux/amd64\) does not match .*linux/arm64"):
        await host.push(name, platform=Platform("linux", "arm64"))


async def test_a_plain_layer_is_compressed_the_same_way_every_time(host: Sender, registry: str, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(LAYERS[0])
    image = await host.images.import_rootfs(archive, repository=f"{registry}/plain", tag="v1")
    assert "Pushed" in await host.push(f"{registry}/plain:v1")
    first = manifest_of(registry, "plain", "v1")
    assert "Layer already exists" in await host.push(f"{registry}/plain:v1")
    assert manifest_of(registry, "plain", "v1") == first
    named = json.loads(first)["layers"][0]["digest"]
    with urllib.request.urlopen(f"http://{registry}/v2/plain/blobs/{named}") as answer:
        assert gzip.decompress(answer.read()) == LAYERS[0]
    other = Host(tmp_path / "other")
    assert (await other.pull(f"{registry}/plain:v1")).id == image.id
    assert list(host.images.blobs.scratch.iterdir()) == []


async def test_what_was_packed_before_is_packed_for_who_lacks_it(host: Sender, registry: str, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(LAYERS[1])
    image = await host.images.import_rootfs(archive, repository=f"{registry}/once", tag="v1")
    await host.images.tag(image.id, f"{registry}/again", "v1")
    pusher = Pusher(host.images, policy=QUICK)
    told: list[str] = []
    for name in ("once", "once", "again"):
        await pusher.push(parse(f"{registry}/{name}:v1"), progress=lambda line: told.append(line.get("status", "")))
    assert [one for one in told if one in ("Pushed", "Layer already exists", "Mounted from once")] == [
        "Pushed", "Layer already exists", "Mounted from once"]
    assert manifest_of(registry, "once", "v1") == manifest_of(registry, "again", "v1")
    assert list(host.images.blobs.scratch.iterdir()) == []


async def test_every_tag_of_a_repository(host: Sender, registry: str, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar"
    for tag in ("one", "two"):
        archive.write_bytes(layer(tag, 100))
        await host.images.import_rootfs(archive, repository=f"{registry}/all", tag=tag)
    await host.push(f"{registry}/all", all_tags=True)
    assert [aux["Tag"] for aux in host.aux] == ["one", "two"]
    with pytest.raises(NotFound, match="An image does not exist locally with the tag"):
        await host.push(f"{registry}/none:v1")


async def test_cuts_at_every_tenth_are_mended(host: Sender, registry: str, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(layer("cut", 1_000_000))
    async with Proxy(registry).serving() as proxy:
        image = await host.images.import_rootfs(archive, repository=f"{proxy.address}/cut", tag="v1")
        proxy.cuts_sent = [100_000 * tenth for tenth in range(1, 10)]
        await host.push(f"{proxy.address}/cut:v1")
        assert proxy.cuts_sent == []
    assert (await Host(tmp_path / "other").pull(f"{registry}/cut:v1")).id == image.id


async def test_who_may_not_is_told(host: Sender, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(HTPASSWD)
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(LAYERS[2])
    with docker_registry(tmp_path, f"auth: {{htpasswd: {{realm: here, path: {tmp_path}/users}}}}\n") as address:
        await host.images.import_rootfs(archive, repository=f"{address}/mine", tag="v1")
        with pytest.raises(ShoalError, match="no basic auth credentials"):
            await host.push(f"{address}/mine:v1")
