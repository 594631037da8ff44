"""What the spawner is told of one exec: plain values, as `marshal` takes them. Both sides are of one version."""

from __future__ import annotations

from typing import TypedDict

START, STARTED, TERMINAL, FAILED = b"S", b"P", b"T", b"E"
"""How messages begin: start one (to the spawner); its pid, its terminal (a descriptor), why it failed (from there)."""


class Order(TypedDict):
    """Strings of the program are bytes. A capability's bit is its number in the kernel's order."""

    argv: list[bytes]
    env: list[tuple[bytes, bytes]]
    cwd: bytes
    uid: int
    gid: int
    groups: list[int]
    bounding: int
    effective: int
    permitted: int
    no_new_privileges: bool
    filter: bytes  # of seccomp, compiled; b"": none
    apparmor: str  # "": none
    rlimits: list[tuple[int, int, int]]  # number, soft, hard
    oom_score_adj: int | None  # None: as it is
    keyring: str
    task_files: list[str]  # of the container's cgroups, v1
    unified: list[str]  # folders of cgroup v2: the first that takes it; []: no v2
    tty: bool
    console_size: tuple[int, int]  # height, width; (0, 0): as the kernel has it
