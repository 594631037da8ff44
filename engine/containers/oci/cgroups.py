"""The cgroups of containers, read and written as files: v1 (also beside an empty v2) and v2.

No process of a runtime is started to freeze, limit, count or clean up. A group is
named by its path below the mounts, "<parent>/<container id>".
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from shoal.api.errors import ShoalError
from shoal.engine.containers.nouns import Limits
from shoal.engine.containers.oci import blockio
from shoal.engine.containers.oci.resources import cpu_quota, swap_beside_memory, swap_limit, v2_io_weight, v2_weight

REMOVE_TIMEOUT_S = 2.0
FREEZE_TIMEOUT_S = 2.0
_STEP_S = 0.002
_STEPS_BEFORE_THAW = 20
"""With cgroup v1 a program in execve waits for its other threads, which are frozen already: let them go on a little."""
_MOVES = 10


class Cgroups:
    """The mounts of this host. `version` is 2 only where v2 has the controllers."""

    def __init__(self, mountinfo: str | None = None) -> None:
        text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
        self._v1: dict[str, Path] = {}  # controller → its mount
        unified = None
        for kind, mount, options in _cgroup_mounts(text):
            if kind == "cgroup2":
                unified = unified or mount
            else:
                for option in options:
                    self._v1.setdefault(option, mount)
        self.version = 1 if "memory" in self._v1 or "pids" in self._v1 else 2
        self._roots = list(dict.fromkeys(self._v1.values())) if self.version == 1 else []
        if unified is not None:
            self._roots.append(unified)
        self._unified = unified or Path("/sys/fs/cgroup")

    def folder(self, group: str, controller: str) -> Path:
        """Where the group's files of a controller are."""
        root = self._v1.get(controller, self._unified) if self.version == 1 else self._unified
        return Path(f"{root}{group}")

    @property
    def counts_swap(self) -> bool:
        if self.version == 2:
            return self._counts_swap_v2()
        return (self.folder("", "memory") / "memory.memsw.limit_in_bytes").exists()

    def _counts_swap_v2(self) -> bool:
        """As the groups just below the mount tell (it has no such file itself); Linux before 6.1 can leave swap out."""
        below = [entry.path for entry in os.scandir(self._unified) if entry.is_dir(follow_symlinks=False)]
        counting = [folder for folder in below if Path(folder, "memory.max").exists()]
        if counting:
            return Path(counting[0], "memory.swap.max").exists()
        return Path("/proc/swaps").exists()

    # --- reading ---

    @property
    def has_real_time(self) -> bool:
        """Whether the kernel shares real-time out among groups."""
        return self.version == 1 and (self.folder("/", "cpu") / "cpu.rt_runtime_us").exists()

    @property
    def block_limits(self) -> Set[str]:
        """The fields of `Limits` on block devices that the kernel has. It may have more later: BFQ is a module."""
        return blockio.supported(self.folder("", "blkio"), self.version)

    def pids(self, group: str) -> list[int]:
        """The processes in the group and in the groups below it."""
        found: set[int] = set()
        for folder, _, files in os.walk(self.folder(group, "pids")):
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError):
                    found.update(int(pid) for pid in Path(folder, "cgroup.procs").read_text().split())
        return sorted(found)

    def task_files(self, group: str) -> list[str]:
        """Where a thread that writes "0" joins the group: one for each hierarchy of v1 that has it."""
        return [tasks for root in self._roots if os.path.exists(tasks := f"{root}{group}/tasks")]  # noqa: PTH110

    def unified_folders(self, group: str, pid: int) -> list[str]:
        """Of v2: the group's, then that of this process, which moved on where the group has others below it."""
        if self.version == 1:
            group = f"{self._unified}{group}"
            return [group] if os.path.exists(f"{group}/cgroup.type") else []  # noqa: PTH110
        own = Path(f"/proc/{pid}/cgroup").read_text().partition("0::")[2].strip()
        return list(dict.fromkeys(f"{self._unified}{each}" for each in (group, own)))

    def oom_kills(self, group: str) -> int:
        """How often the kernel killed something in the group for lack of memory."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return read_table(self.folder(group, "memory") / name).get("oom_kill", 0)

    # --- writing ---

    def freeze(self, group: str, frozen: bool) -> None:
        """Returns once everything in it stands still, or at once where it is to go on. Blocking. Raises ShoalError."""
        verb = "freeze" if frozen else "thaw"
        deadline = time.monotonic() + FREEZE_TIMEOUT_S
        try:
            self._write_freeze(group, frozen)
            for step in itertools.count(1):
                if not frozen or self._is_frozen(group):
                    return
                if time.monotonic() > deadline:
                    self._write_freeze(group, False)
                    raise ShoalError(f"cannot freeze cgroup {group}: something in it did not stand still in time")
                time.sleep(_STEP_S)
                if self.version == 1 and step % _STEPS_BEFORE_THAW == 0:
                    self._write_freeze(group, False)
                    time.sleep(_STEP_S)
                if self.version == 1:
                    self._write_freeze(group, True)  # what was forked meanwhile is frozen only when asked again
        except OSError as error:
            raise ShoalError(f"cannot {verb} cgroup {group}: {error}") from error

    def _write_freeze(self, group: str, frozen: bool) -> None:
        if self.version == 2:
            (self.folder(group, "") / "cgroup.freeze").write_text("1" if frozen else "0")
        else:
            (self.folder(group, "freezer") / "freezer.state").write_text("FROZEN" if frozen else "THAWED")

    def _is_frozen(self, group: str) -> bool:
        if self.version == 2:
            return read_table(self.folder(group, "") / "cgroup.events").get("frozen", 0) == 1
        return (self.folder(group, "freezer") / "freezer.state").read_text().strip() == "FROZEN"

    def update(self, group: str, limits: Limits) -> None:
        """Write the limits that are set. Raises ShoalError naming the first that the kernel refuses."""
        files = self._v2_files(group, limits) if self.version == 2 else self._v1_files(group, limits)
        for controller, name, value in files:
            try:
                (self.folder(group, controller) / name).write_text(value)
            except OSError as error:
                raise ShoalError(f"cannot set {name} of cgroup {group} to {value}: {error}") from error

    def _v1_files(self, group: str, limits: Limits) -> Iterator[tuple[str, str, str]]:
        if limits.memory_bytes or limits.memory_swap_bytes:
            yield from self._v1_memory(group, limits)
        if limits.memory_reservation_bytes:
            yield "memory", "memory.soft_limit_in_bytes", str(limits.memory_reservation_bytes)
        if limits.cpu_shares:
            yield "cpu", "cpu.shares", str(limits.cpu_shares)
        quota, period = cpu_quota(limits)
        if period:
            yield "cpu", "cpu.cfs_period_us", str(period)
        if quota:
            yield "cpu", "cpu.cfs_quota_us", str(quota)
        if limits.cpuset_cpus:
            yield "cpuset", "cpuset.cpus", limits.cpuset_cpus
        if limits.cpuset_mems:
            yield "cpuset", "cpuset.mems", limits.cpuset_mems
        if limits.pids:
            yield "pids", "pids.max", str(limits.pids) if limits.pids > 0 else "max"
        if limits.blkio_weight:
            own = (self.folder(group, "blkio") / "blkio.weight").exists()
            name = "blkio.weight" if own else "blkio.bfq.weight"
            yield "blkio", name, str(limits.blkio_weight)
            yield from (("blkio", f"{name}_device", weight) for weight in blockio.device_weights(limits))

    def _v1_memory(self, group: str, limits: Limits) -> list[tuple[str, str, str]]:
        """The two limits in the order that keeps memory below memory with swap at each step."""
        writes = []
        if limits.memory_bytes:
            writes.append(("memory", "memory.limit_in_bytes", str(limits.memory_bytes)))
        swap = swap_limit(limits)
        if swap and self.counts_swap:
            name = "memory.memsw.limit_in_bytes"
            writes.append(("memory", name, str(swap)))
            with contextlib.suppress(OSError, ValueError):
                now = int((self.folder(group, "memory") / name).read_text())
                if swap == -1 or swap > now:
                    writes.reverse()
        return writes

    def _v2_files(self, group: str, limits: Limits) -> Iterator[tuple[str, str, str]]:
        counted = self.counts_swap
        yield from (file for file in v2_files(limits) if counted or file[1] != "memory.swap.max")
        if limits.blkio_weight:
            if (self.folder(group, "") / "io.bfq.weight").exists():
                yield "", "io.bfq.weight", str(limits.blkio_weight)  # with which those of devices are gone
                yield from (("", "io.bfq.weight", weight) for weight in blockio.device_weights(limits))
            else:
                yield "", "io.weight", str(v2_io_weight(limits.blkio_weight))

    def make_room(self) -> None:
        """Let groups with controllers be made below the mount's root. Nothing to do on most hosts. Raises ShoalError.

        Within a container the root is no real one: while processes are in it, it can pass no controller
        on (cgroup v2, "no internal processes"). They are moved into a leaf.
        """
        root = self._unified
        if self.version != 2 or not (root / "cgroup.type").exists():
            return
        try:
            missing = set((root / "cgroup.controllers").read_text().split())
            missing -= set((root / "cgroup.subtree_control").read_text().split())
            if not missing:
                return
            leaf = root / "init"
            leaf.mkdir(exist_ok=True)
            for _ in range(_MOVES):  # what is forked meanwhile is met again
                pids = (root / "cgroup.procs").read_text().split()
                if not _move(pids, leaf / "cgroup.procs"):
                    break
            (root / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(missing)))
        except OSError as error:
            raise ShoalError(f"cannot hand cgroup controllers on below {root}: {error}; "
                             "give this container a cgroup namespace of its own that it may write to") from error

    # --- the end ---

    def kill(self, group: str) -> None:
        """SIGKILL to everything in the group."""
        if self.version == 2:
            with contextlib.suppress(OSError):
                (self.folder(group, "") / "cgroup.kill").write_text("1")
                return
        with contextlib.suppress(ShoalError):
            self.freeze(group, False)
        for pid in self.pids(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self, group: str) -> None:
        """Kill what is left in it and remove it from every hierarchy. No error where there is none. Blocking.

        Raises ShoalError where processes stay (the kernel holds them).
        """
        left = [Path(f"{root}{group}") for root in self._roots]
        deadline = time.monotonic() + REMOVE_TIMEOUT_S
        while True:
            left = [folder for folder in left if not _rmdir(folder)]
            if not left:
                return
            if time.monotonic() > deadline:
                raise ShoalError(f"cgroup {left[0]} cannot be removed: processes {self.pids(group)} are left in it")
            self.kill(group)
            time.sleep(_STEP_S)


def _cgroup_mounts(mountinfo: str) -> Iterator[tuple[str, Path, list[str]]]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = ([*after.split(), "", "", ""])[:3]
        if kind in ("cgroup", "cgroup2"):
            yield kind, Path(before.split()[4]), options.split(",")


def _move(pids: Iterable[str], procs: Path) -> bool:
    """Whether any was moved."""
    moved = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            procs.write_text(pid)
            moved = True
    return moved


def v2_files(limits: Limits) -> Iterator[tuple[str, str, str]]:
    """(controller, file, value) of the limits that are set, the weight of block devices apart. Pure."""
    if limits.memory_bytes:
        yield "", "memory.max", str(limits.memory_bytes)
        swap = swap_beside_memory(limits)
        yield "", "memory.swap.max", "max" if swap == -1 else str(swap)
    elif limits.memory_swap_bytes == -1:
        yield "", "memory.swap.max", "max"
    if limits.memory_reservation_bytes:
        yield "", "memory.low", str(limits.memory_reservation_bytes)
    if limits.cpu_shares:
        yield "", "cpu.weight", str(v2_weight(limits.cpu_shares))
    quota, period = cpu_quota(limits)
    if quota or period:
        yield "", "cpu.max", f"{quota if quota > 0 else 'max'} {period or 100_000}"
    if limits.cpuset_cpus:
        yield "", "cpuset.cpus", limits.cpuset_cpus
    if limits.cpuset_mems:
        yield "", "cpuset.mems", limits.cpuset_mems
    if limits.pids:
        yield "", "pids.max", str(limits.pids) if limits.pids > 0 else "max"


def _rmdir(folder: Path) -> bool:
    """Remove the group and those below it. False while something is left in one."""
    try:
        os.rmdir(folder)  # noqa: PTH106 (a dozen of them at each exit)
        return True
    except FileNotFoundError:
        return True
    except OSError:
        below = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        return bool(below) and all(_rmdir(Path(path)) for path in below) and _rmdir(folder)


def read_table(path: Path) -> dict[str, int]:
    """A file of "key value" lines; {} where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    table = {}
    for line in lines:
        key, _, value = line.partition(" ")
        if value.isdecimal():
            table[key] = int(value)
    return table
