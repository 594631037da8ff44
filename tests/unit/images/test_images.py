"""The store of images: what gets in, what is refused, what a crash leaves."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import msgspec
import pytest
import zstandard

from shoal.api.errors import Conflict, InvalidArgument, NotFound
from shoal.engine.images.config import HistoryEntry
from shoal.engine.images.export import save
from shoal.engine.images.images import Images
from shoal.engine.images.importer import Imported
from shoal.engine.images.removal import ImageUser, Removal
from shoal.engine.storage.driver import chain_ids
from shoal.engine.storage.overlay2 import Overlay2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")


class Host:
    """A store in a folder, opened again at will."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.users: list[ImageUser] = []
        self.events: list[tuple[str, str]] = []
        self.open()

    def open(self) -> None:
        self.driver = Overlay2(self.root / "overlay2")
        self.images = Images(
            self.root / "images",
            self.driver,
            users=lambda image_id: self.users,
            emit=lambda action, image_id, attributes: self.events.append((action, attributes.get("name", ""))),
        )

    def layers(self) -> set[str]:
        return set(self.driver.layers())

    def blobs(self) -> set[str]:
        return set(self.images.blobs.digests())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def tar_of(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def docker_archive(layers: list[bytes], tags: list[str], *, diff_ids: list[str] | None = None) -> bytes:
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/x"], "Env": None},
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [digest(layer) for layer in layers]},
        }
    ).encode()
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": tags, "Layers": names}]).encode()
    return tar_of({"config.json": config, **dict(zip(names, layers, strict=True)), "manifest.json": manifest})


def oci_archive(blob: bytes, plain: bytes, *, layer_digest: str = "", layer_bytes: int = -1) -> bytes:
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [digest(plain)]}}).encode()
    layer = {"digest": layer_digest or digest(blob), "size": len(blob) if layer_bytes < 0 else layer_bytes}
    manifest = json.dumps({"schemaVersion": 2, "config": described(config), "layers": [layer]}).encode()
    name = {"io.containerd.image.name": "docker.io/library/oci:v1"}
    index = json.dumps({"schemaVersion": 2, "manifests": [{**described(manifest), "annotations": name}]}).encode()
    members = {"oci-layout": b"{}", "index.json": index}
    for content in (config, manifest, blob):
        named = layer_digest if layer_digest and content is blob else digest(content)
        members["blobs/sha256/" + named[-64:]] = content
    return tar_of(members)


def described(content: bytes) -> dict[str, object]:
    return {"digest": digest(content), "size": len(content)}


def on_disk(host: Host, content: bytes) -> Path:
    path = host.root / f"archive-{len(content)}"
    path.write_bytes(content)
    return path


A, B = tar_of({"a": b"1" * 10}), tar_of({"b": b"2" * 20})


async def test_import_gives_config_and_name(host: Host) -> None:
    image = await host.images.import_rootfs(
        on_disk(host, A), changes=['CMD ["/a"]'], repository="busybox", comment="why"
    )
    assert image.config.cmd == ("/a",)
    assert image.repo_tags == ("busybox:latest",)
    assert image.layers == (digest(A),)
    assert image.size == 10
    assert host.images.resolve("docker.io/library/busybox") == image
    assert host.images.resolve(image.id) == image
    assert host.images.resolve(image.id[7:19]) == image
    assert host.events == [("import", image.id)]


async def test_a_bad_change_leaves_nothing(host: Host) -> None:
    with pytest.raises(InvalidArgument):
        await host.images.import_rootfs(on_disk(host, A), changes=["RUN x"], repository="busybox")
    assert (host.images.all(), host.layers(), host.blobs()) == ([], set(), set())


async def test_load_of_two_layers(host: Host) -> None:
    loaded = await host.images.load(on_disk(host, docker_archive([A, B], ["app:1", "me/app:2"])))
    image = host.images.resolve("app:1")
    assert [tag.familiar for item, _ in loaded for tag in item.tags] == ["app:1", "me/app:2"]
    assert image.repo_tags == ("app:1", "me/app:2")
    assert image.size == 30
    assert host.layers() == set(chain_ids([digest(A), digest(B)]))


@pytest.mark.parametrize("kind", ["gzip", "zstd", "plain"])
async def test_load_of_an_oci_layout(host: Host, kind: str) -> None:
    import gzip

    pack = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress, "plain": bytes}[kind]
    packed = pack(A)
    await host.images.load(on_disk(host, oci_archive(packed, A)))
    assert host.images.resolve("oci:v1").layers == (digest(A),)
    assert digest(packed) in host.blobs()  # as it came, for peers


@pytest.mark.parametrize("archive", [docker_archive([b""], ["oci:v1"]), oci_archive(b"", b"")], ids=["docker", "oci"])
async def test_load_of_a_layer_of_no_bytes(host: Host, archive: bytes) -> None:
    await host.images.load(on_disk(host, archive))
    image = host.images.resolve("oci:v1")
    assert (image.layers, image.size) == ((digest(b""),), 0)


async def test_a_compressed_archive(host: Host) -> None:
    import gzip

    await host.images.load(on_disk(host, gzip.compress(docker_archive([A], ["app"]))))
    assert host.images.resolve("app").size == 10


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(docker_archive([A], ["app"], diff_ids=[digest(B)]), id="a diff id that is not the layer's"),
        pytest.param(docker_archive([A, B], ["app"], diff_ids=[digest(A)]), id="more layers than diff ids"),
        pytest.param(docker_archive([A], ["Not A Name"]), id="a bad name"),
        pytest.param(docker_archive([A[:700]], ["app"]), id="a truncated layer"),
        pytest.param(oci_archive(A, A, layer_digest=digest(B)), id="a blob that is not its digest"),
        pytest.param(oci_archive(A, A, layer_bytes=len(A) - 1), id="a blob that is longer than was said"),
        pytest.param(oci_archive(A, A, layer_bytes=len(A) + 1), id="a blob that is shorter than was said"),
        pytest.param(docker_archive([A], ["app"], diff_ids=["../../etc"]), id="a diff id that is a path"),
        pytest.param(oci_archive(b"\x1f\x8bgarbage", A), id="a layer that is no gzip"),
        pytest.param(tar_of({"x": b""}), id="neither kind of archive"),
        pytest.param(tar_of({"manifest.json": b"{"}), id="a manifest that is no JSON"),
        pytest.param(tar_of({"manifest.json": b'[{"Config":"../../etc/passwd"}]'}), id="a missing member"),
        pytest.param(b"garbage" * 1000, id="no tar"),
        pytest.param(b"", id="nothing"),
        pytest.param(docker_archive([A], ["app"])[:1500], id="cut off"),
    ],
)
async def test_refused_and_nothing_stays(host: Host, archive: bytes) -> None:
    with pytest.raises(InvalidArgument):
        await host.images.load(on_disk(host, archive))
    assert host.images.all() == []
    assert list(host.images.blobs.scratch.iterdir()) == []
    assert (host.layers(), host.blobs()) == (set(), set())


@pytest.mark.parametrize("lie", [b"", b"abc", B])
async def test_a_layer_that_is_here_is_verified_when_it_comes_again(host: Host, lie: bytes) -> None:
    await host.images.load(on_disk(host, docker_archive([A], ["app"])))
    kept = host.layers(), host.blobs()
    with pytest.raises(InvalidArgument, match="digest mismatch"):
        await host.images.load(on_disk(host, docker_archive([lie], ["lie"], diff_ids=[digest(A)])))
    assert (host.layers(), host.blobs()) == kept
    assert not host.images.has("lie")


async def test_of_many_layers_one_is_wrong(host: Host) -> None:
    """They come side by side: none stays."""
    layers = [tar_of({f"file-{number}": b"x" * 100_000}) for number in range(8)]
    wrong = [digest(layer) for layer in layers]
    wrong[5] = digest(A)
    with pytest.raises(InvalidArgument, match="digest mismatch"):
        await host.images.load(on_disk(host, docker_archive(layers, ["app"], diff_ids=wrong)))
    assert (host.layers(), host.blobs()) == (set(), set())
    assert list(host.images.blobs.scratch.iterdir()) == []
    await host.images.load(on_disk(host, docker_archive(layers, ["app"])))
    assert len(host.layers()) == len(layers)


async def test_what_a_crash_left_is_swept_and_what_is_named_stays(host: Host) -> None:
    await host.images.load(on_disk(host, docker_archive([A], ["app"])))
    kept = host.layers(), host.blobs()
    host.images.blobs.put(b"a blob without an owner")
    host.driver.add_layer(digest(B), io.BytesIO(B))
    (host.root / "overlay2/layers/tmp-1-x/diff").mkdir(parents=True)
    (host.images.blobs.scratch / "half").write_bytes(b"half")
    host.open()
    assert (host.layers(), host.blobs()) == kept
    assert host.images.resolve("app").size == 10
    assert list(host.images.blobs.scratch.iterdir()) == []
    assert not (host.root / "overlay2/layers/tmp-1-x").exists()


async def test_a_tag_moves(host: Host) -> None:
    await host.images.load(on_disk(host, docker_archive([A], ["app"])))
    first = host.images.resolve("app")
    await host.images.load(on_disk(host, docker_archive([B], ["app"])))
    assert host.images.resolve("app").id != first.id
    assert host.images.resolve(first.id).repo_tags == ()


async def test_the_last_name_takes_the_image_along(host: Host) -> None:
    await host.images.load(on_disk(host, docker_archive([A, B], ["app"])))
    image = host.images.resolve("app")
    await host.images.tag("app", "other/name", "v1")
    assert await host.images.remove("app") == [Removal(untagged="app:latest")]
    removals = await host.images.remove("other/name:v1")
    assert removals[:2] == [Removal(untagged="other/name:v1"), Removal(deleted=image.id)]
    assert (host.layers(), host.blobs()) == (set(), set())
    with pytest.raises(NotFound):
        host.images.resolve("app")


async def test_shared_layers_stay(host: Host) -> None:
    await host.images.load(on_disk(host, docker_archive([A, B], ["both"])))
    await host.images.load(on_disk(host, docker_archive([A], ["one"])))
    await host.images.remove("both")
    assert host.layers() == {digest(A)}
    assert digest(A) in host.blobs()


async def test_by_id_with_two_names_needs_force(host: Host) -> None:
    await host.images.load(on_disk(host, docker_archive([A], ["app:1", "app:2"])))
    image = host.images.resolve("app:1")
    with pytest.raises(Conflict, match="must be forced"):
        await host.images.remove(image.id[7:19])
    await host.images.remove(image.id, force=True)
    assert host.images.all() == []


async def test_an_image_in_use_stays(host: Host) -> None:
    await host.images.load(on_disk(host, docker_archive([A], ["app"])))
    image = host.images.resolve("app")
    host.users = [ImageUser("c" * 64, running=True)]
    with pytest.raises(Conflict, match="container cccccccccccc is using its referenced image"):
        await host.images.remove("app")
    with pytest.raises(Conflict, match="cannot be forced"):
        await host.images.remove(image.id, force=True)
    assert await host.images.remove("app", force=True) == [Removal(untagged="app:latest")]
    assert host.images.resolve(image.id).repo_tags == ()
    host.users = [ImageUser("c" * 64, running=False)]
    with pytest.raises(Conflict, match="must be forced"):
        await host.images.remove(image.id)
    assert await host.images.prune() == ([], 0)
    host.users = []
    assert (await host.images.prune())[1] == 10
    assert host.images.all() == []


async def test_saved_and_loaded_again(host: Host, tmp_path: Path) -> None:
    await host.images.load(on_disk(host, docker_archive([A, B], ["app:1"])))
    image = host.images.resolve("app:1")
    saved = b"".join([chunk async for chunk in save(host.images, ["app:1"])])
    other = Host(tmp_path / "other")
    await other.images.load(on_disk(other, saved))
    assert other.images.resolve("app:1").id == image.id
    with pytest.raises(NotFound):
        save(host.images, ["app:1", "missing"])


async def test_the_index_survives(host: Host) -> None:
    await host.images.load(on_disk(host, docker_archive([A, B], ["app:1"])))
    before = host.images.all()
    host.open()
    assert host.images.all() == before


async def test_what_is_made_on_a_private_image_is_private(host: Host) -> None:
    base = (await host.images.load(on_disk(host, docker_archive([A], ["base:1"]))))[0][0]
    one = await host.images.commit(on_disk(host, B), base.image.id, base.image.config)
    assert not host.images.record(one.id).private
    await host.images.add(Imported(base.image, msgspec.structs.replace(base.record, private=True)))
    await host.images.load(on_disk(host, docker_archive([A], ["base:1"])))
    assert host.images.record(base.image.id).private  # that it came again changes nothing
    other = await host.images.commit(on_disk(host, B), base.image.id, base.image.config, comment="another")
    step = await host.images.extend(other.id, msgspec.structs.replace(other, author="me"), None, cache_key="step")
    borrowed = msgspec.structs.replace(base.image, author="me", history=(HistoryEntry(created_by="x"),))
    same = await host.images.extend_as("", borrowed, base.image.id, cache_key="as")
    assert [host.images.record(image.id).private for image in (one, other, step, same)] == [False, True, True, True]


@pytest.mark.parametrize("text", ["missing", "sha256:" + "0" * 64, "0" * 64, "sha256:00", "missing@sha256:" + "0" * 64])
async def test_not_found(host: Host, text: str) -> None:
    with pytest.raises(NotFound, match="No such image: "):
        host.images.resolve(text)
