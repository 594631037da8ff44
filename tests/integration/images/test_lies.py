"""Registries whose answers are not what they say: of another length, without an end, or of something else."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shoal.api.errors import ShoalError
from tests.integration.images.registries import MANIFEST, Made, digest, layer
from tests.integration.images.test_pull import Host

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="layers are unpacked by root")]

Pieces = Iterator[bytes]
ENDLESS_BYTES = 64 << 20


class Liar:
    """A registry of one image. `lies`: ends of paths → what is sent instead of the head and the body of an answer."""

    def __init__(self, made: Made) -> None:
        self.contents = {f"/blobs/{digest(one)}": one for one in (made.config, *made.blobs)}
        self.contents |= {"/manifests/latest": made.manifest, "/v2/": b"{}"}
        self.lies: dict[str, Callable[[bytes], Pieces]] = {}
        self.sent = 0
        self.address = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Liar]:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            if not first.isalpha():
                return  # TLS, which is tried before
            asked = await reader.readuntil(b"\r\n\r\n")
            path = asked.split()[1].decode()
            for end, content in self.contents.items():
                if path.endswith(end):
                    for piece in self.lies.get(end, honest)(content):
                        writer.write(piece)
                        await writer.drain()
                        self.sent += len(piece)
                    break
        except (OSError, asyncio.IncompleteReadError):  # the client has had enough
            pass
        finally:
            writer.close()


def head(length: int | None, *more: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {MANIFEST}", "Connection: close", *more]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def honest(content: bytes) -> Pieces:
    yield head(len(content)) + content


def endless(content: bytes) -> Pieces:
    """No length, and more than anybody wants."""
    yield head(None) + content
    for _ in range(ENDLESS_BYTES >> 16):
        yield bytes(1 << 16)


LIES: dict[str, Callable[[bytes], Pieces]] = {
    "shorter than it says": lambda content: iter([head(len(content)) + content[:-100]]),
    "shorter, and says so": lambda content: iter([head(len(content) - 100) + content[:-100]]),
    "longer than it says": lambda content: iter([head(len(content) - 100) + content]),
    "longer, and says so": lambda content: iter([head(len(content) + 100) + content + bytes(100)]),
    "nothing": lambda content: iter([head(0)]),
    "no answer": lambda content: iter([]),
    "something else": lambda content: iter([head(len(content)) + b"x" * len(content)]),
    "without an end": endless,
    "no HTTP": lambda content: iter([b"SSH-2.0-OpenSSH_9.2\r\n"]),
}


@pytest.mark.parametrize("what", ["blob", "config", "manifest"])
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_an_answer_that_is_not_what_it_should_be(
        tmp_path: Path, what: str, lie: Callable[[bytes], Pieces]) -> None:
    made = Made("", "lies", [layer("a", 50_000), layer("b", 50_000)])
    host = Host(tmp_path / "host")
    async with Liar(made).serving() as liar:
        liar.lies[{"blob": f"/blobs/{digest(made.blobs[1])}", "config": f"/blobs/{digest(made.config)}",
                   "manifest": "/manifests/latest"}[what]] = lie
        with pytest.raises(ShoalError) as refusal:
            await host.pull(f"{liar.address}/lies")
        assert refusal.value.message
        assert host.is_empty()
        assert liar.sent < ENDLESS_BYTES  # nobody listened to the end
        liar.lies.clear()
        assert (await host.pull(f"{liar.address}/lies")).id == made.id


def described(content: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": "application/octet-stream", "size": len(content), "digest": digest(content), **more}


@pytest.mark.parametrize("change", [
    pytest.param(lambda layers: [{**layers[0], "size": layers[0]["size"] + 1}, layers[1]], id="a shorter layer"),
    pytest.param(lambda layers: [{**layers[0], "size": layers[0]["size"] - 1}, layers[1]], id="a longer layer"),
    pytest.param(lambda layers: [{**layers[0], "size": -1}, layers[1]], id="a negative size"),
    pytest.param(lambda layers: [{**layers[0], "size": 1 << 60}, layers[1]], id="a size beyond all disks"),
    pytest.param(lambda layers: layers[::-1], id="layers in another order"),
    pytest.param(lambda layers: layers[:1], id="a layer too few"),
    pytest.param(lambda layers: [*layers, layers[0]], id="a layer too many"),
    pytest.param(lambda layers: layers * 1000, id="very many layers"),
    pytest.param(lambda layers: [{**layers[0], "digest": "sha256:../../etc"}, layers[1]], id="a path for a digest"),
    pytest.param(lambda layers: [{**layers[0], "digest": "sha512:" + "0" * 128}, layers[1]], id="another algorithm"),
    pytest.param(lambda layers: "layers", id="no list"),
])
async def test_a_manifest_that_lies(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    made = Made("", "lies", [layer("a", 50_000), layer("b", 60_000)])
    made.manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": described(made.config),
        "layers": change([described(one) for one in made.blobs])}).encode()
    host = Host(tmp_path / "host")
    async with Liar(made).serving() as liar:
        with pytest.raises(ShoalError) as refusal:
            await host.pull(f"{liar.address}/lies")
        assert refusal.value.message
    assert host.is_empty()


async def test_a_media_type_says_nothing_about_the_bytes(tmp_path: Path) -> None:
    """Gzip that is called zstd is what it is."""
    made = Made("", "lies", [layer("a", 50_000)])
    made.manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": described(made.config), "layers": [
            described(one, mediaType="application/vnd.oci.image.layer.v1.tar+zstd") for one in made.blobs]}).encode()
    host = Host(tmp_path / "host")
    async with Liar(made).serving() as liar:
        assert (await host.pull(f"{liar.address}/lies")).id == made.id
