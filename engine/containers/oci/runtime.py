"""The OCI runtime of this host: the first of runc and crun that really runs a container here.

That is tried once for each boot and kept in the run root: crun refuses some hosts'
cgroups, which nothing but a try tells.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from shoal.api.errors import ShoalError
from shoal.engine.containers.files import read_record, write_record

log = logging.getLogger(__name__)

CANDIDATES = ("runc", "crun")
TRIAL_TIMEOUT_S = 30


class Runtime(msgspec.Struct, frozen=True):
    """`root` is where the runtime keeps its own state."""

    name: str
    path: str
    root: str


def find(wanted: str, run_root: Path, cgroup_parent: str) -> Runtime:
    """The runtime to use; `wanted` is a name or a path, "" the first that works. Blocking. Raises ShoalError."""
    known = read_record(run_root / "runtime.json", Runtime)
    if known is not None and wanted in ("", known.name, known.path) and Path(known.path).exists():
        return known
    reasons = []
    for name in (wanted,) if wanted else CANDIDATES:
        path = shutil.which(name)
        if path is None:
            reasons.append(f"{name}: not installed")
            continue
        runtime = Runtime(Path(name).name, path, str(run_root / "runtime"))
        reason = _trial(runtime, cgroup_parent)
        if not reason:
            write_record(run_root / "runtime.json", runtime, durable=False)
            log.info("event=runtime-found name=%s path=%s", runtime.name, path)
            return runtime
        reasons.append(f"{name}: {reason}")
    raise ShoalError("no OCI runtime works on this host: " + "; ".join(reasons))


def _trial(runtime: Runtime, cgroup_parent: str) -> str:
    """Run /bin/true in a container of the host's own programs. Why that failed; "" if it did not."""
    with tempfile.TemporaryDirectory(prefix="shoal-trial-") as folder:
        root = Path(folder, "rootfs")
        mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}]
        root.mkdir()
        for name in ("usr", "bin", "lib", "lib64"):
            host = Path("/", name)
            if host.is_symlink():
                Path(root, name).symlink_to(host.readlink())
            elif host.is_dir():
                mounts.append({"destination": f"/{name}", "type": "bind", "source": f"/{name}",
                               "options": ["rbind", "ro"]})  # type: ignore[dict-item]
        trial = Path(folder).name
        spec = {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/usr/bin:/bin"]},
            "root": {"path": str(root)},
            "mounts": mounts,
            "linux": {
                "cgroupsPath": f"{cgroup_parent}/{trial}",
                "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")],
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }
        Path(folder, "config.json").write_bytes(msgspec.json.encode(spec))
        command = [runtime.path, "--root", f"{folder}/state", "run", "--bundle", folder, trial]
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  timeout=TRIAL_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""
