"""What a start has to look up on the host: devices, limits that may be set, what this process may do."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import stat
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from shoal.api.errors import InvalidArgument, ShoalError
from shoal.engine.containers.nouns import Device, Ulimit
from shoal.engine.containers.oci import capabilities

log = logging.getLogger(__name__)

UNLIMITED = -1
_INITS = ("catatonit", "docker-init", "tini")


@cache
def held_capabilities() -> frozenset[str]:
    """Those of this process, read once. Says so once where something that Docker gives is missing."""
    held = capabilities.own()
    missing = [name for name in (*capabilities.DEFAULT, "CAP_SYS_RESOURCE") if name not in held]
    if missing:
        log.warning("event=capabilities-missing missing=%s effect=%s", ",".join(missing),
                    "containers run without them; limits above this process's own are left as they are")
    return held


@cache
def has_apparmor(parameter: Path = Path("/sys/module/apparmor/parameters/enabled")) -> bool:
    try:
        return parameter.read_text().startswith("Y")
    except OSError:
        return False


def apparmor_profile(asked: str) -> str:
    """What holds for a container that asks for it: nothing where the kernel has no AppArmor, as Docker has it."""
    return asked if has_apparmor() else ""


@cache
def init_path() -> str:
    """The init that `--init` puts first. Raises ShoalError."""
    for name in _INITS:
        if (found := shutil.which(name)) is not None:
            return found
    raise ShoalError(f"--init needs one of {', '.join(_INITS)} on this host")


def rlimits(ulimits: Iterable[Ulimit]) -> list[dict[str, Any]]:
    """OCI rlimits. Without CAP_SYS_RESOURCE none is raised above this process's own. Raises InvalidArgument."""
    made = []
    for ulimit in ulimits:
        number = getattr(resource, f"RLIMIT_{ulimit.name.upper()}", None)
        if number is None:
            raise InvalidArgument(f"invalid ulimit type: {ulimit.name}")
        soft, hard = ulimit.soft, ulimit.hard
        if hard != UNLIMITED and (soft > hard or soft == UNLIMITED):
            raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
        if "CAP_SYS_RESOURCE" not in held_capabilities():
            own = resource.getrlimit(number)[1]
            soft, hard = _at_most(soft, own), _at_most(hard, own)
            if hard != ulimit.hard:
                log.warning("event=ulimit-lowered name=%s wanted=%d got=%d", ulimit.name, ulimit.hard, hard)
        made.append({"type": f"RLIMIT_{ulimit.name.upper()}", "soft": _unsigned(soft), "hard": _unsigned(hard)})
    return made


def _at_most(value: int, bound: int) -> int:
    if bound == resource.RLIM_INFINITY:
        return value
    return bound if value == UNLIMITED else min(value, bound)


def _unsigned(value: int) -> int:
    return value if value >= 0 else (1 << 64) - 1


def oom_score_adj(wanted: int) -> int | None:
    """What can be set of it; None: leave it as it is. Lowering it takes CAP_SYS_RESOURCE."""
    own = int(Path("/proc/self/oom_score_adj").read_text())
    if wanted < own and "CAP_SYS_RESOURCE" not in held_capabilities():
        if wanted:
            log.warning("event=oom-score-adj-kept wanted=%d own=%d", wanted, own)
        return None
    return wanted


def devices(requests: Iterable[Device], *, all_of_host: bool) -> list[dict[str, Any]]:
    """OCI devices with their access. A folder stands for what is in it. Raises InvalidArgument."""
    if all_of_host:
        return [one for path in _nodes(Path("/dev")) if (one := _device(path, str(path), "rwm"))]
    found: list[dict[str, Any]] = []
    for request in requests:
        path = Path(request.path_on_host)
        inside = request.path_in_container or request.path_on_host
        if not path.exists():
            raise InvalidArgument(f'error gathering device information while adding custom device '
                                  f'"{request.path_on_host}": no such file or directory')
        nodes = list(_nodes(path)) if path.is_dir() else [path]
        access = request.permissions or "rwm"
        made = [one for node in nodes if (one := _device(node, inside + str(node)[len(str(path)):], access))]
        if not made:
            raise InvalidArgument(f'error gathering device information while adding custom device '
                                  f'"{request.path_on_host}": not a device node')
        found += made
    return found


def _nodes(folder: Path) -> Iterable[Path]:
    for path, below, files in os.walk(folder):
        below[:] = [name for name in below if name not in ("pts", "shm", "fd", "mqueue", ".lxc", ".udev")]
        yield from (Path(path, name) for name in files if name != "console")


def _device(path: Path, inside: str, access: str) -> dict[str, Any] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        return None
    return {"path": inside, "type": "c" if stat.S_ISCHR(found.st_mode) else "b", "major": os.major(found.st_rdev),
            "minor": os.minor(found.st_rdev), "fileMode": stat.S_IMODE(found.st_mode), "uid": found.st_uid,
            "gid": found.st_gid, "access": access}
