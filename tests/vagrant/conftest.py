"""A copy of the checkout with a lab of two machines in it, on a libvirt of its own; and what `vagrant` said."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vagrant.libvirt import Libvirt

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shoal-vagrant"
BOX = "shoal/local"
SLOWNESS = 20
RELEASE = os.environ.get("RELEASE", "bookworm")
"""What the machines run: any that vagrant/box.sh builds."""

PROGRESS = re.compile(r"Progress: \d+%")
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")
NEEDED = ("vagrant", "libvirtd", "virtlogd", "virsh", "dnsmasq", "mmdebstrap", "qemu-system-x86_64", "rsync")


class Lab:
    """`vagrant` in the copy."""

    def __init__(self, libvirt: Libvirt, folder: Path, transcript: Path) -> None:
        self.libvirt = libvirt
        self.folder = folder / "checkout/vagrant"
        self._transcript = transcript
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "http_proxy", "https_proxy")
               if name in os.environ},
            "VAGRANT_HOME": str(folder / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1", "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "BOX": BOX, "MANAGERS": "1", "WORKERS": "1", "EMULATE": "1", "SLOWNESS": str(SLOWNESS),
            "PYTHON": sys.executable,
        }

    def vagrant(self, *words: str, check: bool = True) -> str:
        """What it prints. Fails where it fails."""
        return self.host("vagrant", *words, check=check)

    def host(self, *words: str, check: bool = True) -> str:
        """A command on the machines' host, noted with its time in the transcript."""
        begin = time.monotonic()
        shown = shlex.join(words)
        self._note(f"\n$ {shown}\n")
        lines = []
        command = [*self.libvirt.inside(), "env", f"--chdir={self.folder}", *words]
        with subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace") as process:
            assert process.stdout is not None
            for line in process.stdout:
                if not PROGRESS.search(line):
                    lines.append(ESCAPES.sub("", line))
                    self._note(lines[-1])
        self._note(f"({time.monotonic() - begin:.0f} s)\n")
        said = "".join(lines)
        assert not check or process.returncode == 0, f"{shown} failed ({process.returncode}): {said}"
        return said

    def eventually(self, look: Callable[[], str], enough: Callable[[str], bool], within_s: float) -> str:
        """What `look` gives once it is enough."""
        end = time.monotonic() + within_s
        while not enough(found := look()):
            assert time.monotonic() < end, f"after {within_s:.0f} s still: {found}"
            time.sleep(1)
        return found

    def _note(self, text: str) -> None:
        """Printed, and in the transcript without where this host has its files."""
        for place in (CACHE, tempfile.gettempdir()):
            text = text.replace(f"{place}/", "")
        print(text, end="", flush=True)
        with self._transcript.open("a") as file:
            file.write(text)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        pytest.fail(f"not installed: {', '.join(missing)} (sh setup/vagrant.sh --libvirt installs them)")
    if os.geteuid() != 0:
        pytest.fail("needs root: libvirt runs in namespaces of its own")
    with tempfile.TemporaryDirectory(prefix="shoal-vagrant-") as made:
        folder = Path(made)
        copy_checkout(folder / "checkout")
        transcript = Path(os.environ.get("TRANSCRIPT") or folder / "transcript.txt")
        transcript.unlink(missing_ok=True)
        with Libvirt(folder / "libvirt") as libvirt:
            found = Lab(libvirt, folder, transcript)
            found.vagrant("box", "add", "--name", BOX, str(box()))
            yield found


def copy_checkout(target: Path) -> None:
    """What there is of the checkout without what is made in it."""
    names = subprocess.run(["git", "-C", CHECKOUT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (CHECKOUT / name).exists() and not name.startswith("tests/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name, follow_symlinks=False)


def box() -> Path:
    """The box of the present inputs, built if it is not in the cache."""
    digest = hashlib.sha256()
    for file in ("vagrant/box.sh", "setup/packages.sh", "setup/wheel.sh", "requirements.lock"):
        digest.update((CHECKOUT / file).read_bytes() + b"\0")
    found = CACHE / f"{RELEASE}-{digest.hexdigest()[:16]}.box"
    if not found.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for older in CACHE.glob(f"{RELEASE}-*.box"):
            older.unlink()
        subprocess.run(["sh", CHECKOUT / "vagrant/box.sh", found], check=True,
                       env={**os.environ, "RELEASE": RELEASE, "PYTHON": sys.executable})
    return found
