"""What `docker save` writes and `docker load` reads, with skopeo as the other side: digests stay what they are."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shoal.api.errors import NotFound
from shoal.api.reference import parse
from shoal.engine.images.config import Image
from shoal.engine.images.distribution.manifests import Platform
from shoal.engine.images.distribution.puller import Puller
from shoal.engine.images.export import save
from shoal.engine.images.images import Images
from shoal.engine.storage.overlay2 import Overlay2
from tests.integration.images.registries import Made, digest, docker_registry, layer

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")]
HERE = Platform("linux", "amd64")


class Host:
    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.driver = Overlay2(root / "overlay2")
        self.images = Images(root / "images", self.driver)

    async def made(self, content: bytes, name: str, platform: Platform = HERE) -> Image:
        path = self.root / "rootfs"
        path.write_bytes(content)
        repository, _, tag = name.partition(":")
        return await self.images.import_rootfs(path, repository=repository, tag=tag, platform=platform)

    async def save(self, *names: str, platform: Platform | None = None) -> Path:
        path = self.root / "saved.tar"
        with path.open("wb") as target:
            async for chunk in save(self.images, list(names), platform):
                target.write(chunk)
        return path

    async def load(self, path: Path, platform: Platform | None = None) -> list[Image]:
        return [item.image for item, _ in await self.images.load(path, platform)]

    def manifest(self, image: Image) -> str:
        return self.images.record(image.id).manifest


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture
def other(tmp_path: Path) -> Host:
    return Host(tmp_path / "other")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", "--insecure-policy", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digest_at(place: str) -> str:
    """The digest of the manifest that skopeo finds there."""
    done = subprocess.run(["skopeo", "inspect", "--raw", place], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return "sha256:" + hashlib.sha256(done.stdout).hexdigest()


def documents(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as archive:
        return {name: json.load(archive.extractfile(name) or pytest.fail(name)) for name in (
            "index.json", "manifest.json", "oci-layout", "repositories") if name in archive.getnames()}


def members(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


async def test_an_archive_is_an_oci_layout_and_a_docker_archive(host: Host) -> None:
    image = await host.made(gzip.compress(layer_tar("a")), "team/app:v1")
    await host.images.tag(image.id, "team/app", "v2")
    blob = host.images.record(image.id).layers[0]
    path = await host.save("team/app", image.id)
    found = documents(path)
    assert found["oci-layout"] == {"imageLayoutVersion": "1.0.0"}
    assert found["repositories"] == {"team/app": dict.fromkeys(("v1", "v2"), image.layers[0][7:])}
    index = found["index.json"]["manifests"]
    assert [one["annotations"] for one in index] == [
        {"io.containerd.image.name": f"docker.io/team/app:{tag}", "org.opencontainers.image.ref.name": tag}
        for tag in ("v1", "v2")]
    described = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": blob,
                 "size": host.images.blobs.size(blob)}
    assert found["manifest.json"] == [{
        "Config": f"blobs/sha256/{image.id[7:]}", "RepoTags": ["team/app:v1", "team/app:v2"],
        "Layers": [f"blobs/sha256/{blob[7:]}"], "LayerSources": {image.layers[0]: described}}]
    assert sorted(members(path)) == sorted({
        "blobs", "blobs/sha256", "index.json", "manifest.json", "oci-layout", "repositories",
        *(f"blobs/sha256/{one[7:]}" for one in (blob, image.id, index[0]["digest"]))})


async def test_without_a_name_it_is_saved_without_one(host: Host, other: Host) -> None:
    image = await host.made(layer_tar("a"), "app:1")
    path = await host.save(image.id[7:19])
    assert documents(path)["manifest.json"][0]["RepoTags"] is None
    assert "repositories" not in documents(path)
    assert [(one.id, one.repo_tags) for one in await other.load(path)] == [(image.id, ())]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress], ids=["plain", "gzip", "xz"])
async def test_saved_loaded_and_saved_again_it_is_the_same(host: Host, other: Host, pack: Any) -> None:
    """Layers that OCI has no type for go out plain."""
    images = [await host.made(pack(layer_tar(name)), f"{name}:1") for name in "ab"]
    path = await host.save("a:1", "b:1")
    first = documents(path)
    loaded = await other.load(path)
    assert {image.id for image in loaded} == {image.id for image in images}
    assert documents(await other.save("a:1", "b:1")) == first
    for one in first["index.json"]["manifests"]:
        assert digest_at(f"oci-archive:{path}:{one['annotations']['org.opencontainers.image.ref.name']}")


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci"])
async def test_skopeo_takes_it_out_and_brings_it_back(host: Host, other: Host, tmp_path: Path, form: str) -> None:
    """An image whose layers are compressed: an OCI layout has them as they are, a docker-archive unpacks them."""
    image = await host.made(gzip.compress(layer_tar("a")), "team/app:v1")
    path = await host.save("team/app:v1")
    [entry] = documents(path)["index.json"]["manifests"]
    assert digest_at(f"oci-archive:{path}") == entry["digest"]
    source = f"oci-archive:{path}:v1" if form != "docker-archive" else f"docker-archive:{path}:team/app:v1"
    name = "docker.io/team/app:v1"
    if form == "oci":
        skopeo("copy", source, f"oci:{tmp_path}/layout:{name}")
        assert digest_at(f"oci:{tmp_path}/layout:{name}") == entry["digest"]
        with tarfile.open(tmp_path / "back.tar", "w") as archive:
            archive.add(tmp_path / "layout", ".")
    else:
        skopeo("copy", source, f"{form}:{tmp_path}/back.tar:{name}")
    [back] = await other.load(tmp_path / "back.tar")
    assert (back.id, other.images.resolve("team/app:v1").id) == (image.id, image.id)
    if form != "docker-archive":
        assert other.images.record(back.id).layers == host.images.record(image.id).layers
        assert other.manifest(back) == entry["digest"]
        assert documents(await other.save("team/app:v1")) == documents(path)


async def test_what_was_pulled_keeps_its_manifest(host: Host, other: Host, registry: str) -> None:
    pushed = Made(registry, "kept", [layer("a", 1000), layer("b", 1000)]).put("v1")
    image = await Puller(host.images).pull(parse(f"{registry}/kept:v1"))
    path = await host.save(f"{registry}/kept:v1")
    assert digest_at(f"oci-archive:{path}") == digest(pushed.manifest)
    [loaded] = await other.load(path)
    assert other.manifest(loaded) == host.manifest(image) == digest(pushed.manifest)
    assert loaded.id == pushed.id


async def test_what_is_for_another_platform(host: Host, other: Host) -> None:
    await host.made(layer_tar("a"), "here:1")
    far = await host.made(layer_tar("a"), "far:1", Platform("linux", "arm64"))
    path = await host.save("here:1", "far:1")
    with pytest.raises(NotFound, match="no suitable export target found for platform linux/arm64"):
        save(host.images, ["here:1"], Platform("linux", "arm64"))
    assert documents(await host.save("far:1", platform=Platform("linux", "arm64")))
    path = await host.save("here:1", "far:1")
    assert [image.id for image in await other.load(path, Platform("linux", "arm64", "v8"))] == [far.id]
    with pytest.raises(NotFound, match="linux/s390x"):
        await other.load(path, Platform("linux", "s390x"))


async def test_an_index_in_a_layout_gives_the_image_of_the_platform(host: Host, other: Host, tmp_path: Path) -> None:
    """As buildx writes them: one name, an index of platforms, and what the build says of itself."""
    made = [await host.made(gzip.compress(layer_tar("a")), f"app:{one}", Platform("linux", one))
            for one in ("amd64", "arm64")]
    saved = await host.save("app:amd64", "app:arm64")
    parts = documents(saved)["index.json"]["manifests"]
    inner = json.dumps({"schemaVersion": 2, "manifests": [
        {**{key: part[key] for key in ("mediaType", "digest", "size")},
         "platform": {"os": "linux", "architecture": image.architecture}}
        for part, image in zip(parts, made, strict=True)] + [
        {"mediaType": parts[0]["mediaType"], "digest": "sha256:" + "0" * 64, "size": 1,
         "platform": {"os": "unknown", "architecture": "unknown"}}]}).encode()
    name = hashlib.sha256(inner).hexdigest()
    outer = json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": f"sha256:{name}", "size": len(inner),
         "annotations": {"io.containerd.image.name": "docker.io/library/many:1"}}]}).encode()
    layout = tmp_path / "layout.tar"
    with tarfile.open(saved) as source, tarfile.open(layout, "w") as target:
        for member in source:
            if member.name not in ("index.json", "manifest.json"):
                target.addfile(member, source.extractfile(member))
        for member_name, content in (("index.json", outer), (f"blobs/sha256/{name}", inner)):
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            (tmp_path / "part").write_bytes(content)
            with (tmp_path / "part").open("rb") as part:
                target.addfile(member, part)
    assert [one.id for one in await other.load(layout, Platform("linux", "arm64"))] == [made[1].id]
    assert other.images.resolve("many:1").id == made[1].id


def layer_tar(name: str) -> bytes:
    return layer(name, 50_000)
