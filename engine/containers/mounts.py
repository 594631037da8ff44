"""The mounts of a container: resolved when it is made, made ready when it starts.

`Mounts.resolve` decides what is mounted where (and makes the volumes); `ready`
says it in OCI's words, once the root is there to fill empty volumes from.
"""

from __future__ import annotations

import os
import posixpath
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.containers.nouns import Container, ContainerConfig, HostConfig, MountPoint, MountRequest
from shoal.engine.containers.volumes import Volumes
from shoal.engine.storage.mount import open_in_root

PROPAGATIONS = ("", "private", "rprivate", "shared", "rshared", "slave", "rslave")
TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")


class Mounts:
    """`find` gives the container that --volumes-from names."""

    def __init__(self, volumes: Volumes, find: Callable[[str], Container]) -> None:
        self._volumes = volumes
        self._find = find

    async def resolve(self, config: ContainerConfig, host: HostConfig) -> tuple[MountPoint, ...]:
        """What will be mounted. Makes the volumes that are missing. Raises ShoalError."""
        for request in host.mounts:
            check(request)
        _refuse_duplicates(host.mounts)
        points: dict[str, MountPoint] = {}
        for reference in host.volumes_from:
            for point in self._borrowed(reference):
                points[point.target] = point
        for request in host.mounts:
            target = clean(request.target)
            points[target] = await self._resolve(request, target)
        for path in config.volumes:
            target = clean(path)
            if target not in points:
                points[target] = await self._volume(MountRequest(type="volume", target=target), target)
        return tuple(points[target] for target in sorted(points))

    def _borrowed(self, reference: str) -> Iterable[MountPoint]:
        name, _, mode = reference.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidArgument(f'invalid mode for volumes-from: {mode}')
        for point in self._find(name).mounts:
            if point.type != "tmpfs":
                yield msgspec.structs.replace(point, writable=point.writable and mode != "ro", anonymous=False)

    async def _resolve(self, request: MountRequest, target: str) -> MountPoint:
        if request.type == "volume":
            return await self._volume(request, target)
        if request.type == "tmpfs":
            return MountPoint(type="tmpfs", target=target, writable=not request.read_only, request=request)
        _bind_source(request)
        return MountPoint(type="bind", target=target, source=request.source, writable=not request.read_only,
                          mode=",".join(request.options), propagation=request.propagation or "rprivate",
                          request=request)

    async def _volume(self, request: MountRequest, target: str) -> MountPoint:
        volume = await self._volumes.create(request.source, driver=request.volume_driver or "local",
                                            options=request.volume_options, labels=request.volume_labels)
        return MountPoint(type="volume", target=target, source=volume.mountpoint, name=volume.name,
                          driver=volume.driver, mode=",".join(request.options), writable=not request.read_only,
                          anonymous=not request.source, request=request)

    # --- at a start; these block ---

    def ready(self, points: Iterable[MountPoint], root: Path) -> list[dict[str, Any]]:
        """OCI mounts, outer before inner. Volumes are mounted and, where empty, filled from the image."""
        return [self._ready(point, root) for point in sorted(points, key=lambda point: point.target.count("/"))]

    def _ready(self, point: MountPoint, root: Path) -> dict[str, Any]:
        if point.type == "tmpfs":
            return _tmpfs(point)
        request = point.request or MountRequest(target=point.target)
        source = point.source
        if point.type == "volume":
            source = str(self._volumes.mount(point.name))
            if not request.no_copy and not request.subpath:
                fill(Path(source), root, point.target)
            if request.subpath:
                source = _subpath(source, request.subpath)
        elif point.request is not None:
            _bind_source(point.request)
        options = ["bind" if request.non_recursive else "rbind", point.propagation or "rprivate"]
        if not point.writable:
            options.append("ro")
        return {"destination": point.target, "type": "bind", "source": source, "options": options}


    def holds_file_systems(self, container: Container) -> bool:
        """Whether some volume of it is a file system that is mounted while it is used."""
        return any(point.type == "volume" and self._volumes.is_file_system(point.name) for point in container.mounts)

    def release(self, container: Container, running: Iterable[Container]) -> None:
        """Unmount what only this container used. Blocking."""
        needed = {point.name for other in running for point in other.mounts}
        self._volumes.unmount({point.name for point in container.mounts if point.type == "volume"} - needed)


def check(request: MountRequest) -> None:
    """Raises InvalidArgument in Docker's words."""
    prefix = f'invalid mount config for type "{request.type}"'
    if request.type not in ("bind", "volume", "tmpfs"):
        raise InvalidArgument(f"mount type unknown: \"{request.type}\"")
    if not request.target:
        raise InvalidArgument(f"{prefix}: field Target must not be empty")
    if not request.target.startswith("/"):
        raise InvalidArgument(f"{prefix}: invalid mount path: '{request.target}' mount path must be absolute")
    if clean(request.target) == "/":
        raise InvalidArgument(f"{prefix}: invalid specification: destination can't be '/'")
    if request.type == "bind":
        if not request.source:
            raise InvalidArgument(f"{prefix}: field Source must not be empty")
        if not request.source.startswith("/"):
            raise InvalidArgument(
                f"{prefix}: invalid mount path: '{request.source}' mount path must be absolute")
        if request.propagation not in PROPAGATIONS:
            raise InvalidArgument(f"{prefix}: invalid propagation mode: {request.propagation}")
    if request.type == "tmpfs" and request.source:
        raise InvalidArgument(f"{prefix}: field Source must not be specified")


def _bind_source(request: MountRequest) -> None:
    """Make the folder that is bound, where that was asked for. Raises InvalidArgument where it is missing."""
    source = Path(request.source)
    if source.exists():
        return
    if not request.create_source:
        raise InvalidArgument(
            f'invalid mount config for type "bind": bind source path does not exist: {request.source}')
    source.mkdir(mode=0o755, parents=True, exist_ok=True)


def clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def _refuse_duplicates(requests: Iterable[MountRequest]) -> None:
    seen: set[str] = set()
    for request in requests:
        target = clean(request.target)
        if target in seen:
            raise InvalidArgument(f"Duplicate mount point: {target}")
        seen.add(target)


def _tmpfs(point: MountPoint) -> dict[str, Any]:
    request = point.request or MountRequest(target=point.target)
    given = list(request.options)
    opposites = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
    overridden = {opposites.get(option, "") for option in given}
    options = [option for option in TMPFS_DEFAULTS if option not in overridden and option not in given] + given
    if request.tmpfs_size_bytes:
        options.append(f"size={request.tmpfs_size_bytes}")
    if request.tmpfs_mode:
        options.append(f"mode={request.tmpfs_mode:o}")
    if not point.writable:
        options.append("ro")
    return {"destination": point.target, "type": "tmpfs", "source": "tmpfs", "options": options}


def _subpath(source: str, subpath: str) -> str:
    """A folder inside a volume; never outside, whatever links are in it."""
    root_fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
    try:
        found = open_in_root(root_fd, subpath.encode(), os.O_PATH)
    except OSError as error:
        raise InvalidArgument(f"cannot access path {source}/{subpath}: {error.strerror}") from error
    finally:
        os.close(root_fd)
    try:
        return os.readlink(f"/proc/self/fd/{found}")  # noqa: PTH115
    finally:
        os.close(found)


def fill(volume: Path, root: Path, target: str) -> None:
    """Copy what the image has at `target` into the volume, if that is empty."""
    if any(volume.iterdir()):
        return
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        source = open_in_root(root_fd, target.lstrip("/").encode() or b".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return  # the image has nothing there
    finally:
        os.close(root_fd)
    try:
        done = subprocess.run(["cp", "-a", f"/proc/self/fd/{source}/.", str(volume)], capture_output=True, text=True,
                              pass_fds=(source,), timeout=600)
        if done.returncode:
            raise ShoalError(f"cannot copy {target} of the image into volume {volume.parent.name}: {done.stderr}")
    finally:
        os.close(source)
