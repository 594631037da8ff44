"""libvirt in namespaces of its own: daemons, networks and machines that nobody else sees, and that end with it.

What runs `inside` is on "the host" of the virtual machines: it reaches them over libvirt's bridges.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TIED = ("setpriv", "--pdeathsig", "KILL", "--")
"""What runs behind these words dies with the thread that started it."""

QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
namespaces = []
cgroup_controllers = []
remember_owner = 0
stdio_handler = "file"
"""
LIBVIRTD_CONF = 'auth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\n'

_BIND = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/lock
for place in /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p "$place" "$1$place"
    mount --bind "$1$place" "$place"
done
for file in passwd group; do # libvirt looks up its own user before it reads that it is not to be used
    cp /etc/$file "$1/$file"
    case $file in
        passwd) echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin >> "$1/passwd" ;;
        group) echo libvirt-qemu:x:64055: >> "$1/group" ;;
    esac
    mount --bind "$1/$file" /etc/$file
done
ip link set lo up
touch /run/namespaces-are-ready
exec catatonit -- sleep infinity
"""
START_TIMEOUT_S = 60.0


class Libvirt:
    """`with` starts it; at the end everything in its namespaces is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Libvirt:
        (self._folder / "etc/libvirt").mkdir(parents=True)
        (self._folder / "etc/libvirt/qemu.conf").write_text(QEMU_CONF)
        (self._folder / "etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF)
        self._holder = subprocess.Popen(
            [*TIED, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
             "--propagation=private", "sh", "-c", _BIND, "sh", str(self._folder)], stdin=subprocess.DEVNULL)
        try:
            self._until(lambda: self.run(["test", "-e", "/run/namespaces-are-ready"]).returncode == 0, "its namespaces")
            for daemon in ("virtlogd", "libvirtd"):
                self.run([daemon, "--daemon", "--pid-file", f"/run/{daemon}.pid"], check=True)
            self._until(lambda: self.run(["virsh", "--quiet", "list"]).returncode == 0, "libvirtd")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._holder is not None
        self._holder.kill()
        self._holder.wait()

    def run(self, command: Sequence[str | Path], *, check: bool = False) -> subprocess.CompletedProcess[str]:
        """A command inside, with what it printed, errors too."""
        done = subprocess.run([*self.inside(), *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
        assert not check or done.returncode == 0, f"{command} failed ({done.returncode}): {done.stdout}"
        return done

    def inside(self) -> list[str]:
        """The words before a command that runs it inside."""
        assert self._holder is not None
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        first = children[0] if children else "0"
        return ["nsenter", "--target", first, "--mount", "--net", "--pid", "--"]

    def left(self) -> dict[str, list[str]]:
        """What libvirt has, by kind."""
        kinds = {"machines": ["list", "--all"], "networks": ["net-list", "--all"]}
        found = {kind: self.run(["virsh", "--quiet", *words, "--name"], check=True).stdout.split()
                 for kind, words in kinds.items()}
        volumes = self.run(["virsh", "--quiet", "vol-list", "default"], check=True).stdout.splitlines()
        return {**found, "disks": [line.split()[0] for line in volumes if line.strip()]}

    def _until(self, happened: Any, what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not happened():
            assert self._holder is not None
            assert self._holder.poll() is None and time.monotonic() < deadline, f"{what} did not come up"
            time.sleep(0.1)
