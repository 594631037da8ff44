"""What a volume is: as it was asked for, and as its driver tells of it."""

from __future__ import annotations

from typing import Any

import msgspec

LOCAL = "local"
"""The driver that is built in."""

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""Which clients know a volume by that nobody named."""


class Volume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One volume. What follows `anonymous` is its driver's word, asked for anew each time."""

    name: str
    driver: str = LOCAL
    mountpoint: str = ""  # where its content is; of some plugins' only while it is mounted
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    created_ns: int = 0
    anonymous: bool = False
    scope: str = "local"  # local, global: whether its driver shows it on other hosts too
    status: dict[str, Any] = {}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver tells of a volume."""

    name: str
    mountpoint: str = ""
    created_ns: int = 0
    status: dict[str, Any] = {}
