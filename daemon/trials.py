"""Which OCI runtimes work on this host, tried as the daemon would try them: for `shoal doctor`. Blocking."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from shoal.engine.containers.oci import cgroupdriver, runtime, systemd
from shoal.engine.containers.oci.cgroups import Cgroups


class RuntimeTrial(NamedTuple):
    """`refusal` is empty where it ran a container."""

    name: str
    path: str
    driver: str
    refusal: str


def try_runtimes() -> list[RuntimeTrial]:
    """Each that is installed, with the cgroup driver that `auto` chooses. Needs root."""
    driver = cgroupdriver.candidates(
        cgroupdriver.AUTO, "", version=Cgroups().version, systemd=systemd.is_init())[0]
    found = []
    with tempfile.TemporaryDirectory(prefix="shoal-doctor-") as folder:
        for name in runtime.CANDIDATES:
            if (path := shutil.which(name)) is not None:
                tried = runtime.Runtime(name, path, str(Path(folder, name)), driver.name)
                found.append(RuntimeTrial(name, path, driver.name, runtime.trial(tried, driver)))
    return found
