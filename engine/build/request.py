"""What is asked of a build."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from shoal.engine.containers.nouns import Limits, Ulimit
from shoal.engine.images.distribution.keyring import NO_KEYS, Keyring


class Request(msgspec.Struct, frozen=True, kw_only=True):
    tags: tuple[str, ...] = ()
    dockerfile: str = "Dockerfile"
    remote: str = ""  # where the context is, if it is not sent
    target: str = ""
    platform: str = ""
    args: Mapping[str, str | None] = MappingProxyType({})
    labels: Mapping[str, str] = MappingProxyType({})
    cache_from: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    remove: bool = True  # the containers of steps that succeeded
    force_remove: bool = False  # those of steps that failed too
    squash: bool = False
    limits: Limits = Limits()
    ulimits: tuple[Ulimit, ...] = ()
    shm_size_bytes: int = 0
    network_mode: str = ""
    extra_hosts: tuple[str, ...] = ()
    cgroup_parent: str = ""
    secrets: Mapping[str, bytes] = MappingProxyType({})
    keyring: Keyring = NO_KEYS  # of the registries that images are pulled from

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH: nothing in the image is younger, and equal input gives an equal image."""
        value = self.args.get("SOURCE_DATE_EPOCH") or ""
        return int(value) if value.isdecimal() and len(value) < 12 else None
