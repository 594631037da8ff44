"""From an exec's OCI process and its container's specification to what the spawner is told.

What `runc exec` takes from the container itself stands in the specification that it was made with: its seccomp
profile, and how soon it is killed for lack of memory.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shoal.engine.containers.oci import filters
from shoal.engine.containers.oci.capabilities import ALL
from shoal.engine.containers.spawner.order import Order


class _Process(msgspec.Struct):
    oom_score_adj: int | None = msgspec.field(default=None, name="oomScoreAdj")


class _Linux(msgspec.Struct):
    seccomp: msgspec.Raw = msgspec.Raw()


class _Specification(msgspec.Struct):
    process: _Process
    linux: _Linux


_decode = msgspec.json.Decoder(_Specification).decode


class Confinement(msgspec.Struct, frozen=True):
    """What of a container holds for every program in it, as the kernel takes it."""

    oom_score_adj: int | None = None
    filter: bytes = b""


def read_confinement(specification: Path) -> Confinement:
    """Of a container's config.json. Blocking. Raises OSError, filters.Unsupported."""
    found = _decode(specification.read_bytes())
    seccomp = bytes(found.linux.seccomp)
    return Confinement(
        oom_score_adj=found.process.oom_score_adj,
        filter=filters.compile_filter(seccomp) if seccomp else b"")


def make_order(
    process: Mapping[str, Any], confinement: Confinement, *, keyring: str, home: str, task_files: Sequence[str],
    unified: Sequence[str],
) -> Order:
    """Of an OCI process, as `oci.spec.process` makes it. `home`: HOME where the environment has none."""
    env = dict(os.fsencode(entry).partition(b"=")[::2] for entry in process["env"])
    if not env.get(b"HOME"):
        env[b"HOME"] = os.fsencode(home)
    user, held = process["user"], process["capabilities"]
    size = process.get("consoleSize", {})
    return Order(
        argv=[os.fsencode(word) for word in process["args"]],
        env=list(env.items()),
        cwd=os.fsencode(process["cwd"]),
        uid=user["uid"],
        gid=user["gid"],
        groups=list(user.get("additionalGids", ())),
        bounding=capability_bits(held.get("bounding", ())),
        effective=capability_bits(held.get("effective", ())),
        permitted=capability_bits(held.get("permitted", ())),
        no_new_privileges=process["noNewPrivileges"],
        filter=confinement.filter,
        apparmor=process.get("apparmorProfile", ""),
        rlimits=[(getattr(resource, one["type"]), one["soft"], one["hard"]) for one in process.get("rlimits", ())],
        oom_score_adj=confinement.oom_score_adj,
        keyring=keyring,
        task_files=list(task_files),
        unified=list(unified),
        tty=process["terminal"],
        console_size=(size.get("height", 0), size.get("width", 0)))


def capability_bits(names: Sequence[str]) -> int:
    return sum(1 << ALL.index(name) for name in names)
