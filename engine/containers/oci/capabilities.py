"""The capabilities of a container. Pure, but for `own`, which reads those of this process.

Docker's defaults, changed by --cap-add and --cap-drop, and never more than the
daemon has itself: a runtime refuses to give what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shoal.api.errors import InvalidArgument

ALL = (  # in the kernel's order: the index is the number
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)

DEFAULT = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


def normalize(names: Iterable[str], option: str) -> list[str]:
    """Upper case, with CAP_ before it, "ALL" left as it is. Raises InvalidArgument naming `option`."""
    found = []
    for name in names:
        upper = name.upper()
        full = upper if upper == "ALL" or upper.startswith("CAP_") else "CAP_" + upper
        if full != "ALL" and full not in ALL:
            raise InvalidArgument(f'invalid {option}: unknown capability: "{full}"')
        found.append(full)
    return found


def effective(add: Iterable[str], drop: Iterable[str], *, privileged: bool, held: Iterable[str]) -> tuple[str, ...]:
    """What the container gets, in the kernel's order. `held`: what the daemon has."""
    adds, drops = normalize(add, "CapAdd"), normalize(drop, "CapDrop")
    if privileged or ("ALL" in adds and "ALL" not in drops):
        wanted = set(ALL) - (set() if privileged else set(drops))
    elif "ALL" in drops:
        wanted = set(ALL) if "ALL" in adds else set(adds)
    else:
        wanted = (set(DEFAULT) - set(drops)) | set(adds)
    kept = wanted & set(held)
    return tuple(name for name in ALL if name in kept)


def own() -> frozenset[str]:
    """The capabilities that this process may hand on: those in its bounding and its permitted set."""
    sets = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("CapPrm", "CapBnd"):
            sets[key] = int(value, 16)
    mask = sets.get("CapPrm", 0) & sets.get("CapBnd", 0)
    return frozenset(name for number, name in enumerate(ALL) if mask >> number & 1)
