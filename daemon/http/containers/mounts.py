"""Binds, volumes and tmpfs of a HostConfig: from the body's three forms to mounts. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable

from shoal.api.errors import InvalidArgument, NotImplementedHere
from shoal.daemon.http.containers.wire import (
    BindOptionsWire,
    HostWire,
    MountWire,
    TmpfsOptionsWire,
    VolumeOptionsWire,
)
from shoal.engine.containers.nouns import MountRequest

PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_IGNORED_MODES = frozenset({"z", "Z", "consistent", "cached", "delegated", ""})
"""SELinux relabelling where there is no SELinux, and what only other platforms heed."""


def mounts(wire: HostWire) -> tuple[MountRequest, ...]:
    """Every mount that was asked for. Raises InvalidArgument, also where two have one target."""
    found = [
        *(bind(text, wire.volume_driver) for text in wire.binds),
        *(_mount(each) for each in wire.mounts),
        *(tmpfs(target, options) for target, options in wire.tmpfs.items()),
    ]
    _refuse_duplicates(each.target for each in found)
    return tuple(found)


def bind(text: str, volume_driver: str = "") -> MountRequest:
    """`source:target[:mode]` of `-v`; `target` alone is an anonymous volume."""
    source, target, mode = _split(text)
    if not target.startswith("/"):
        raise InvalidArgument(f"invalid volume specification: '{text}': invalid mount config for type "
                              f"\"{'bind' if source.startswith('/') else 'volume'}\": invalid mount path: "
                              f"'{target}' mount path must be absolute")
    target = posixpath.normpath(target)
    if target in ("/", "//"):
        raise InvalidArgument(f"invalid volume specification: '{text}': invalid specification: "
                              "destination can't be '/'")
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
    if not target.startswith("/") or posixpath.normpath(target) in ("/", "//"):
        raise InvalidArgument(f"invalid tmpfs path {target!r}: it has to be absolute, and not /")
    return MountRequest(type="tmpfs", target=posixpath.normpath(target),
                        options=tuple(each for each in options.split(",") if each))


def _mount(wire: MountWire) -> MountRequest:
    if wire.type in ("image", "npipe", "cluster"):
        raise NotImplementedHere(f"Mounts: type {wire.type} is not supported: use bind, volume or tmpfs")
    if wire.type not in ("bind", "volume", "tmpfs"):
        raise InvalidArgument(f'invalid mount config for type "{wire.type}": mount type unknown')

    def invalid(what: str) -> InvalidArgument:
        return InvalidArgument(f'invalid mount config for type "{wire.type}": {what}')

    if not wire.target:
        raise invalid("field Target must not be empty")
    if not wire.target.startswith("/"):
        raise invalid(f"invalid mount path: '{wire.target}' mount path must be absolute")
    target = posixpath.normpath(wire.target)
    if target in ("/", "//"):
        raise invalid("invalid specification: destination can't be '/'")
    for kind, shown, given in (("bind", "BindOptions", wire.bind_options),
                               ("volume", "VolumeOptions", wire.volume_options),
                               ("tmpfs", "TmpfsOptions", wire.tmpfs_options)):
        if kind != wire.type and given is not None:
            raise invalid(f"field {shown} must not be specified")
    if wire.type == "bind":
        return _bind_mount(wire, target, invalid)
    if wire.type == "tmpfs":
        return _tmpfs_mount(wire, target, invalid)
    return _volume_mount(wire, target, invalid)




def _bind_mount(wire: MountWire, target: str, invalid: Callable[[str], InvalidArgument]) -> MountRequest:
    options = wire.bind_options or BindOptionsWire()
    if not wire.source:
        raise invalid("field Source must not be empty")
    if not wire.source.startswith("/"):
        raise invalid(f"invalid mount path: '{wire.source}' mount path must be absolute")
    if options.propagation and options.propagation not in PROPAGATIONS:
        raise invalid(f"invalid propagation mode: {options.propagation}")
    if options.read_only_force_recursive:
        raise NotImplementedHere("Mounts: BindOptions.ReadOnlyForceRecursive is not supported: leave it out")
    return MountRequest(type="bind", source=posixpath.normpath(wire.source), target=target, read_only=wire.read_only,
                        propagation=options.propagation, create_source=options.create_mountpoint,
                        non_recursive=options.non_recursive)


def _tmpfs_mount(wire: MountWire, target: str, invalid: Callable[[str], InvalidArgument]) -> MountRequest:
    options = wire.tmpfs_options or TmpfsOptionsWire()
    if wire.source:
        raise invalid("field Source must not be specified")
    if options.size_bytes < 0 or not 0 <= options.mode <= 0o7777:
        raise invalid("size and mode cannot be negative, and the mode has at most 4 octal digits")
    return MountRequest(type="tmpfs", target=target, read_only=wire.read_only, tmpfs_size_bytes=options.size_bytes,
                        tmpfs_mode=options.mode, options=tuple("=".join(each) for each in options.options))


def _volume_mount(wire: MountWire, target: str, invalid: Callable[[str], InvalidArgument]) -> MountRequest:
    options = wire.volume_options or VolumeOptionsWire()
    if "/" in wire.source:
        raise invalid(f'"{wire.source}" includes invalid characters for a local volume name')
    subpath = posixpath.normpath(options.subpath) if options.subpath else ""
    if subpath.startswith(("/", "../")) or subpath == "..":
        raise invalid("subpath must be a relative path within the volume")
    return MountRequest(type="volume", source=wire.source, target=target, read_only=wire.read_only,
                        no_copy=options.no_copy, subpath=subpath, volume_driver=options.driver_config.name,
                        volume_options=options.driver_config.options, volume_labels=options.labels)


def _refuse_duplicates(targets: Iterable[str]) -> None:
    seen = set()
    for target in targets:
        if target in seen:
            raise InvalidArgument(f"Duplicate mount point: {target}")
        seen.add(target)
