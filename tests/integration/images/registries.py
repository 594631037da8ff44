"""Debian's docker-registry as a process of a test's own, and a proxy before it that cuts, shortens and spoils."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import random
import socket
import subprocess
import tarfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import zstandard

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar+gzip": lambda plain: gzip.compress(plain, 1, mtime=0), "tar+zstd": zstandard.compress, "tar": bytes}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def docker_registry(root: Path, auth: str = "", *, tls: Path | None = None, clients: bool = True,
                    host: str = "127.0.0.1") -> Iterator[str]:
    """HOST:PORT of one that answers. `auth`: lines of YAML. `tls`: a folder with its certificate, and the authority
    that its `clients` need one of."""
    from tests.cluster import eventually

    port = free_port()
    authority = f", clientcas: ['{tls}/ca.pem']" if clients else ""
    secured = f", tls: {{certificate: '{tls}/cert.pem', key: '{tls}/key.pem'{authority}}}" if tls else ""
    config = root / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root}/store}}}}\n"
        f"http: {{addr: '{host}:{port}'{secured}}}\n{auth}")
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: answering(f"{host}:{port}"))
        yield f"{host}:{port}"
    finally:
        process.terminate()
        process.wait()


def answering(address: str) -> bool:
    host, _, port = address.partition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def layer(name: str, size: int) -> bytes:
    """A tar with one file that does not compress."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, io.BytesIO(random.Random(name).randbytes(size)))
    return target.getvalue()


class Made:
    """An image put into a registry blob by blob, without help of what is tested."""

    def __init__(self, address: str, repository: str, layers: list[bytes], *, architecture: str = "amd64",
                 oci: str = "") -> None:
        """`oci`: how its layers are packed, where it is an OCI image."""
        self.base = f"http://{address}/v2/{repository}"
        self.plain = layers
        self.blobs = [PACKERS[oci or "tar+gzip"](one) for one in layers]
        self.kind = f"{OCI}.manifest.v1+json" if oci else MANIFEST
        config_kind = f"{OCI}.config.v1+json" if oci else "application/vnd.docker.container.image.v1+json"
        layer_kind = f"{OCI}.layer.v1.{oci}" if oci else "application/vnd.docker.image.rootfs.diff.tar.gzip"
        self.config = json.dumps({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/x"]},
                                  "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]}}).encode()
        self.manifest = json.dumps({
            "schemaVersion": 2, "mediaType": self.kind,
            "config": {"mediaType": config_kind, "size": len(self.config), "digest": digest(self.config)},
            "layers": [{"mediaType": layer_kind, "size": len(one), "digest": digest(one)} for one in self.blobs],
        }).encode()

    @property
    def id(self) -> str:
        return digest(self.config)

    def put(self, tag: str = "latest", auth: str = "") -> Made:
        headers = {"Authorization": auth} if auth else {}
        for content in (self.config, *self.blobs):
            begun = urllib.request.Request(self.base + "/blobs/uploads/", method="POST", headers=headers)
            with urllib.request.urlopen(begun) as answer:
                where = answer.headers["Location"]
            _put(f"{where}&digest={digest(content)}", content, "application/octet-stream", headers)
        _put(f"{self.base}/manifests/{tag}", self.manifest, self.kind, headers)
        return self

    def put_index(self, tag: str, entries: list[tuple[Made, str]], *, oci: bool = False) -> str:
        """An index of images that are there, with their architectures (and variants, after a slash); its digest."""
        kind = f"{OCI}.index.v1+json" if oci else "application/vnd.docker.distribution.manifest.list.v2+json"
        raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [
            {"mediaType": one.kind, "size": len(one.manifest), "digest": digest(one.manifest),
             "platform": _platform(text)} for one, text in entries]}).encode()
        _put(f"{self.base}/manifests/{tag}", raw, kind, {})
        return digest(raw)


def _platform(text: str) -> dict[str, str]:
    architecture, _, variant = text.partition("/")
    system = "unknown" if architecture == "unknown" else "linux"
    return {"os": system, "architecture": architecture, **({"variant": variant} if variant else {})}


def _put(url: str, content: bytes, kind: str, headers: dict[str, str]) -> None:
    request = urllib.request.Request(url, data=content, method="PUT", headers={"Content-Type": kind, **headers})
    urllib.request.urlopen(request).close()


class Proxy:
    """Passes connections on. `cut_after`: bytes of answers after which the connection in hand breaks, each once."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.partition(":")
        self._port = int(port)
        self.cuts: list[int] = []
        self.cuts_sent: list[int] = []  # the same, of bytes on the way there
        self.sent = 0
        self.spoil = b""  # in answers, replaced by its reverse
        self.passed = 0
        self.hold: asyncio.Event | None = None  # answers stop while it is not set, once `hold_after` bytes passed
        self.hold_after = 0
        self.address = ""
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            there_reader, there = await asyncio.open_connection(self._host, self._port)
            try:
                async with asyncio.TaskGroup() as group:
                    asking = group.create_task(self._ask(reader, there))
                    await self._answer(there_reader, writer)
                    asking.cancel()
            finally:
                there.close()
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 14):
            self.sent += len(data)
            self.hear(data)
            if self.cuts_sent and self.sent >= self.cuts_sent[0]:
                self.cuts_sent.pop(0)
                raise ConnectionResetError("cut")
            there.write(data)
            await there.drain()
        there.write_eof()

    def hear(self, data: bytes) -> None:
        """Of what goes there."""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 14):
            if self.spoil:
                data = data.replace(self.spoil, self.spoil[::-1])
            self.passed += len(data)
            if self.cuts and self.passed >= self.cuts[0]:
                self.cuts.pop(0)
                writer.write(data[: len(data) // 2])
                with suppress(OSError):
                    await writer.drain()
                raise ConnectionResetError("cut")
            if self.hold is not None and self.passed >= self.hold_after:
                await self.hold.wait()
            writer.write(data)
            await writer.drain()
