"""The machine around: Python, rights, clock, disk, limits, and the daemon itself. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from shoal.cli.doctor.facts import Facts
from shoal.cli.doctor.findings import Finding, ok, problem, warning

PYTHON_OLDEST = (3, 11)
GIB = 1 << 30
LEAST_FREE_BYTES, LITTLE_FREE_BYTES = 1 * GIB, 5 * GIB
LITTLE_FREE_SHARE = 0.05
OPEN_FILES = 65_536
REMOTE_FILESYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})

NEEDED_CAPABILITIES = {
    "CAP_SYS_ADMIN": "no mounts and no namespaces: no container can start",
    "CAP_NET_ADMIN": "no networks",
    "CAP_SETUID": "no other users in containers",
    "CAP_SETGID": "no other groups in containers",
    "CAP_MKNOD": "no devices in containers",
    "CAP_SYS_CHROOT": "images cannot be unpacked",
    "CAP_DAC_OVERRIDE": "files of other users in images cannot be written",
    "CAP_CHOWN": "files of images cannot get their owners",
    "CAP_KILL": "containers of other users cannot be stopped",
}
USEFUL_CAPABILITIES = {
    "CAP_SYS_RESOURCE": "limits (--ulimit) cannot be raised above this process's own, oom_score_adj not lowered",
    "CAP_NET_RAW": "no ping in containers",
    "CAP_SYS_PTRACE": "other processes' ports cannot be named",
    "CAP_AUDIT_WRITE": "containers go without it",
    "CAP_SETFCAP": "files in images lose their capabilities",
}
INOTIFY = {"instances": "fs.inotify.max_user_instances", "watches": "fs.inotify.max_user_watches"}
MUCH_OF_INOTIFY = 0.5
"""Of a limit. shoald has one instance, and with cgroup v2 each conmon has one: stock limits are enough for many."""


def software(facts: Facts) -> Iterator[Finding]:
    process, daemon = facts.process, facts.daemon
    python = ".".join(map(str, process.python))
    if process.python[:2] < PYTHON_OLDEST:
        yield problem("Python", python, "Shoal does not run", "Python 3.11 or newer is needed")
    else:
        yield ok("Python", python)
    yield ok("shoal", process.shoal or "of unknown version")
    if not daemon.socket:
        yield ok("shoald", f"not running (no {daemon.address})")
    elif daemon.answer and process.shoal and daemon.answer != process.shoal:
        yield warning("shoald", f"version {daemon.answer} runs, {process.shoal} is installed",
                      "what was mended since is not in effect", "restart shoald; containers live on")
    elif daemon.answer:
        yield ok("shoald", f"running, version {daemon.answer}, cgroup driver {daemon.cgroup_driver or 'unknown'}")
    else:
        yield warning("shoald", f"{daemon.address} is there, and nobody answers", "shoald was killed, or hangs",
                      "start it again; look at its log (journalctl -u shoald)")


def rights(facts: Facts) -> Iterator[Finding]:
    process = facts.process
    if not process.root:
        yield warning("user", "not root", "much cannot be looked at, and nothing tried; shoald itself needs root",
                      "run shoal doctor as root")
        return
    missing = [name for name in NEEDED_CAPABILITIES if name not in process.capabilities]
    lesser = [name for name in USEFUL_CAPABILITIES if name not in process.capabilities]
    how = "start it outside of a container, or with --cap-add"
    if missing:
        yield problem("capabilities", f"missing: {', '.join(missing + lesser)}",
                      "; ".join(NEEDED_CAPABILITIES[name] for name in missing), how)
    elif lesser:
        yield warning("capabilities", f"missing: {', '.join(lesser)}",
                      "; ".join(USEFUL_CAPABILITIES[name] for name in lesser), how)
    else:
        yield ok("capabilities", "all that matter")


def clock(facts: Facts) -> Iterator[Finding]:
    if facts.clock_synchronised:
        yield ok("clock", "synchronised")
    else:
        yield warning("clock", "not synchronised" if facts.clock_synchronised is False else "cannot be asked",
                      "certificates are refused by hosts whose clocks are more than an hour apart; log lines mix up",
                      "apt-get install systemd-timesyncd, or chrony; where one is, it reaches no server: timedatectl")


def disk(facts: Facts) -> Iterator[Finding]:
    found = facts.disk
    yield from _space(facts)
    if not found.writable:
        yield problem("data root", f"{found.path} cannot be written", "the daemon does not start",
                      "mount it read-write, or choose another with --data-root")
    elif found.overlay:
        yield problem("data root", f"{found.filesystem} at {found.path}: {found.overlay}",
                      "no container can have a root file system on it",
                      "put the data root on ext4, xfs (ftype=1) or btrfs: --data-root, or a mount at /var/lib/shoal")
    elif found.filesystem in REMOTE_FILESYSTEMS:
        yield problem("data root", f"{found.filesystem} at {found.path}", "containers' files and Raft's log need a "
                      "disk of this host's own", "put the data root on a local disk")
    elif found.filesystem == "tmpfs":
        yield warning("data root", f"tmpfs at {found.path}", "images, volumes and the swarm are gone after a reboot, "
                      "and take memory until then", "put the data root on a disk, unless that is meant (labs)")
    elif found.filesystem == "overlay":
        yield warning("data root", f"overlay at {found.path}", "an overlay on an overlay is slow, and refused by some "
                      "kernels", "mount a volume or a disk there")
    else:
        yield ok("data root", f"{found.filesystem or 'unknown'} at {found.path}"
                 + ("" if found.overlay is None else ", overlays work on it"))


def _space(facts: Facts) -> Iterator[Finding]:
    found = facts.disk
    free = f"{found.free_bytes / GIB:.1f} GiB of {found.size_bytes / GIB:.1f} free"
    remedy = "docker image prune, docker container prune; or a larger disk"
    if found.free_bytes < LEAST_FREE_BYTES:
        yield problem("disk", free, "images cannot be loaded, containers may fail to write", remedy)
    elif found.inodes and found.free_inodes < LITTLE_FREE_SHARE * found.inodes:
        yield warning("disk", f"{found.free_inodes} of {found.inodes} inodes free",
                      "images of many files cannot be unpacked", remedy)
    elif found.free_bytes < min(LITTLE_FREE_BYTES, LITTLE_FREE_SHARE * 2 * found.size_bytes):
        yield warning("disk", free, "it will be full soon", remedy)
    else:
        yield ok("disk", free)


def limits(facts: Facts) -> Iterator[Finding]:
    if facts.process.open_files < OPEN_FILES:
        yield warning("open files", f"at most {facts.process.open_files}",
                      "shoald and its containers share this limit as the highest that they can set",
                      f"ulimit -Hn {OPEN_FILES} before the start, or LimitNOFILE= in the unit")
    else:
        yield ok("open files", f"at most {facts.process.open_files}")
    yield _inotify(facts)


def _inotify(facts: Facts) -> Finding:
    used = {"instances": facts.inotify.instances, "watches": facts.inotify.watches}
    most = {what: int(text) for what, name in INOTIFY.items() if (text := facts.sysctls.get(name, "")).isdecimal()}
    words = ", ".join(f"{used[what]} of {limit} {what} in use" for what, limit in most.items())
    scarce = [what for what, limit in most.items() if used[what] > MUCH_OF_INOTIFY * limit]
    if not scarce:
        return ok("inotify", words or "without limits")
    return warning("inotify", words, "beyond them, out-of-memory kills go unnoticed and logs cannot be followed",
                   f"sysctl -w {' '.join(f'{INOTIFY[what]}={4 * most[what]}' for what in scarce)}; "
                   "and in /etc/sysctl.d/ for good")


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (software, rights, clock, disk, limits)
