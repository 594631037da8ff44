"""Control groups: which, with what, and who makes them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shoal.cli.doctor.facts import Facts
from shoal.cli.doctor.findings import Finding, ok, problem, warning

NEEDED = {
    "memory": "no limits of memory, and no figures of its use",
    "cpu": "no limits of CPU",
    "pids": "no limits of processes; those of a container cannot be counted",
}
USEFUL = {
    "cpuset": "no --cpuset-cpus",
    "io": "no weights and no figures of block devices",
}


def hierarchy(facts: Facts) -> Iterator[Finding]:
    cgroups = facts.cgroups
    if not cgroups.mode:
        yield problem("cgroups", "not mounted", "no container can start",
                      "mount them: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        return
    if not cgroups.writable:
        yield problem("cgroups", f"{cgroups.mode}, read-only", "no container can start",
                      "mount /sys/fs/cgroup read-write (for a container: --privileged, or --cgroupns=private with rw)")
        return
    if cgroups.mode == "v2":
        yield ok("cgroups", "v2" if cgroups.real_root else "v2, within a container")
        return
    how = "hybrid: controllers on v1, an empty v2 beside it" if cgroups.mode == "hybrid" else "v1"
    yield ok("cgroups", how)


def controllers(facts: Facts) -> Iterator[Finding]:
    cgroups = facts.cgroups
    if not cgroups.mode:
        return
    there = cgroups.controllers | ({"io"} if "blkio" in cgroups.controllers else set())
    missing = [name for name in NEEDED if name not in there]
    lesser = [name for name in USEFUL if name not in there]
    how = "boot with cgroup_enable=memory swapaccount=1, or have the controllers handed on (systemd: Delegate=yes)"
    if missing:
        yield problem("cgroup controllers", f"missing: {', '.join(missing + lesser)}",
                      "; ".join(NEEDED[name] for name in missing), how)
    elif lesser:
        yield warning("cgroup controllers", f"missing: {', '.join(lesser)}",
                      "; ".join(USEFUL[name] for name in lesser), how)
    else:
        yield ok("cgroup controllers", ", ".join(sorted((set(NEEDED) | set(USEFUL)) & there)))
    if not cgroups.counts_swap and "memory" in there:
        yield warning("swap limits", "swap is not counted", "a container with a memory limit may swap without one",
                      "boot with swapaccount=1, or use no swap")


def driver(facts: Facts) -> Iterator[Finding]:
    """Says which driver `auto` means here."""
    cgroups = facts.cgroups
    if not cgroups.mode:
        return
    if not cgroups.systemd:
        yield ok("cgroup driver", f"cgroupfs (PID 1 is {cgroups.init or 'unknown'})")
    elif cgroups.mode != "v2":
        yield warning("cgroup driver", f"cgroupfs (cgroup {cgroups.mode} under systemd)",
                      "systemd and the runtimes write the same tree",
                      "boot with systemd.unified_cgroup_hierarchy=1")
    elif not cgroups.dbus:
        yield warning("cgroup driver", "systemd, without D-Bus", "crun cannot ask systemd for cgroups; runc can",
                      "apt-get install dbus")
    else:
        yield ok("cgroup driver", "systemd")


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (hierarchy, controllers, driver)
