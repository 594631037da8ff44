"""The mounts of a container: resolved and filled when it is made, made ready when it starts.

`Mounts.resolve` decides what is mounted where (and makes the volumes), `fill` copies
into empty ones what the image has there; `open` mounts them, and `ready` says it all in
OCI's words.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.nouns import Container, ContainerConfig, HostConfig, MountPoint, MountRequest
from shoal.engine.storage.rootfs import RootFSStore
from shoal.engine.volumes import content
from shoal.engine.volumes.volumes import Volumes

PROPAGATIONS = ("", "private", "rprivate", "shared", "rshared", "slave", "rslave")
EmitVolume = Callable[[str, str, dict[str, str]], None]
TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")


class Mounts:
    """`find` gives the container that --volumes-from names, `image_of` the id of an image by a reference.

    `emit` tells of volumes mounted and unmounted.
    """

    def __init__(self, volumes: Volumes, rootfs: RootFSStore, *, find: Callable[[str], Container],
                 image_of: Callable[[str], str], emit: EmitVolume) -> None:
        self._volumes = volumes
        self._rootfs = rootfs
        self._find = find
        self._image_of = image_of
        self._emit = emit

    async def resolve(self, config: ContainerConfig, host: HostConfig, claim: str) -> tuple[MountPoint, ...]:
        """What will be mounted. Makes the volumes that are missing, and claims them (`Volumes.settle`).

        Raises ShoalError; then what it has claimed is to be abandoned (`Volumes.abandon`).
        """
        for request in host.mounts:
            check(request)
        _refuse_duplicates(host.mounts)
        points: dict[str, MountPoint] = {}
        for reference in host.volumes_from:
            for point in self._borrowed(reference):
                points[point.target] = point
        for request in host.mounts:
            target = clean(request.target)
            points[target] = await self._resolve(request, target, claim)
        for path in config.volumes:
            target = clean(path)
            if target not in points:
                request = MountRequest(type="volume", target=target, volume_driver=host.volume_driver)
                points[target] = await self._volume(request, target, claim)
        return tuple(points[target] for target in sorted(points))

    def _borrowed(self, reference: str) -> Iterable[MountPoint]:
        name, _, mode = reference.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidArgument(f'invalid mode for volumes-from: {mode}')
        for point in self._find(name).mounts:
            if point.type != "tmpfs":
                request = point.request and msgspec.structs.replace(point.request, no_copy=True)  # it has been filled
                yield msgspec.structs.replace(
                    point, writable=point.writable and mode != "ro", anonymous=False, request=request)

    async def _resolve(self, request: MountRequest, target: str, claim: str) -> MountPoint:
        if request.type == "volume":
            return await self._volume(request, target, claim)
        if request.type == "image":
            return MountPoint(type="image", target=target, name=request.source, writable=False, request=request,
                              image_id=self._image_of(request.source))
        if request.type == "tmpfs":
            return MountPoint(type="tmpfs", target=target, writable=not request.read_only, request=request)
        _bind_source(request)
        return MountPoint(type="bind", target=target, source=request.source, writable=not request.read_only,
                          mode=",".join(request.options), propagation=request.propagation or "rprivate",
                          request=request)

    async def _volume(self, request: MountRequest, target: str, claim: str) -> MountPoint:
        volume = await self._volumes.create(request.source, driver=request.volume_driver, claim=claim,
                                            options=request.volume_options, labels=request.volume_labels)
        return MountPoint(type="volume", target=target, source=volume.mountpoint, name=volume.name,
                          driver=volume.driver, mode=",".join(request.options), writable=not request.read_only,
                          anonymous=not request.source, request=request)

    # --- filled, once ---

    def to_fill(self, points: Iterable[MountPoint]) -> list[MountPoint]:
        """The volumes that get what the image has in their place, if they are empty."""
        return [point for point in points if point.type == "volume" and point.request is not None
                and not point.request.no_copy and not point.request.subpath]

    async def fill(self, points: Iterable[MountPoint], root: Path, holder: str) -> None:
        """Raises ShoalError."""
        try:
            for point in points:
                volume = await self._volumes.mounting.mount(point.name, holder)
                await content.fill(volume, root, point.target, foreign=self._volumes.mounting.foreign(point.name))
        finally:
            await self._volumes.mounting.release(holder)

    # --- at a start ---

    async def open(self, points: Iterable[MountPoint], holder: str) -> dict[str, str]:
        """Mount what is to be mounted first: target → what is bound there. Raises ShoalError; `close` in any case."""
        sources = {}
        for point in points:
            if point.type == "volume":
                mounting = self._volumes.mounting
                source, foreign = await mounting.mount(point.name, holder), mounting.foreign(point.name)
            elif point.type == "image":
                source, foreign = await self._rootfs.prepare(_image_root(holder, point), point.image_id), False
            else:
                continue
            inside = point.request.subpath if point.request is not None else ""
            sources[point.target] = str(source)
            if inside:
                sources[point.target] = await content.subpath(str(source), inside, foreign=foreign)
        return sources

    async def close(self, points: Iterable[MountPoint], holder: str) -> None:
        """Let go of what was mounted for it. Idempotent; a volume that cannot be let go of is logged."""
        await self._volumes.mounting.release(holder)
        for point in points:
            if point.type == "image":
                await self._rootfs.remove(_image_root(holder, point))

    def adopt(self, container: Container) -> None:
        """It runs."""
        for point in container.mounts:
            if point.type == "volume":
                self._volumes.mounting.adopt(point.name, container.id)

    def tell(self, action: str, container: Container) -> None:
        """Of each of its volumes: mount, unmount."""
        for point in container.mounts:
            if point.type == "volume":
                about = {"driver": point.driver, "container": container.id}
                if action == "mount":
                    about |= {"destination": point.target, "read/write": str(point.writable).lower(),
                              "propagation": point.propagation}
                self._emit(action, point.name, about)

    def ready(self, points: Iterable[MountPoint], sources: Mapping[str, str]) -> list[dict[str, Any]]:
        """OCI mounts, outer before inner. `sources`: what `open` gave. Blocks."""
        return [_ready(point, sources) for point in sorted(points, key=lambda point: point.target.count("/"))]


def _image_root(holder: str, point: MountPoint) -> str:
    """Of an image that is mounted, among the containers' roots: begins with its holder's, which owns it."""
    return f"{holder}-{hashlib.sha256(point.target.encode()).hexdigest()[:12]}"


def _ready(point: MountPoint, sources: Mapping[str, str]) -> dict[str, Any]:
    if point.type == "tmpfs":
        return _tmpfs(point)
    request = point.request or MountRequest(target=point.target)
    if point.type == "bind" and point.request is not None:
        _bind_source(point.request)
    options = ["bind" if request.non_recursive else "rbind", point.propagation or "rprivate"]
    if not point.writable:
        options.append("ro")
    return {"destination": point.target, "type": "bind", "source": sources.get(point.target, point.source),
            "options": options}


def check(request: MountRequest) -> None:
    """Raises InvalidArgument in Docker's words."""
    prefix = f'invalid mount config for type "{request.type}"'
    if request.type not in ("bind", "volume", "tmpfs", "image"):
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
    if request.type == "image" and not request.source:
        raise InvalidArgument(f"{prefix}: field Source must not be empty")
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
