"""dockerd in swarm mode (Debian's docker.io), on hosts made as a lab's are."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.peers.hosts import Namespaced, wait_until
from shoal.lab import lab as labs
from shoal.lab import processes
from shoal.lab.host import answers, make_hub, power_on
from shoal.lab.plan import HostPlan, plan
from shoal.lab.swarm import form

ROOT = Path("/var/lib/shoal/bench")
NAME = "dockerd"


class Dockerd(Namespaced):
    name = "dockerd"
    data = ROOT / "data" / NAME

    def up(self, managers: int, workers: int, image: Path) -> None:
        # Its sockets lie under the data folder: /run inside a host is a tmpfs of the host's own.
        self.lab = plan(NAME, managers, workers, run=ROOT / "run", data=ROOT / "data")
        Path(self.lab.run).mkdir(parents=True)
        make_hub(self.lab)
        with ThreadPoolExecutor(len(self.lab.hosts)) as pool:
            list(pool.map(self._start, self.lab.hosts))
        form(self.lab, lambda _: None)
        self.load(image)

    def _start(self, host: HostPlan) -> None:
        init_pid = power_on(self.lab, host)
        enter = processes.entering(init_pid)
        subprocess.run([*enter, "mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        data, run = self.lab.data_root(host), self.lab.run_root(host)
        command = [
            "dockerd",
            "--data-root", str(data / "docker"), "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid",
            "--host", f"unix://{self.socket(host)}", "--cgroup-parent", f"{self.lab.cgroup}/{host.name}",
            "--log-level", "error",
        ]
        with (run / "dockerd.log").open("ab") as log:
            subprocess.Popen(
                [*enter, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                env={**os.environ, processes.MARK: self.lab.mark(host)},
            )
        wait_until(lambda: answers(self.socket(host)), 60)

    def down(self) -> None:
        labs.remove(ROOT / "run" / NAME, ROOT / "data" / NAME, f"/shoal-lab/{NAME}")

    def daemon_pids(self, host: str) -> list[int]:
        return self.processes_named(host, "dockerd", "containerd")
