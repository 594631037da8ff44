"""Write down what dockerd makes of the corpus: python -m tests.build.record [CASE…], as root, where dockerd is.

It runs in namespaces of its own. What was recorded by hand (case.json says why) is left alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from shoal.lab.host import answers
from shoal.lab.processes import entering
from tests.build.corpus import Case, Host, cases
from tests.integration.daemon.host import Machine, until


class Dockerd(Machine):
    """A machine on which dockerd runs instead of shoald."""

    def start(self) -> float:
        self.socket = self.root / "docker.sock"
        enter = entering(self.init_pid)
        subprocess.run([*enter, "mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        with (self.root / "shoald.log").open("ab") as log:
            self.shoald = subprocess.Popen(
                [*enter, "dockerd", "--data-root", str(self.root / "data"), "--exec-root", "/run/docker", "--pidfile",
                 "/run/docker.pid", "--host", f"unix://{self.socket}", "--cgroup-parent", f"/{self.cgroup}",
                 "--log-level", "error"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/")
        until(lambda: self._alive() and answers(self.socket), "dockerd answers", 60)
        return 0.0


def main(names: list[str]) -> None:
    root = Path(tempfile.mkdtemp(prefix="corpus-"))
    with Dockerd(root) as machine:
        host = Host(machine.socket, machine.environment())
        for name in names or cases():
            case = Case(name)
            if case.by_hand:
                print(f"{name}: by hand")
                continue
            case.write_expected(host.run(case, root))
            print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
