"""The OCI runtime of this host: the first of runc and crun that really runs a container here.

That is tried once for each boot and kept in the run root: crun refuses some hosts'
cgroups, which nothing but a try tells, and systemd may not answer.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from shoal.api.errors import ShoalError
from shoal.engine.containers.files import read_record, write_record
from shoal.engine.containers.nouns import Limits
from shoal.engine.containers.oci.cgroupdriver import CgroupFS, Driver, Systemd

log = logging.getLogger(__name__)

CANDIDATES = ("runc", "crun")
TRIAL_TIMEOUT_S = 120
"""An emulated machine that has just booted takes 40 s. Both runtimes may hang before systemd ends shoald's start."""


class Runtime(msgspec.Struct, frozen=True):
    """`root` is where the runtime keeps its own state; `driver` who makes its cgroups; `refused` what was better."""

    name: str
    path: str
    root: str
    driver: str = CgroupFS.name
    refused: str = ""

    @property
    def flags(self) -> list[str]:
        """Before the runtime's command, where it makes a container."""
        return [f"--root={self.root}", *["--systemd-cgroup"] * (self.driver == Systemd.name)]

    @property
    def warning(self) -> str:
        """For people, where a better one was tried and failed."""
        if not self.refused:
            return ""
        return (f"{self.name} with the cgroup driver {self.driver} is used until the next boot, for another choice "
                f"failed: {self.refused}")


def find(wanted: str, run_root: Path, drivers: Sequence[Driver]) -> tuple[Runtime, Driver]:
    """The runtime to use and who makes its cgroups, the first of `drivers` that works.

    `wanted` is a name or a path, "" the first that works. Blocking. Raises ShoalError.
    """
    by_name = {driver.name: driver for driver in drivers}
    known = read_record(run_root / "runtime.json", Runtime)
    if (known is not None and wanted in ("", known.name, known.path) and known.driver in by_name
            and Path(known.path).exists()):
        _say(known)
        return known, by_name[known.driver]
    missing: list[str] = []
    refused: list[str] = []
    for driver in drivers:
        for name in (wanted,) if wanted else CANDIDATES:
            path = shutil.which(name)
            if path is None:
                missing.append(f"{name}: not installed")
                continue
            runtime = Runtime(Path(name).name, path, str(run_root / "runtime"), driver.name, "; ".join(refused))
            reason = trial(runtime, driver)
            if not reason:
                write_record(run_root / "runtime.json", runtime, durable=False)
                _say(runtime)
                return runtime, driver
            refused.append(f"{name} with the cgroup driver {driver.name}: {reason}")
    raise ShoalError("no OCI runtime works on this host: " + "; ".join(dict.fromkeys([*missing, *refused])))


def _say(found: Runtime) -> None:
    log.log(logging.WARNING if found.refused else logging.INFO,
            "event=runtime-found name=%s path=%s cgroup_driver=%s refused=%r",
            found.name, found.path, found.driver, found.refused)


def trial(runtime: Runtime, driver: Driver) -> str:
    """Run /bin/true in a container of the host's own programs. Why that failed; "" if it did not. Blocking."""
    with tempfile.TemporaryDirectory(prefix="shoal-trial-") as folder:
        root = Path(folder, "rootfs")
        mounts = [{"destination": "/proc", "type": "proc", "source": "proc"},
                  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}]
        root.mkdir()
        for place in ("usr", "bin", "lib", "lib64"):
            host = Path("/", place)
            if host.is_symlink():
                Path(root, place).symlink_to(host.readlink())
            elif host.is_dir():
                mounts.append({"destination": f"/{place}", "type": "bind", "source": f"/{place}",
                               "options": ["rbind", "ro"]})  # type: ignore[dict-item]
        name = Path(folder).name
        spec = {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/usr/bin:/bin"]},
            "root": {"path": str(root)},
            "mounts": mounts,
            "annotations": driver.annotations(Limits()),
            "linux": {
                "cgroupsPath": driver.oci_path(name),
                "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")],
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }
        Path(folder, "config.json").write_bytes(msgspec.json.encode(spec))
        command = [runtime.path, *msgspec.structs.replace(runtime, root=f"{folder}/state").flags,
                   "run", "--bundle", folder, name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  timeout=TRIAL_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"it did not end within {TRIAL_TIMEOUT_S} s"
        except OSError as error:
            return str(error)
        return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""
