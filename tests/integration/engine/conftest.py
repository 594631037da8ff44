"""An engine on roots of its own, with a busybox image; whatever happens, nothing of it is left."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from shoal.api.sandbox import EndpointRequest, Sandbox, SandboxRequest
from shoal.engine.containers.engine import Engine
from shoal.engine.containers.nouns import ContainerConfig, HostConfig, LogQuery
from shoal.engine.images.images import Images
from shoal.engine.storage.mount import mount, unmount
from shoal.engine.storage.overlay2 import Overlay2
from shoal.engine.storage.rootfs import RootFSStore

IMAGE = "busybox:latest"
DEADLINE_S = 20.0
_CLONE_NEWNET = 0x40000000


@pytest.fixture(scope="session")
def image_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A docker-archive with /bin/busybox and its applets."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "data"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\nweb:x:1000:\nextra:x:2000:web\n")
        _add(tar, "data/seed", b"from the image\n")
        _add(tar, "bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
        listed = subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split()
        for applet in set(listed) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    content = layer.getvalue()
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
    }).encode()
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    path = tmp_path_factory.mktemp("image") / "image.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in (("config.json", config), ("layer.tar", content),
                           ("manifest.json", json.dumps(manifest).encode())):
            _add(archive, name, data)
    return path


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


class OwnNamespaces:
    """Implements `Networking`: each container a network namespace of its own, with nothing in it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._up: dict[str, Sandbox] = {}
        root.mkdir(exist_ok=True)
        for path in root.iterdir():
            self._up[path.name] = self._sandbox(path.name, str(path))

    def _sandbox(self, container_id: str, netns: str) -> Sandbox:
        return Sandbox(container_id=container_id, netns=netns, hosts="127.0.0.1\tlocalhost\n",
                       resolv_conf="nameserver 192.0.2.53\n")

    async def up(self, request: SandboxRequest) -> Sandbox:
        if request.container_id not in self._up:
            path = self._root / request.container_id
            if request.mode == "host":
                return self._sandbox(request.container_id, "")
            await asyncio.to_thread(_make_namespace, path)
            self._up[request.container_id] = self._sandbox(request.container_id, str(path))
        return self._up[request.container_id]

    async def down(self, container_id: str) -> None:
        if self._up.pop(container_id, None) is not None:
            unmount(self._root / container_id)
            (self._root / container_id).unlink()

    def sandbox(self, container_id: str) -> Sandbox | None:
        return self._up.get(container_id)

    async def connect(self, container_id: str, endpoint: EndpointRequest) -> Sandbox:
        return self._up[container_id]

    async def disconnect(self, container_id: str, network: str) -> Sandbox:
        return self._up[container_id]


def _make_namespace(path: Path) -> None:
    path.touch()

    def make() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        mount("/proc/thread-self/ns/net", path, "", 4096)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()


class Host:
    """The roots of one host, and the engines that run on them, one after the other."""

    def __init__(self, root: Path, parent: str = "") -> None:
        self.root = root
        self.parent = parent or f"/shoal-test-{os.getpid()}-{root.name}"
        self.engine: Engine

    async def boot(self) -> Engine:
        """A new engine on these roots. The one before is forgotten, not closed: as after a SIGKILL."""
        driver = Overlay2(self.root / "data/overlay2")
        self.images = Images(self.root / "data/images", driver)
        self.networking = OwnNamespaces(self.root / "netns")
        self.engine = Engine(
            data_root=self.root / "data", run_root=self.root / "run", images=self.images,
            rootfs=RootFSStore(driver, self.images.layers_of), networking=self.networking, cgroup_parent=self.parent)
        await self.engine.open()
        return self.engine

    async def create(self, *command: str, name: str = "", host: HostConfig | None = None,
                     **config: object) -> str:
        asked = ContainerConfig(image=IMAGE, command=command, **config)  # type: ignore[arg-type]
        return (await self.engine.create(name, asked, host or HostConfig())).id

    async def run(self, *command: str, host: HostConfig | None = None, **config: object) -> tuple[int, bytes, bytes]:
        """Run to the end: exit code, stdout, stderr. The container stays."""
        container_id = await self.create(*command, host=host, **config)
        attachment = await self.engine.attach(container_id)
        ended = self.engine.wait(container_id, "next-exit")
        await self.engine.start(container_id)
        output = await drain(attachment)
        return (await ended).exit_code, output[1], output[2]

    async def logs(self, container_id: str, **query: object) -> bytes:
        return b"".join([line async for _, line in self.engine.logs(container_id, LogQuery(**query))])  # type: ignore

    async def until(self, check: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not check():
            assert time.monotonic() < deadline, f"not in {DEADLINE_S} s: {what}"
            await asyncio.sleep(0.01)

    async def clean(self) -> None:
        """Whatever a failed test left."""
        with suppress(Exception):
            await self.engine.close()
        if self.leftovers():
            await self.boot()
            for container in self.engine.all():
                with suppress(Exception):
                    await self.engine.remove(container.id, force=True, volumes=True)
            await self.engine.close()

    def leftovers(self) -> list[str]:
        """Mounts, cgroups, processes and bundles of containers."""
        found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{self.root}/" in line]
        for root in Path("/sys/fs/cgroup").iterdir():
            found += [str(path) for path in (root / self.parent[1:]).glob("*") if path.is_dir()]
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if f"{self.root}/".encode() in entry.read_bytes():
                    found.append(str(entry))
        found += [str(path) for folder in ("run/containers", "run/runtime", "run/execs", "data/containers")
                  for path in (self.root / folder).glob("*")]
        return found


async def drain(attachment: object) -> dict[int, bytes]:
    """What is left to read of an attachment, by stream."""
    output = {1: b"", 2: b""}
    async with asyncio.timeout(DEADLINE_S):
        while (chunk := await attachment.read()) is not None:  # type: ignore[attr-defined]
            output[chunk[0]] += chunk[1]
    return output


@pytest.fixture
async def host(tmp_path: Path, image_tar: Path) -> AsyncIterator[Host]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Host(tmp_path)
    await made.boot()
    await made.images.load(image_tar)
    try:
        yield made
        for container in made.engine.all():
            await made.engine.remove(container.id, force=True, volumes=True)
        assert made.leftovers() == []
    finally:
        await made.clean()
        for root in Path("/sys/fs/cgroup").iterdir():
            with suppress(OSError):
                (root / made.parent[1:]).rmdir()
        shutil.rmtree(tmp_path, ignore_errors=True)
