"""What the machines boot: Debian 12's own kernel and packages, and the Python packages that Shoal needs.

    vmlinuz, initrd.gz    the stock cloud kernel, and the few modules that the disk needs
    disk.ext4             the machines' first disk; nobody writes to it
    key                   who holds it may log in

Built once for equal inputs, and kept in the cache. Shoal itself is not in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

CHECKOUT = Path(__file__).parents[2]
GUEST = Path(__file__).parent / "guest"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shoal-vm"
KEPT = 2
"""Images that stay in the cache: this one, and the one before."""

RELEASE = "bookworm"
PYTHON = (3, 11)
"""The release's own Python; the wheels are made for it."""

KERNEL = "linux-image-cloud-amd64"
PACKAGES = (
    # what Shoal needs
    "runc", "crun", "conmon", "catatonit", "nftables", "libnftables1", "conntrack", "iproute2",
    "golang-github-containers-common", "python3-venv", "busybox-static", "kmod", "procps",
    # what containers are tried with: file systems of another machine, profiles that deny
    "nfs-kernel-server", "apparmor",
    # what makes a machine of it
    "systemd-sysv", "dbus", "udev", "openssh-server", "ca-certificates", "e2fsprogs", "iputils-ping", "curl",
)
UNNEEDED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
IDLE_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service",
              "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service", "apparmor.service",
              "rpcbind.socket", "rpcbind.service", "nfs-server.service", "nfs-client.target", "nfs-blkmap.service")
"""Nobody misses them here, and they cost a slow machine seconds."""

VENV = "/opt/shoal"
DISK_MODULES = ("virtio_pci", "virtio_blk")
DISK_BYTES = 4 << 30

_KERNEL_HOOK = f"""
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
name=$(apt-cache depends {KERNEL} | awk '/Depends: linux-image/ {{ print $2; exit }}')
cd "$1/root" && apt-get download -q "$name"
"""


class Image(msgspec.Struct, frozen=True):
    """A folder of the cache."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.gz"

    @property
    def disk(self) -> Path:
        return self.folder / "disk.ext4"

    @property
    def key(self) -> Path:
        return self.folder / "key"


def image() -> Image:
    """The image of the present inputs, built if it is not in the cache. One builds, others wait. Takes two minutes."""
    if sys.version_info[:2] != PYTHON:
        raise RuntimeError(f"the machines' Python is {PYTHON[0]}.{PYTHON[1]}: run this with the same (make PYTHON=…)")
    CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(CACHE / "lock"):
        folder = CACHE / fingerprint()
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(prefix="building-", dir=CACHE) as work:
                Path(work, "result").mkdir()
                _build(Path(work), Path(work, "result"))
                Path(work, "result").rename(folder)
        os.utime(folder)
        _forget_old()
    return Image(folder)


def fingerprint() -> str:
    """A hash of everything that an image is built from."""
    digest = hashlib.sha256()
    for file in (Path(__file__), *sorted(GUEST.iterdir()), CHECKOUT / "requirements.lock"):
        digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    digest.update("\0".join(_dependencies()).encode())
    versions = run(["apt-cache", "policy", KERNEL, *PACKAGES]).splitlines()
    digest.update("\n".join(line for line in versions if "Installed:" not in line and "***" not in line).encode())
    return digest.hexdigest()[:16]


def run(command: Sequence[str | Path], **more: Any) -> str:
    """What a command prints. Raises RuntimeError with what it complained of."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {(done.stderr or done.stdout)[-2000:].strip()}")
    return done.stdout


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_old() -> None:
    """Of images no more than `KEPT`; nothing of builds that were killed."""
    folders = sorted((path for path in CACHE.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    built = [path for path in folders if not path.name.startswith("building-")]
    for path in [*built[:-KEPT], *(path for path in folders if path not in built)]:
        shutil.rmtree(path, ignore_errors=True)


# --- building ---


def _build(work: Path, result: Path) -> None:
    root = work / "root"
    _install_debian(root)
    kernel_version = _install_kernel(root, work / "kernel", result)
    _install_python(root, work / "wheels")
    _set_up(root, result)
    _pack_initrd(root, kernel_version, work / "initrd", result / "initrd.gz")
    disk = result / "disk.ext4"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    # a journal, for these machines lose their power; a small one
    run(["mke2fs", "-q", "-t", "ext4", "-F", "-J", "size=16", "-m", "0", "-d", root, disk])


def _install_debian(root: Path) -> None:
    """Debian's packages, from where this machine has its own, if it is of the same release."""
    sources = [path for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.sources"))
               if path.exists() and RELEASE in path.read_text()]
    run(["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}",
         "--aptopt=APT::Install-Recommends \"false\"", f"--customize-hook={_KERNEL_HOOK}",
         *(f"--dpkgopt=path-exclude=/{folder}/*" for folder in UNNEEDED), RELEASE, root, *sources])


def _install_kernel(root: Path, unpacked: Path, result: Path) -> str:
    """The kernel to `result`, its modules to the disk. Returns its version. (Installed as a package, it would make
    an initramfs of its own, which takes longer than all the rest.)"""
    package, = (root / "root").glob("linux-image-*.deb")
    run(["dpkg", "-x", package, unpacked])
    package.unlink()
    modules, = (unpacked / "lib/modules").iterdir()
    shutil.copyfile(unpacked / f"boot/vmlinuz-{modules.name}", result / "vmlinuz")
    shutil.copytree(modules, root / "usr/lib/modules" / modules.name, symlinks=True, dirs_exist_ok=True)
    run(["chroot", root, "depmod", modules.name])
    return modules.name


def _install_python(root: Path, wheels: Path) -> None:
    """The packages that Shoal needs, as requirements.lock pins them, in a virtual environment of the disk."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--require-hashes",
         "--wheel-dir", wheels, "--requirement", CHECKOUT / "requirements.lock"])
    run(["cp", "-a", wheels, root / "root/wheels"])
    run(["chroot", root, "python3", "-m", "venv", VENV])
    run(["chroot", root, f"{VENV}/bin/pip", "--isolated", "install", "--quiet", "--no-index",
         "--find-links", "/root/wheels", *_dependencies()])
    shutil.rmtree(root / "root/wheels")


def _dependencies() -> list[str]:
    needed: list[str] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    return needed


def _set_up(root: Path, result: Path) -> None:
    """Names, keys, and the two programs that may be process 1."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", result / "key"])
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(result / "key.pub", root / "root/.ssh/authorized_keys")
    for old in (root / "etc/ssh").glob("ssh_host_*"):
        old.unlink()
    run(["ssh-keygen", "-q", "-A", "-f", root])
    (root / "etc/ssh/sshd_config.d/lab.conf").write_text(
        "PermitRootLogin prohibit-password\nUseDNS no\nMaxSessions 50\n")
    (root / "etc/fstab").write_text("/dev/vda / ext4 rw,noatime 0 1\n")
    (root / "etc/machine-id").write_text("")
    (root / "etc/resolv.conf").write_text("# These machines have no resolver above them.\n")
    for name, target in (("lab-net", "usr/local/sbin/lab-net"), ("bare-init", "usr/local/sbin/bare-init"),
                         ("inittab", "etc/inittab"), ("lab-net.service", "etc/systemd/system/lab-net.service")):
        shutil.copy(GUEST / name, root / target)
    run(["chroot", root, "systemctl", "enable", "--quiet", "lab-net.service"])
    run(["chroot", root, "systemctl", "mask", "--quiet", *IDLE_UNITS])


def _pack_initrd(root: Path, kernel_version: str, folder: Path, target: Path) -> None:
    """busybox, the modules in the order to load them, and `guest/initramfs` as its init."""
    for name in ("bin", "proc", "sys", "dev", "disk", "modules"):
        (folder / name).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", folder / "bin/busybox")
    shutil.copy(GUEST / "initramfs", folder / "init")
    wanted: list[str] = []
    for module in DISK_MODULES:
        lines = run(["chroot", root, "modprobe", "-S", kernel_version, "--show-depends", module]).splitlines()
        wanted += [line.split()[1] for line in lines if line.startswith("insmod ")]
    for number, module in enumerate(dict.fromkeys(wanted)):
        shutil.copy(root / module.lstrip("/"), folder / "modules" / f"{number:02}-{Path(module).name}")
    packed = subprocess.run("find . | cpio --quiet -o -H newc | gzip -1", shell=True, cwd=folder, check=True,
                            stdout=subprocess.PIPE).stdout
    target.write_bytes(packed)


if __name__ == "__main__":
    print(image().folder)
