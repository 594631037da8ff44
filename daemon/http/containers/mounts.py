"""Binds, volumes and tmpfs of a HostConfig: from the body's three forms to mounts. Pure."""

from __future__ import annotations

import posixpath

from msgspec.structs import replace

from shoal.api.errors import InvalidArgument, NotImplementedHere
from shoal.daemon.http.containers.wire import (
    BindOptionsWire,
    HostWire,
    ImageOptionsWire,
    MountWire,
    TmpfsOptionsWire,
    VolumeOptionsWire,
)
from shoal.engine.containers.mounts import PROPAGATIONS
from shoal.engine.containers.nouns import MountRequest

_IGNORED_MODES = frozenset({"z", "Z", "consistent", "cached", "delegated", ""})
"""SELinux relabelling where there is no SELinux, and what only other platforms heed."""


def mounts(wire: HostWire) -> tuple[MountRequest, ...]:
    """Every mount that was asked for. Raises InvalidArgument, NotImplementedHere."""
    return (
        *(bind(text, wire.volume_driver) for text in wire.binds),
        *(mount_request(each) for each in wire.mounts),
        *(tmpfs(target, options) for target, options in wire.tmpfs.items()),
    )


def bind(text: str, volume_driver: str = "") -> MountRequest:
    """`source:target[:mode]` of `-v`; `target` alone is an anonymous volume."""
    source, target, mode = _split(text)
    if not target.startswith("/"):
        raise InvalidArgument(f"invalid volume specification: '{text}': invalid mount config for type "
                              f"\"{'bind' if source.startswith('/') else 'volume'}\": invalid mount path: "
                              f"'{target}' mount path must be absolute")
    target = posixpath.normpath(target)
    modes = mode.split(",")
    is_bind = source.startswith("/")
    allowed = {"ro", "rw", *_IGNORED_MODES, *(PROPAGATIONS if is_bind else {"nocopy"})}
    if any(each not in allowed for each in modes) or {"ro", "rw"} <= set(modes):
        raise InvalidArgument(f"invalid volume specification: '{text}': invalid mode: {mode}")
    read_only = "ro" in modes
    if is_bind:
        propagation = next((each for each in modes if each in PROPAGATIONS), "")
        return MountRequest(type="bind", source=posixpath.normpath(source), target=target, read_only=read_only,
                            propagation=propagation, create_source=True)
    if "/" in source:
        raise InvalidArgument(
            f'create {source}: "{source}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path')
    return MountRequest(type="volume", source=source, target=target, read_only=read_only,
                        no_copy="nocopy" in modes, volume_driver=volume_driver)


def _split(text: str) -> tuple[str, str, str]:
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(parts[:2]):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return "", parts[0], ""
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def tmpfs(target: str, options: str) -> MountRequest:
    return MountRequest(type="tmpfs", target=target, options=tuple(each for each in options.split(",") if each))


def mount_request(wire: MountWire) -> MountRequest:
    """One of `Mounts`. Raises InvalidArgument, NotImplementedHere."""
    if wire.type in ("npipe", "cluster"):
        raise NotImplementedHere(f"Mounts: type {wire.type} is not supported: use bind, volume, tmpfs or image")
    for kind, shown, given in (("bind", "BindOptions", wire.bind_options),
                               ("volume", "VolumeOptions", wire.volume_options),
                               ("tmpfs", "TmpfsOptions", wire.tmpfs_options),
                               ("image", "ImageOptions", wire.image_options)):
        if kind != wire.type and given is not None:
            raise InvalidArgument(f'invalid mount config for type "{wire.type}": field {shown} must not be specified')
    plain = MountRequest(type=wire.type, source=wire.source, target=wire.target, read_only=wire.read_only)
    if wire.type == "bind":
        return _with_bind_options(plain, wire.bind_options or BindOptionsWire())
    if wire.type == "tmpfs":
        return _with_tmpfs_options(plain, wire.tmpfs_options or TmpfsOptionsWire())
    if wire.type == "image":
        options = wire.image_options or ImageOptionsWire()
        return replace(plain, read_only=True, subpath=_inside(options.subpath, "image"))
    return _with_volume_options(plain, wire.volume_options or VolumeOptionsWire())


def _with_bind_options(mount: MountRequest, options: BindOptionsWire) -> MountRequest:
    if options.read_only_force_recursive:
        raise NotImplementedHere("Mounts: BindOptions.ReadOnlyForceRecursive is not supported: leave it out")
    return replace(mount, propagation=options.propagation, create_source=options.create_mountpoint,
                   non_recursive=options.non_recursive)


def _with_tmpfs_options(mount: MountRequest, options: TmpfsOptionsWire) -> MountRequest:
    if options.size_bytes < 0 or not 0 <= options.mode <= 0o7777:
        raise InvalidArgument('invalid mount config for type "tmpfs": size and mode cannot be negative, and the mode '
                              "has at most 4 octal digits")
    return replace(mount, tmpfs_size_bytes=options.size_bytes, tmpfs_mode=options.mode,
                   options=tuple("=".join(each) for each in options.options))


def _with_volume_options(mount: MountRequest, options: VolumeOptionsWire) -> MountRequest:
    if "/" in mount.source:
        raise InvalidArgument(f'invalid mount config for type "volume": "{mount.source}" includes invalid characters '
                              "for a local volume name")
    return replace(mount, no_copy=options.no_copy, subpath=_inside(options.subpath, "volume"),
                   volume_driver=options.driver_config.name, volume_options=options.driver_config.options,
                   volume_labels=options.labels)


def _inside(subpath: str, kind: str) -> str:
    clean = posixpath.normpath(subpath) if subpath else ""
    if clean.startswith(("/", "../")) or clean == "..":
        raise InvalidArgument(f'invalid mount config for type "{kind}": subpath must be a relative path within the '
                              f"{kind}")
    return clean
