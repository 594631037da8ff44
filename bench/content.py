"""The images that the images' rows move about: made from a fixed seed, each in every form that is measured.

    <folder>/context/        what it is built from: a Dockerfile, and one folder for each layer
    <folder>/archive.tar     as `docker save` writes it
    <folder>/root.tar        its files alone, for `docker import`
    <store>                  its repository, in the layout of Docker's own registry
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_CREATED = "2026-01-01T00:00:00Z"
_POOL_BYTES = 4 << 20
_BLOCK_BYTES = 64 << 10
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True)
class Kind:
    """`repeat`: how often each of its measurements is taken."""

    title: str
    layers: int
    files: int  # of each layer
    file_bytes: int
    repeat: int

    @property
    def many_files(self) -> bool:
        return self.layers * self.files > 5000

    @property
    def repository(self) -> str:
        return f"bench/{self.layers}x{self.files}x{self.file_bytes}"


LARGE = Kind("1 GB in 4 layers", 4, 10, 25_000_000, 1)
KINDS = [
    Kind("100 MB in 8 layers", 8, 25, 500_000, 3),
    Kind("20 layers of 500 small files", 20, 500, 2_000, 2),
    LARGE,
]


@dataclass(frozen=True)
class Made:
    kind: Kind
    context: Path
    archive: Path
    root: Path


def make(kind: Kind, base: str, folder: Path, store: Path) -> Made:
    """`base`: the image that a build starts from."""
    made = Made(kind, folder / "context", folder / "archive.tar", folder / "root.tar")
    make_context(kind, base, made.context)
    with tarfile.open(made.root, "w") as tar:
        tar.add(made.context, ".")
    with ThreadPoolExecutor(2) as pool:
        layers = list(pool.map(lambda layer: _layer(made.context, layer), range(kind.layers)))
    _archive(made.archive, f"{kind.repository}:loaded", layers)
    with ThreadPoolExecutor(2) as pool:
        _publish(store, kind.repository, layers, list(pool.map(_packed, layers)))
    return made


def make_context(kind: Kind, base: str, context: Path) -> None:
    """Half of all content is random, half is words."""
    chance = random.Random(kind.title)
    words = b" ".join(b"%x" % chance.randrange(4096) for _ in range(_POOL_BYTES // 4))[:_POOL_BYTES]
    noise = chance.randbytes(_POOL_BYTES)
    for layer in range(kind.layers):
        place = context / f"layer-{layer}"
        place.mkdir(parents=True)
        for number in range(kind.files):
            (place / f"file-{number}").write_bytes(_content(kind.file_bytes, chance, words, noise))
    copies = "".join(f"COPY layer-{layer} /layer-{layer}\n" for layer in range(kind.layers))
    (context / "Dockerfile").write_text(f"FROM {base}\n{copies}RUN touch /built\n")


def _content(size: int, chance: random.Random, words: bytes, noise: bytes) -> bytes:
    """Blocks of either, from anywhere in what there is of it."""
    block, output = min(_BLOCK_BYTES, size // 2), bytearray()
    while len(output) < size:
        for source in (words, noise):
            start = chance.randrange(_POOL_BYTES - block)
            output += source[start:start + block]
    return bytes(output[:size])


def _layer(context: Path, number: int) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(context / f"layer-{number}", f"layer-{number}", filter=_timeless)
    return output.getvalue()


def _timeless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = 1_767_225_600
    return member


def _packed(layer: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(layer) + packer.flush()


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _config(layers: list[bytes]) -> bytes:
    history = [{"created": _CREATED, "created_by": "bench"} for _ in layers]
    return json.dumps({
        "architecture": "amd64", "os": "linux", "created": _CREATED, "config": {"Cmd": ["sh"]}, "history": history,
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
    }).encode()


def _archive(place: Path, name: str, layers: list[bytes]) -> None:
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": names}]).encode()
    with tarfile.open(place, "w") as tar:
        for path, content in zip(["config.json", *names, "manifest.json"], [_config(layers), *layers, manifest],
                                 strict=True):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _publish(store: Path, repository: str, layers: list[bytes], packed: list[bytes]) -> None:
    """Put the image into a registry's store, as `latest`. Source: distribution, registry/storage/paths.go."""
    config = _config(layers)
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "size": len(config), "digest": _digest(config)},
        "layers": [{"mediaType": _LAYER, "size": len(one), "digest": _digest(one)} for one in packed],
    }).encode()
    home = store / "docker/registry/v2"
    own = home / "repositories" / repository
    for content in (config, *packed, manifest):
        digits = _digest(content).removeprefix("sha256:")
        data = home / "blobs/sha256" / digits[:2] / digits / "data"
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_bytes(content)
        kind = "_manifests/revisions" if content is manifest else "_layers"
        _link(own / kind / "sha256" / digits, content)
    for place in ("current", f"index/sha256/{_digest(manifest).removeprefix('sha256:')}"):
        _link(own / "_manifests/tags/latest" / place, manifest)


def _link(place: Path, content: bytes) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "link").write_text(_digest(content))
